"""Scikit-learn's handwritten digits, which are installed with it: no file and no download."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from era_cnn.data.arrays import Arrays


def read_digits(train_size: int) -> Arrays:
    """Reads scikit-learn's 1,797 digits of 8×8 pixels, scaled to 28×28; the first `train_size` are for training.

    The scaling is bilinear, without aligned corners, and uses only integers: the bytes are the same on every machine.
    """
    pixels, targets = (array.copy() for array in _scaled())
    return Arrays(pixels[:train_size], targets[:train_size], pixels[train_size:], targets[train_size:])


@cache
def _scaled() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images, (N, 28, 28), and labels, (N,): a process trains on them again and again, in a sweep or a notebook."""
    from sklearn.datasets import load_digits  # takes a second to import

    images, labels = load_digits(return_X_y=True)
    small = images.reshape(-1, 8, 8).astype(np.int64)  # 0 to 16
    weights = _bilinear_weights(8, 28)  # in fourteenths
    large = weights @ small @ weights.T  # 0 to 16 · 14²
    pixels = ((large * 255 + 8 * 14**2) // (16 * 14**2)).astype(np.uint8)
    return pixels, labels.astype(np.uint8)


def _bilinear_weights(size: int, new_size: int) -> NDArray[np.int64]:
    """Row y holds the weights of the `size` old pixels for new pixel y, in units of 1 / (2 · new_size / gcd)."""
    unit = 2 * new_size // np.gcd(size, new_size)  # 14 for 8 to 28
    weights = np.zeros((new_size, size), dtype=np.int64)
    for new in range(new_size):
        # The centre of the new pixel on the old grid, (new + 1/2) · size / new_size - 1/2, in units.
        centre = (2 * new + 1) * size * unit // (2 * new_size) - unit // 2
        left, share = divmod(centre, unit)
        weights[new, max(left, 0)] += unit - share
        weights[new, min(left + 1, size - 1)] += share
    return weights
