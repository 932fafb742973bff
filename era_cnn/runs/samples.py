"""What a report shows beyond the tables of a run: computed at its end, so that a report needs neither data nor torch.

Shapes: N test images, M of them kept, K classes, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from era_cnn.data.batches import Normalise
from era_cnn.errors import ConfigError
from era_cnn.models.gradcam import grad_cam
from era_cnn.reports.answers import MOST_IMAGES, MOST_PER_CELL, MOST_SIDE, probabilities
from era_cnn.runs.parts import Parts

NUM_AUGMENTED = 24
NUM_EXPLAINED = 12
MOST_FILTERS = 64


def collect_samples(parts: Parts, predictions: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of samples.npz.

    Args:
        parts: The data, and the network with its final weights.
        predictions: The arrays of predictions.npz.

    Returns:
        `augmented` uint8 (24, C, H, W) and `augmented_labels`, the first training images as the network sees them;
        `error_index` (M,) and `error_images` uint8 (M, C, H, W), the most confident errors of each kind;
        `explained_index` and `explained_maps` float32 (12, h, w), Grad-CAM for the worst of them; and `filters`, the
        weights of the first convolution.
    """
    first, normalise = next(iter(parts.train.epoch(1))), parts.test.normalise
    chosen = _errors(predictions)
    return {
        "augmented": _as_uint8(normalise.undo(first.images[:NUM_AUGMENTED])),
        "augmented_labels": first.labels[:NUM_AUGMENTED].cpu().numpy(),
        "error_index": chosen,
        "error_images": _as_uint8(parts.test.split.at(torch.from_numpy(chosen).to(parts.state.device)).images),
        **_explained(parts, normalise, predictions, chosen[:NUM_EXPLAINED]),
        **_filters(parts.state.network),
    }


def _errors(predictions: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The indices of errors, most confident first; of each kind of error, only its most confident ones."""
    labels, predicted, logits = (predictions[name] for name in ("labels", "predicted", "logits"))
    confidences = probabilities(logits).max(axis=1)
    (wrong,) = np.nonzero(labels != predicted)
    kept: list[int] = []
    counts: dict[tuple[int, int], int] = {}
    for index in wrong[np.argsort(-confidences[wrong], kind="stable")].tolist():
        kind = int(labels[index]), int(predicted[index])
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= MOST_PER_CELL and len(kept) < MOST_IMAGES:
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def _explained(
    parts: Parts, normalise: Normalise, predictions: Mapping[str, NDArray[Any]], chosen: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Grad-CAM for the class that was predicted; nothing if there is no error, or no layer that has positions."""
    if not len(chosen):
        return {}
    device = parts.state.device
    images = normalise(parts.test.split.at(torch.from_numpy(chosen).to(device)).images)
    classes = torch.from_numpy(predictions["predicted"][chosen].astype(np.int64)).to(device)
    try:
        maps = grad_cam(parts.state.network, images, classes)
    except ConfigError:
        return {}
    return {"explained_index": chosen, "explained_maps": maps.values.cpu().numpy()}


def _filters(network: nn.Module) -> dict[str, NDArray[Any]]:
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return {} if first is None else {"filters": first.weight.detach()[:MOST_FILTERS].float().cpu().contiguous().numpy()}


def _as_uint8(images: Tensor) -> NDArray[Any]:
    """Images (N, C, H, W) uint8, no larger than `MOST_SIDE`."""
    side = max(images.shape[-2:])
    if side > MOST_SIDE and len(images):
        size = [max(1, round(each * MOST_SIDE / side)) for each in images.shape[-2:]]
        images = F.interpolate(images.float(), size, mode="area").round_().to(torch.uint8)
    return images.cpu().contiguous().numpy()
