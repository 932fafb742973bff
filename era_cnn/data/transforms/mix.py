"""Mixing of images within a batch, after they are normalised.

The loss of a mixed image is the mean of those of both labels, weighted by their shares of the image. Training accuracy
counts the label of the image itself, so it can't be compared with that of images that are not mixed. Label smoothing is
left to the loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.data.transforms.fields import whole
from era_cnn.data.transforms.pipeline import Mix

if TYPE_CHECKING:
    from torch import Tensor

Alpha = Annotated[
    float,
    Field(gt=0, le=100, description="the parameter of Beta(alpha, alpha): 1 for uniform shares, less for extreme ones"),
]
Per = Annotated[
    Literal["batch", "image"], Field(description="whether a batch has one share and place, or each image its own")
]


@transform("mixup")
def mixup(*, alpha: Alpha, per: Per = "batch") -> Mix:
    """Averages each image with its partner, with weights from Beta(alpha, alpha) (Zhang et al., arXiv 1710.09412)."""

    def change(images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        shares = symmetric_beta(draws, alpha)
        own = shares.to(images.dtype).to(images.device).view(-1, 1, 1, 1)
        return images * own + partners * (1 - own), shares

    return Mix(2, change, per)


@transform("cutmix")
def cutmix(*, alpha: Alpha, per: Per = "batch") -> Mix:
    """Pastes a rectangle of its partner into each image (Yun et al., arXiv 1905.04899).

    The area is from Beta(alpha, alpha), the centre anywhere in the image, and what is outside is cut off. Labels are
    weighted by the share of pixels that are left.
    """

    def change(images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        height, width = images.shape[2:]
        half = (1 - symmetric_beta(draws[:2], alpha)).sqrt() / 2
        ranges = []
        for length, each in ((height, draws[2]), (width, draws[3])):
            centre, reach = whole(each, 0, length - 1), (half * length).long()
            ranges.append(((centre - reach).clamp(min=0), (centre + reach).clamp(max=length)))
        (top, bottom), (left, right) = ranges
        top_, bottom_, left_, right_ = (each.to(images.device).view(-1, 1, 1, 1) for each in (top, bottom, left, right))
        rows = torch.arange(height, device=images.device).view(-1, 1)
        columns = torch.arange(width, device=images.device)
        pasted = (rows >= top_) & (rows < bottom_) & (columns >= left_) & (columns < right_)
        area = ((bottom - top) * (right - left)).double()
        return partners.where(pasted, images), 1 - area / (height * width)

    return Mix(4, change, per)


def symmetric_beta(draws: Tensor, alpha: float) -> Tensor:
    """Numbers from Beta(alpha, alpha), (B,), float64, from two uniform ones each, (2, B).

    Devroye 1996, "Random variate generation in one line of code": exact for every alpha.
    """
    power, cosine = draws[0] ** (1 / alpha), (2 * math.pi * draws[1]).cos()
    return 0.5 + cosine * (1 - power).sqrt() / (2 * (power + (1 - power) * cosine**2).sqrt())
