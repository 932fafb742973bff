"""Random boxes within an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from era_cnn.data.transforms.fields import between, whole

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 10
BOX_DRAWS = 2 * ATTEMPTS + 2


def random_boxes(
    draws: Tensor, size: Sequence[int], *, scale: Sequence[float], ratio: Sequence[float], largest: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """A box for each image: a share of its area, uniform in `scale`, and height / width, log-uniform in `ratio`.

    Of ten boxes that are drawn, the first that is not too large is taken, as torchvision does.

    Args:
        draws: (BOX_DRAWS, B), uniform in [0, 1), float64 on the CPU.
        size: Height and width of the image.
        scale: The range of the area, as a share of the image.
        ratio: The range of height / width.
        largest: The largest height and width.

    Returns:
        Boxes (B, 4) as top, left, height and width, int64; and whether one of the ten fits, (B,).
    """
    import torch

    areas = between(draws[:ATTEMPTS], *scale) * size[0] * size[1]
    ratios = between(draws[ATTEMPTS:-2], math.log(ratio[0]), math.log(ratio[1])).exp()
    heights, widths = (areas * ratios).sqrt().round().long(), (areas / ratios).sqrt().round().long()
    fits = (heights > 0) & (widths > 0) & (heights <= largest[0]) & (widths <= largest[1])
    first = fits.int().argmax(dim=0, keepdim=True)
    height, width = heights.gather(0, first)[0], widths.gather(0, first)[0]
    top, left = whole(draws[-2], 0, size[0] - height), whole(draws[-1], 0, size[1] - width)
    return torch.stack([top, left, height, width], dim=1), fits.any(dim=0)
