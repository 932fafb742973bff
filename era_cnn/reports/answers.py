"""The arrays of a run that a report shows: its answers for the test images, and the images that were kept.

Shapes: N test images, K classes, C channels, H×W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cnn.errors import RunFolderError
from era_cnn.folders.arrays import Expected, read_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PER_CELL = 12
"""The most images that are kept and shown of those of one class that are taken for another."""

MOST_IMAGES = 1_000
"""The most images that are kept for a report of one kind, such as errors."""

MOST_CLASSES = 2**16
"""The most classes of predictions that are read: a page has a row for each."""

MOST_SIDE = 96
"""The most pixels along a side of an image that is kept for a report; larger ones are reduced."""


@dataclass(frozen=True)
class Predictions:
    """The answers of some weights for the test images: labels and predicted classes (N,), probabilities (N, K)."""

    labels: NDArray[Any]
    predicted: NDArray[Any]
    probabilities: NDArray[Any]

    @cached_property
    def confidences(self) -> NDArray[Any]:
        """The probability of the predicted class of each image, (N,)."""
        confidences: NDArray[Any] = self.probabilities.max(axis=1)
        return confidences

    @cached_property
    def confusion(self) -> NDArray[Any]:
        """How often images of each class (row) were taken for each class (column), (K, K)."""
        import numpy as np

        size = self.probabilities.shape[1]
        counts = np.bincount(self.labels.astype(np.int64) * size + self.predicted, minlength=size * size)
        return counts.reshape(size, size)

    @cached_property
    def by_class(self) -> NDArray[Any]:
        """Of each class, how many images it has, how often it was predicted, and how often rightly; (K, 3)."""
        import numpy as np

        size, right = self.probabilities.shape[1], self.labels[self.labels == self.predicted]
        return np.stack([np.bincount(each, minlength=size) for each in (self.labels, self.predicted, right)], axis=1)

    def errors(self) -> list[tuple[int, int, int]]:
        """Each kind of error as true class, predicted class and number of images; the commonest first."""
        wrong = self.labels != self.predicted
        kinds = Counter(zip(self.labels[wrong].tolist(), self.predicted[wrong].tolist(), strict=True))
        return [(*kind, count) for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]


_LABELS = {"labels": Expected("iu", 1)}
_ANSWERS = {"predicted": Expected("iu", 1), "logits": Expected("f", 2)}


def read_predictions(path: Path) -> Predictions:
    """The predictions of the final weights in the folder of a run.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    file = path / "predictions.npz"
    return _checked(read_arrays(file, {**_LABELS, **_ANSWERS}), "", file)


def read_best_predictions(path: Path) -> Predictions | None:
    """Those of the best weights; None if no validation images chose them, or they were lost.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    file, prefix = path / "predictions.npz", "best_"
    wanted = {f"{prefix}{name}": replace(each, is_optional=True) for name, each in _ANSWERS.items()}
    arrays = read_arrays(file, {**_LABELS, **wanted})
    return _checked(arrays, prefix, file) if wanted.keys() <= arrays.keys() else None


def _checked(arrays: Mapping[str, NDArray[Any]], prefix: str, file: Path) -> Predictions:
    import numpy as np

    labels, predicted, logits = (arrays[name] for name in ("labels", f"{prefix}predicted", f"{prefix}logits"))
    size, classes = logits.shape
    is_whole = len(labels) == len(predicted) == size > 0 and classes <= MOST_CLASSES and np.isfinite(logits).all()
    if not (is_whole and min(labels.min(), predicted.min()) >= 0 and max(labels.max(), predicted.max()) < classes):
        got = f"{len(labels)} labels, {len(predicted)} predictions and logits of shape {logits.shape}"
        raise RunFolderError(f"{file} must hold a class for each image, got {got}. Replay the run.")
    return Predictions(labels.astype(np.int64), predicted.astype(np.int64), probabilities(logits))


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """The softmax of logits (N, K), float64."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[Any] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


_SAMPLES = {
    "augmented": Expected("u", 4, is_optional=True),
    "error_index": Expected("iu", 1, is_optional=True),
    "error_images": Expected("u", 4, is_optional=True),
    "explained_index": Expected("iu", 1, is_optional=True),
    "explained_maps": Expected("f", 3, is_optional=True),
    "filters": Expected("f", 4, is_optional=True),
}
_PAIRS = (("error_index", "error_images"), ("explained_index", "explained_maps"))


def read_samples(path: Path, num_images: int) -> dict[str, NDArray[Any]]:
    """The arrays of samples.npz that a report shows: see `runs.samples`.

    Args:
        path: The folder of the run.
        num_images: The number of test images, which the indices of errors are places of; 0 if it is not known.

    Raises:
        RunFolderError: If the file is damaged, or its arrays do not fit each other.
    """
    arrays = read_arrays(path / "samples.npz", _SAMPLES)
    if wrong := next(_faults(arrays, num_images), None):
        raise RunFolderError(
            f"{path / 'samples.npz'} must hold what the run wrote, got: {wrong}. Resume or replay the run."
        )
    return arrays


def _faults(arrays: Mapping[str, NDArray[Any]], num_images: int) -> Iterator[str]:
    """What is wrong with arrays that have the right kinds and axes."""
    import numpy as np

    for name, array in arrays.items():
        sides, is_image = array.shape[1:], array.dtype.kind == "u" and array.ndim == 4
        if array.ndim > 1 and not all(1 <= side <= MOST_SIDE for side in sides[-2:]):
            yield f"{name} of shape {array.shape}"
        if array.ndim == 4 and not (sides[0] and (len(array) or name == "error_images")):
            yield f"{name} of shape {array.shape}"
        if is_image and array.dtype != np.uint8:
            yield f"{name} of type {array.dtype}"
        if len(array) > MOST_IMAGES:
            yield f"{name} of shape {array.shape}"
    for index, values in _PAIRS:
        if len(arrays.get(index, ())) != len(arrays.get(values, ())):
            yield f"{index} and {values} of different lengths"
        if num_images and not all(0 <= each < num_images for each in arrays.get(index, ())):
            yield f"{index} beyond the {num_images} test images"
    if not np.isfinite(arrays.get("filters", np.empty(0))).all():
        yield "filters that are not finite"
    maps = arrays.get("explained_maps", np.empty(0))
    if not ((maps >= 0) & (maps <= 1)).all():
        yield "explained_maps beyond [0, 1]"
