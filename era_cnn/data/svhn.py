"""SVHN, whose files are MATLAB's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from era_cnn.data.arrays import Arrays, Images, Labels
from era_cnn.data.published import PublishedFile, obtain

_URL = "http://ufldl.stanford.edu/housenumbers/"

# Digests and addresses are those that torchvision states in torchvision/datasets/svhn.py.
FILES = (
    PublishedFile("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 2**28, f"{_URL}train_32x32.mat"),
    PublishedFile("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 2**28, f"{_URL}test_32x32.mat"),
)


def read_svhn(root: Path) -> Arrays:
    """Reads SVHN's two files under `root`; downloads missing ones.

    Raises:
        DataError: If a file is damaged, or missing and can't be downloaded.
    """
    train, test = obtain("svhn", FILES, (root, root / "SVHN"))
    (train_images, train_labels), (test_images, test_labels) = map(_images_and_labels, (train, test))
    return Arrays(train_images, train_labels, test_images, test_labels)


def _images_and_labels(content: bytes) -> tuple[Images, Labels]:
    """The images, stored as (H, W, C, N), and the labels, stored as (N, 1) with 10 for the digit 0."""
    from scipy.io import loadmat

    values = loadmat(io.BytesIO(content), variable_names=["X", "y"])
    return np.ascontiguousarray(values["X"].transpose(3, 2, 0, 1)), values["y"][:, 0].astype(np.int64) % 10
