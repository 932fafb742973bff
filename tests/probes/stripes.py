"""A data set from outside the package: colour images of 3×32×32 pixels with stripes in seven directions."""

import math
from typing import Annotated

import numpy as np
from pydantic import Field

import era_cnn


@era_cnn.dataset("stripes")
class Stripes:
    """Each class is a direction; phase, colour and noise vary from image to image."""

    def __init__(
        self, *, train_size: Annotated[int, Field(ge=7, le=100_000, description="the number of training images")] = 210
    ) -> None:
        self.train_size = train_size

    def info(self) -> era_cnn.DataInfo:
        names = tuple(f"{round(180 * number / 7)} degrees" for number in range(7))
        return era_cnn.DataInfo((3, 32, 32), names, self.train_size, test_size=70)

    def read(self) -> era_cnn.Arrays:
        return era_cnn.Arrays(*self._draw(self.train_size, seed=0), *self._draw(70, seed=1))

    def _draw(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        labels = np.arange(count) % 7
        y, x = np.mgrid[:32, :32]
        angles = (labels * math.pi / 7)[:, None, None]
        waves = np.sin((x * np.cos(angles) + y * np.sin(angles)) * 0.9 + random.uniform(0, 6, (count, 1, 1)))
        colours = random.uniform(40, 120, (count, 3, 1, 1))
        images = 128 + colours * waves[:, None] + random.normal(0, 4, (count, 3, 32, 32))
        return images.clip(0, 255).astype(np.uint8), labels
