"""Photos of digits, drawn: paper, ink, a digit that is not in the middle, uneven light, noise, and a camera that was turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

WIDTH, HEIGHT = 900, 700
TURNED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""How a picture is stored for an EXIF orientation that turns it upright."""


def photo_of(digit: NDArray[np.uint8], number: int, *, is_board: bool = False) -> tuple[Image.Image, int]:
    """A photo of a digit (28, 28), light on black, and the orientation in which it is stored.

    Args:
        digit: The image.
        number: Decides size, place, light and noise.
        is_board: Whether it is written in chalk on a board and not in ink on paper.
    """
    random = np.random.default_rng(number)
    side = int(random.integers(260, 420))
    drawn = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    drawn = drawn.filter(ImageFilter.GaussianBlur(1.5))
    left, top = (int(random.integers(40, each - side - 40)) for each in (WIDTH, HEIGHT))
    share = np.zeros((HEIGHT, WIDTH))
    share[top : top + side, left : left + side] = ((np.asarray(drawn) / 255 - 0.3) / 0.4).clip(0, 1)  # a pen has edges
    paper, ink = (45, 215) if is_board else (235, 35)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    angle = random.uniform(0, 2 * np.pi)
    light = 0.8 + 0.15 * (x * np.cos(angle) + y * np.sin(angle)) - 0.06 * (x * x + y * y)
    grey = (paper + (ink - paper) * share) * light
    noisy = grey + random.normal(0, 6, grey.shape).astype(np.float32)
    colours = noisy[..., None] * np.array([1.0, 0.98, 0.93])
    picture = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    orientation = int(random.choice([1, *TURNED]))
    return (picture.transpose(TURNED[orientation]) if orientation > 1 else picture), orientation


def save_photo(path: Path, digit: NDArray[np.uint8], number: int, **options: Any) -> Path:
    """Writes such a photo as JPEG, with its orientation in the EXIF tag."""
    picture, orientation = photo_of(digit, number, **options)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, "JPEG", quality=88, exif=exif)
    return path
