"""Turns a photo or a scan of handwriting into an image of a data set: light strokes on black, at its size and place.

MNIST's images were made by scaling each digit into a box of 20×20 pixels, with antialiasing and its aspect ratio kept,
and moving its centre of mass to the centre of 28×28 pixels (LeCun, Cortes and Burges 1998). Photos also have uneven
light, noise and thin lines. The paper has to fill the picture, apart from the strokes.

Shapes: H×W pixels of a picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from era_cnn.config.data_info import Strokes

Pixels = NDArray[np.uint8]
Values = NDArray[np.floating[Any]]

BLACK = 16
"""The largest grey value that counts as black."""

LONGEST_SIDE = 320
"""Larger pictures are reduced first."""

FAINTEST = 24
"""The least contrast of strokes, in grey values; the noise of a photo has less once it is smoothed."""

SMALLEST_PART = 0.03
"""Parts with less than this share of the pixels of the largest one are specks."""


def is_prepared(picture: Pixels, shape: tuple[int, int]) -> bool:
    """Whether a grey picture (H, W) is an image of the data set already: its size, and black at most of its border."""
    return picture.shape == shape and float(np.median(picture[_ring(picture.shape, 1)])) <= BLACK


def draw_strokes(picture: Pixels, shape: tuple[int, int], strokes: Strokes) -> Pixels:
    """The strokes of a grey picture (H, W), light on black, as an image of the given height and width.

    Raises:
        ValueError: If nothing stands out from the paper.
    """
    ink, mask = _ink(_reduced(picture))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    drawing = _thickened(ink[box], mask[box], strokes)
    scale = strokes.size / max(drawing.shape)
    height, width = (max(1, round(side * scale)) for side in drawing.shape)
    small = Image.fromarray((drawing * 255).round().astype(np.uint8)).resize((width, height), Image.Resampling.HAMMING)
    placed = _placed(np.asarray(small), shape, strokes)
    if strokes.detail is None:
        return placed
    coarse = Image.fromarray(placed).resize((strokes.detail, strokes.detail), Image.Resampling.BOX)
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BILINEAR))


def _reduced(picture: Pixels) -> Values:
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(image, dtype=np.float64)


def _ink(picture: Values) -> tuple[Values, NDArray[np.bool_]]:
    """How much of each pixel is ink, in [0, 1], without specks; and which pixels are strokes."""
    from scipy import ndimage

    contrast = ndimage.gaussian_filter(picture - _paper(picture), 0.7)
    if -contrast.min() > contrast.max():  # dark ink on light paper
        contrast = -contrast
    strongest = float(contrast.max())
    if strongest < FAINTEST:
        raise ValueError("no strokes: the picture is even")
    parts, count = ndimage.label(contrast > 0.4 * strongest, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    mask = np.isin(parts, 1 + np.flatnonzero(sizes >= SMALLEST_PART * sizes.max()))
    near = ndimage.binary_dilation(mask, np.ones((3, 3)))
    return np.clip((contrast / strongest - 0.15) / 0.6, 0, 1) * near, mask


def _paper(picture: Values) -> Values:
    """The brightness of the paper at each pixel: a quadratic surface, fitted to the border and what is like it."""
    y, x = (np.linspace(-1, 1, side) for side in picture.shape)
    x, y = np.meshgrid(x, y)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2)
    step = 1 + max(picture.shape) // 64  # six factors need few points
    points, values = terms[::step, ::step].reshape(-1, 6), picture[::step, ::step].ravel()
    chosen = _ring(picture.shape, max(1, min(picture.shape) // 20))[::step, ::step].ravel()
    for _ in range(6):
        factors, *_ = np.linalg.lstsq(points[chosen], values[chosen], rcond=None)
        distance = np.abs(values - points @ factors)
        chosen = distance <= 3 * np.median(distance[chosen]) + 1
    surface: Values = terms @ factors
    return surface


def _ring(shape: tuple[int, ...], width: int) -> NDArray[np.bool_]:
    """The pixels at the border."""
    ring = np.ones(shape, dtype=bool)
    ring[width:-width, width:-width] = False
    return ring


def _thickened(ink: Values, mask: NDArray[np.bool_], strokes: Strokes) -> Values:
    """The drawing with strokes that will not be thinner than those of the data set."""
    from scipy import ndimage

    width = 4 * ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean()  # of a bar, 4 times the mean
    scale = strokes.size / max(ink.shape)
    radius = round((strokes.width / scale - width) / 2)
    if radius < 1:
        return ink
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    thick: Values = ndimage.grey_dilation(np.pad(ink, radius), footprint=x * x + y * y <= radius * radius)
    return thick


def _placed(drawing: Pixels, shape: tuple[int, int], strokes: Strokes) -> Pixels:
    """The drawing on black. MNIST's centre of mass lies on the pixel right of and below the centre, as measured."""
    image = np.zeros(shape, dtype=np.uint8)
    corner = []
    for axis, (side, length) in enumerate(zip(shape, drawing.shape, strict=True)):
        start = (side - length) / 2
        if strokes.centre == "mass":
            mass = drawing.sum(axis=1 - axis, dtype=np.float64)
            start = side / 2 - mass @ np.arange(length) / mass.sum()
        corner.append(min(max(round(start), 0), side - length))
    image[corner[0] : corner[0] + drawing.shape[0], corner[1] : corner[1] + drawing.shape[1]] = drawing
    return image
