"""The images and labels of a data set, as arrays.

Shapes: N images in a split, C channels, H×W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from era_cnn.config.data_info import DataInfo
from era_cnn.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[Any]


@dataclass(frozen=True)
class Arrays:
    """Images (N, C, H, W), or grey ones (N, H, W), as uint8; labels (N,) as integers from 0; in the order of the files.

    They may be memory-mapped.
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    @cached_property
    def sha256(self) -> str:
        """The digest over shapes and values, regardless of the files they came from.

        A single-channel axis, and the type of one-byte labels, are not part of it, as in versions without others.
        """
        digest = hashlib.sha256()
        for images, labels in ((self.train_images, self.train_labels), (self.test_images, self.test_labels)):
            grey = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
            for array in (grey, labels):
                kind = "" if array.dtype == np.uint8 else array.dtype.newbyteorder("<").str
                digest.update(f"{kind}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def check_against(arrays: Arrays, info: DataInfo, name: str) -> None:
    """Raises a `DataError` if the arrays do not match the description of the data set."""
    for problem in _contradictions(arrays, info):
        raise DataError(f"The data set {name} must match its description: {problem}. Fix the data set.")


def _contradictions(arrays: Arrays, info: DataInfo) -> Iterator[str]:
    for split, images, labels, size in (
        ("training", arrays.train_images, arrays.train_labels, info.train_size),
        ("test", arrays.test_images, arrays.test_labels, info.test_size),
    ):
        expected = (size, *info.shape)
        shape = images.shape if images.ndim == 4 else (*images.shape[:1], 1, *images.shape[1:])
        if images.dtype != np.uint8:
            yield f"{split} images of uint8, got {images.dtype}"
        elif shape != expected:
            yield f"{split} images of shape {expected}, got {images.shape}"
        elif labels.shape != (size,) or labels.dtype.kind not in "iu":
            yield f"{split} labels of shape ({size},), whole numbers, got {labels.shape} of {labels.dtype}"
        elif not 0 <= int(labels.min()) <= int(labels.max()) < info.num_classes:
            got = f"{int(labels.min())} to {int(labels.max())}"
            yield f"{split} labels from 0 to {info.num_classes - 1}, one for each class, got {got}"
