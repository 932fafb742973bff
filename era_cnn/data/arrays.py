"""The images and labels of a data set, as arrays.

Shapes: N images in a split, C channels, H×W pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cnn.config.choices import DATASETS
from era_cnn.config.data_info import DataInfo
from era_cnn.config.signatures import is_own
from era_cnn.errors import DataError, described

Images = NDArray[np.uint8]
Labels = NDArray[Any]


class Statistics(NamedTuple):
    """The mean and the standard deviation of each channel's pixels, scaled to [0, 1], to four decimals."""

    mean: list[float]
    std: list[float]


class Known(NamedTuple):
    """What was computed from the arrays before, and is stored with them."""

    sha256: str
    statistics: Statistics


@dataclass(frozen=True)
class Arrays:
    """Images (N, C, H, W), or grey ones (N, H, W), as uint8; labels (N,) as integers from 0; in the order of the files.

    They may be memory-mapped. A data set may bring validation images, and may know its classes only from its files.
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    val_images: Images | None = None
    val_labels: Labels | None = None
    class_names: tuple[str, ...] | None = None
    known: Known | None = None

    def splits(self) -> Iterator[tuple[str, Images, Labels]]:
        """The splits that exist: name, images and labels."""
        yield "training", self.train_images, self.train_labels
        if self.val_images is not None and self.val_labels is not None:
            yield "validation", self.val_images, self.val_labels
        yield "test", self.test_images, self.test_labels

    def faults(self) -> Iterator[str]:
        """What is wrong with the arrays whatever the data set is, as what they should be and what they are."""
        if (self.val_images is None) != (self.val_labels is None):
            yield "validation images with their labels, got one of the two"
        names = self.class_names
        if names is not None and not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
            yield f"class_names that are a tuple of strings, got {described(names)}"
        if not isinstance(self.known, Known | None):
            yield f"known that is left out, got {described(self.known)}"
        for split, images, labels in self.splits():
            if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
                got = str(images.dtype) if isinstance(images, np.ndarray) else described(images)
                yield f"{split} images of uint8, got {got}"
            elif images.ndim not in (3, 4) or not len(images):
                yield f"{split} images of shape (N, C, H, W) or (N, H, W), got {images.shape}"
            elif not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
                got = f"{labels.shape} of {labels.dtype}" if isinstance(labels, np.ndarray) else described(labels)
                yield f"{split} labels of shape (N,), whole numbers, got {got}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images."""
        return _with_channels(self.train_images)[1:]

    @property
    def contents(self) -> dict[str, Any]:
        """What a config stores of a data set that can be described only from its files; see `Contents`."""
        assert self.class_names is not None, "a data set with the field `contents` gives the names of its classes"
        return {
            "shape": list(self.shape),
            "class_names": list(self.class_names),
            "train_size": len(self.train_labels),
            "test_size": len(self.test_labels),
            "val_size": 0 if self.val_labels is None else len(self.val_labels),
        }

    @cached_property
    def sha256(self) -> str:
        """The digest over shapes and values, regardless of the files they came from.

        A single-channel axis, and the type of one-byte labels, are not part of it, as in versions without others.
        """
        if self.known:
            return self.known.sha256
        digest = hashlib.sha256()
        for _, images, labels in sorted(self.splits(), key=lambda split: split[0] == "validation"):  # they come last
            grey = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
            for array in (grey, labels):
                kind = "" if array.dtype == np.uint8 else array.dtype.newbyteorder("<").str
                digest.update(f"{kind}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def statistics(self) -> Statistics:
        """The mean and the standard deviation of the training images, computed with integers: exact in any order."""
        if self.known:
            return self.known.statistics
        shape = _with_channels(self.train_images)
        images = self.train_images.reshape(shape)
        values = np.arange(256)
        mean, std = [], []
        for channel in range(shape[1]):
            counts = np.zeros(256, dtype=np.int64)
            for start in range(0, len(images), CHUNK):
                counts += np.bincount(images[start : start + CHUNK, channel].ravel(), minlength=256)
            number, total, squares = (int(counts @ values**power) for power in range(3))
            mean.append(round(total / number / 255, 4))
            std.append(round(math.sqrt(number * squares - total**2) / number / 255, 4))
        return Statistics(mean, std)


CHUNK = 1024
"""Images that are looked at together, so that those that are memory-mapped need not be in memory at once."""


def digests_of(images: Images) -> Iterator[bytes]:
    """A digest of the pixels of each image."""
    return (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)


def _with_channels(images: Images) -> tuple[int, ...]:
    """The shape of images with an axis for channels."""
    return images.shape if images.ndim == 4 else (*images.shape[:1], 1, *images.shape[1:])


def check_against(arrays: Arrays, info: DataInfo, name: str) -> None:
    """Raises a `DataError` if the arrays do not match the description of the data set."""
    for problem in itertools.chain(arrays.faults(), _contradictions(arrays, info)):
        is_known = name in DATASETS.imported() and not is_own(DATASETS[name])
        advice = DATASETS.where_to_fix(name) if is_known else "Fix the data set."
        raise DataError(f"The data set {name} must match its description: {problem}. {advice}")


def _contradictions(arrays: Arrays, info: DataInfo) -> Iterator[str]:
    if arrays.class_names not in (None, info.class_names):
        yield f"classes {info.class_names}, got {arrays.class_names}"
    if (arrays.val_labels is not None) != (info.val_size > 0):
        yield f"{info.val_size} validation images, got {0 if arrays.val_labels is None else len(arrays.val_labels)}"
    sizes = {"training": info.train_size, "validation": info.val_size, "test": info.test_size}
    for split, images, labels in arrays.splits():
        size = sizes[split]
        expected = (size, *info.shape)
        if _with_channels(images) != expected:
            yield f"{split} images of shape {expected}, got {images.shape}"
        elif labels.shape != (size,):
            yield f"{split} labels of shape ({size},), whole numbers, got {labels.shape} of {labels.dtype}"
        elif not 0 <= int(labels.min()) <= int(labels.max()) < info.num_classes:
            got = f"{int(labels.min())} to {int(labels.max())}"
            yield f"{split} labels from 0 to {info.num_classes - 1}, one for each class, got {got}"
