"""Small folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TWO_SPLITS = {"train/cat": 6, "train/dog": 4, "test/cat": 2, "test/dog": 3}


def make_folder(
    root: Path, counts: dict[str, int], *, size: tuple[int, int] = (8, 6), grey: bool = False, suffix: str = ".png"
) -> Path:
    """Makes folders with that many images of random pixels each, of this height and width; gives the root."""
    rng = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save(root / folder / f"{number}{suffix}", rng.integers(0, 256, size if grey else (*size, 3)))
    return root


def save(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> Path:
    """Writes pixels (H, W) or (H, W, 3) as an image in the format that the name says."""
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path
