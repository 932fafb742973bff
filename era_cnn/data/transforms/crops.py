"""Crops. Images keep their size: a smaller crop is stretched over it, which can only enlarge and needs no smoothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.transforms.boxes import BOX_DRAWS, random_boxes
from era_cnn.data.transforms.fields import (
    Fill,
    Fraction,
    Interpolation,
    PaddingMode,
    Ratio,
    check_fill,
    smaller_first,
    whole,
)
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor


@transform("random_crop")
def random_crop(
    info: DataInfo,
    *,
    padding: Annotated[int, Field(ge=1, le=10_000, description="the number of pixels that are added on each side")],
    padding_mode: PaddingMode = "constant",
    fill: Fill = 0,
) -> Transform:
    """Pads the image on each side, then crops it to its size at a random place, as torchvision's `RandomCrop`."""
    check_fill(fill, info)
    smallest = min(info.shape[1:])
    if padding >= smallest:
        raise FieldError("padding", f"be less than {smallest}, the size of the images", padding, "Lower it.")

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        top, left = whole(draws, 0, 2 * padding) - padding
        height, width = (torch.full_like(top, length) for length in images.shape[2:])
        boxes = torch.stack([top, left, height, width], dim=1)
        return _stretched(images, boxes, "nearest", padding_mode, fill)

    return Transform(2, change)


@transform("centre_crop")
def centre_crop(
    info: DataInfo,
    *,
    size: Annotated[
        list[Annotated[int, Field(ge=1, le=10_000)]],
        Field(min_length=2, max_length=2, description="the height and the width of the crop in pixels, as [22, 22]"),
    ],
    interpolation: Interpolation = "bilinear",
) -> Transform:
    """Crops the centre, then resizes it to the size of the image, as torchvision's `CenterCrop` and `Resize`."""
    height, width = info.shape[1:]
    if size[0] > height or size[1] > width:
        raise FieldError("size", f"be at most [{height}, {width}], the size of the images", size, "Lower it.")

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        margins = [round((whole - part) / 2) for whole, part in zip((height, width), size, strict=True)]
        boxes = torch.tensor([*margins, *size]).expand(len(images), -1)
        return _stretched(images, boxes, interpolation)

    return Transform(0, change)


@transform("resized_crop", check=smaller_first("scale", "ratio"))
def resized_crop(
    *,
    scale: Annotated[
        list[Fraction],
        Field(min_length=2, max_length=2, description="the range of the crop's share of the area, as [0.08, 1.0]"),
    ],
    ratio: Ratio,
    interpolation: Interpolation = "bilinear",
) -> Transform:
    """Crops a random box and resizes it to the size of the image, as torchvision's `RandomResizedCrop`.

    The area is uniform in `scale`, width / height log-uniform in `ratio`. If ten drawn boxes do not fit into the image,
    it is the largest one in its centre with an allowed ratio.
    """

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        height, width = images.shape[2:]
        inverse = [1 / ratio[1], 1 / ratio[0]]
        boxes, fits = random_boxes(draws, (height, width), scale=scale, ratio=inverse, largest=(height, width))
        widest, highest = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
        centre = torch.tensor([(height - highest) // 2, (width - widest) // 2, highest, widest])
        return _stretched(images, boxes.where(fits.unsqueeze(1), centre), interpolation)

    return Transform(BOX_DRAWS, change)


def _stretched(
    images: Tensor, boxes: Tensor, interpolation: str, padding_mode: str = "edge", fill: int | list[int] = 0
) -> Tensor:
    from era_cnn.data.sampling import box_sources, sample

    sources = box_sources(boxes, images.shape[2:], images.device)
    return sample(images, sources, interpolation=interpolation, padding_mode=padding_mode, fill=fill)
