"""Explains the answers of a trained network: Grad-CAM over pictures, as PNG.

Shapes: N images, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from era_cnn.config.schema import RunConfig
from era_cnn.data.batches import Normalise
from era_cnn.errors import ConfigError, one_of, problem
from era_cnn.folders.claims import claim
from era_cnn.folders.storage import write_atomically
from era_cnn.models.gradcam import Maps, grad_cam
from era_cnn.nearest import did_you_mean
from era_cnn.output import complain, say, shown
from era_cnn.reports import pictures
from era_cnn.reports.formats import aligned
from era_cnn.runs.process import set_up
from era_cnn.use.evaluate import usable_device
from era_cnn.use.network import Run, Trained, Which
from era_cnn.use.predict import Images, answers, numbered, prepared_images
from era_cnn.use.preparing import Preparer, image_files, unreadable

PANEL = 280
"""The height in pixels of the pictures that stand beside each other."""

WIDEST = 560
TOGETHER = 64
"""Images that are explained at a time."""


@dataclass(frozen=True)
class Explained:
    """For N images: the explained class and its score, the map of each (N, h, w) in [0, 1], and the layer they are of.

    A map is zero where nothing speaks for the class. `images` are what the network saw, (N, C, H, W) uint8.
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    maps: NDArray[np.float32]
    layer: str
    class_names: tuple[str, ...]

    @cached_property
    def heat_maps(self) -> NDArray[np.float32]:
        """The maps at the size of the images, (N, H, W) in [0, 1], to be drawn over them."""
        height, width = self.images.shape[2:]
        sized = [Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in self.maps]
        return np.stack([np.asarray(each, dtype=np.float32) for each in sized]).clip(0, 1)


def explain_images(
    run: Run, images: Images, *, class_name: str | None = None, checkpoint: Which = "last", device: str | None = None
) -> Explained:
    """Explains images. See `Run.explain`."""
    number = _number(run.config, class_name, "class_name")
    prepared = prepared_images(run.config, images)
    trained = run.trained(checkpoint, device=device or usable_device(run.config))
    return explain(trained, run.config, prepared, number)


def explain(trained: Trained, config: RunConfig, images: NDArray[np.uint8], number: int | None = None) -> Explained:
    """Explains images (N, C, H, W), as the data set holds them.

    Args:
        trained: The network.
        config: The config of its run.
        images: The images.
        number: The class to explain; None for the predicted class of each image.

    Raises:
        ConfigError: If the network has no layer with positions.
    """
    predicted = answers(trained, config, images)
    classes = predicted.classes if number is None else np.full(len(images), number)
    normalise, place = Normalise(*config.data.normalisation), next(trained.network.parameters()).device
    found: list[Maps] = []
    with set_up(config.threads):
        for start in range(0, len(images), TOGETHER):
            part = normalise(torch.from_numpy(images[start : start + TOGETHER]).to(place))
            found.append(grad_cam(trained.network, part, torch.from_numpy(classes[start : start + TOGETHER]).to(place)))
    maps = np.concatenate([each.values.cpu().numpy() for each in found])
    scores = predicted.scores[np.arange(len(images)), classes]
    return Explained(images, classes, scores, maps, found[0].layer, predicted.class_names)


def _number(config: RunConfig, class_name: str | None, key: str) -> int | None:
    """The number of a class; None for none."""
    names = config.info.class_names
    if class_name is not None and class_name not in names:
        advice = did_you_mean(class_name, names, "Choose one of them.")
        raise ConfigError([problem(key, one_of(names), class_name, advice)])
    return None if class_name is None else names.index(class_name)


def explain_files(
    run: Run,
    paths: Sequence[Path],
    *,
    checkpoint: Which = "last",
    class_name: str | None = None,
    to: str | None = None,
) -> int:
    """Writes a PNG for each file, and each image in a folder; returns 1 if some can't be read.

    It shows the picture, what the network saw of it, and the evidence for the class over that: red is most, blue none.

    Args:
        run: The run.
        paths: Files and folders.
        checkpoint: The weights, as for `Run.network`.
        class_name: The class to explain; None for the predicted one.
        to: A new folder; None for `explained/<date>/<time>_<experiment>`.

    Raises:
        ConfigError: If there is no image at all, no such class, or no layer to explain; also as `Run.network`.
        RunFolderError: As `Run.network`; also if the folder can't be created.
    """
    names, number = run.config.info.class_names, _number(run.config, class_name, "--class")
    trained = run.trained(checkpoint, device=usable_device(run.config))
    preparer = Preparer(run.config)
    good, prepared, problems = preparer.read_all(image_files(paths))
    if good:
        found = explain(trained, run.config, np.stack(prepared), number)
        now = datetime.now()
        wanted = to or f"explained/{now:%Y-%m-%d}/{now:%H-%M-%S}_{run.config.name}"
        folder = claim(Path(wanted), advice="Give another folder with --to.").path
        rows = []
        for i, (path, file_name) in enumerate(zip(good, numbered(good), strict=True)):
            write_atomically(
                folder / file_name, pictures.png(_panels(preparer.original(path), prepared[i], found.maps[i]))
            )
            evidence = "" if found.maps[i].any() else "no positive evidence"
            rows.append([str(path), names[found.classes[i]], f"{100 * found.scores[i]:.1f}%", file_name, evidence])
        say(f"{trained} of {shown(run.path)}; Grad-CAM of the layer {found.layer}", f"Folder: {shown(folder)}")
        say(*aligned((["image", "explained", "confidence", "picture", ""], rows)).split("\n"))
    for path, reason in problems.items():
        complain(unreadable(path, reason))
    return 1 if problems else 0


def _panels(original: NDArray[Any], image: NDArray[Any], heat: NDArray[Any]) -> NDArray[np.uint8]:
    """The original (C, h, w), what the network saw (C, H, W) and its map beside each other, (3, PANEL, …)."""
    enlarged = _sized(image, Image.Resampling.NEAREST)
    panels = [_sized(original, Image.Resampling.BILINEAR), enlarged, pictures.with_heat(enlarged, heat)]
    gap = np.full((3, PANEL, 8), 255, dtype=np.uint8)
    parts = [part for panel in panels for part in (np.broadcast_to(panel, (3, *panel.shape[1:])), gap)]
    return np.concatenate(parts[:-1], axis=2)


def _sized(image: NDArray[Any], resampling: Image.Resampling) -> NDArray[np.uint8]:
    """The image (C, h, w), grey or in colour, `PANEL` pixels high."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    width = min(max(round(image.shape[2] * PANEL / image.shape[1]), 1), WIDEST)
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, PANEL), resampling))
    return resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
