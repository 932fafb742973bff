"""Erasing: rectangles of an image are filled, before it is normalised, so that values are those of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator, Field, Tag

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.transforms.boxes import BOX_DRAWS, random_boxes
from era_cnn.data.transforms.fields import Fraction, Pixel, Ratio, check_fill, form_of, smaller_first, whole
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor

HoleFill = Annotated[
    Annotated[Pixel, Tag("[one]")]
    | Annotated[list[Pixel], Tag("[each]")]
    | Annotated[Literal["mean", "black", "pixel_noise", "box_noise"], Tag("[name]")],
    Discriminator(form_of),
    Field(
        description="the content of a hole: a value from 0 to 255 or one for each channel, mean (of the training "
        "images), black, pixel_noise (uniform, for each pixel) or box_noise (uniform, one colour for each hole)"
    ),
]
Pixels = Annotated[int, Field(ge=1, le=10_000)]
PixelRange = Annotated[list[Pixels], Field(min_length=2, max_length=2)]


@transform("erase", check=smaller_first("scale", "ratio"))
def erase(
    info: DataInfo,
    mean: Sequence[float],
    *,
    scale: Annotated[
        list[Fraction],
        Field(min_length=2, max_length=2, description="the range of the hole's share of the area, as [0.02, 0.33]"),
    ],
    ratio: Ratio,
    fill: HoleFill = "black",
) -> Transform:
    """Fills one rectangle that lies within the image, as torchvision's `RandomErasing` (arXiv 1708.04896).

    Its area is uniform in `scale`, height / width log-uniform in `ratio`. If ten drawn rectangles are too large, the
    image stays as it is.
    """
    check_fill(fill, info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[2:]
        largest = (height - 1, width - 1)
        boxes, fits = random_boxes(draws[:-1], (height, width), scale=scale, ratio=ratio, largest=largest)
        return _filled(images, (boxes * fits.unsqueeze(1)).unsqueeze(1), fill, mean, draws[-1])

    return Transform(BOX_DRAWS + 1, change)


@transform("cutout", check=smaller_first("holes", "height", "width"))
def cutout(
    info: DataInfo,
    mean: Sequence[float],
    *,
    holes: Annotated[
        list[Annotated[int, Field(ge=1, le=100)]],
        Field(min_length=2, max_length=2, description="the smallest and the largest number of holes, as [1, 1]"),
    ],
    height: Annotated[PixelRange, Field(description="the smallest and the largest height of a hole, as [8, 8]")],
    width: Annotated[PixelRange, Field(description="the smallest and the largest width of a hole, as [8, 8]")],
    fill: HoleFill = "mean",
    clipped: Annotated[
        bool, Field(description="true or false: whether holes may reach beyond the image, as in the paper on cutout")
    ] = False,
) -> Transform:
    """Fills rectangles: a square is cutout (DeVries and Taylor 2017, arXiv 1708.04552), several are coarse dropout.

    The number of holes and the size of each are uniform in their ranges. Holes lie within the image, as in
    Albumentations' `CoarseDropout`; with `clipped` their centres do, and what is outside is cut off, as in the paper.
    """
    check_fill(fill, info)
    for field, (_, largest), length in (("height", height, info.shape[1]), ("width", width, info.shape[2])):
        if largest > length:
            raise FieldError(field, f"be at most {length}, the {field} of the images", largest, "Lower it.")

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        count = whole(draws[0], *holes)
        of_each = draws[2:].view(4, -1, len(images))  # (4, holes, B)
        heights, widths = whole(of_each[0], *height), whole(of_each[1], *width)
        if clipped:
            tops = whole(of_each[2], 0, images.shape[2] - 1) - heights.div(2, rounding_mode="floor")
            lefts = whole(of_each[3], 0, images.shape[3] - 1) - widths.div(2, rounding_mode="floor")
        else:
            tops = whole(of_each[2], 0, images.shape[2] - heights)
            lefts = whole(of_each[3], 0, images.shape[3] - widths)
        boxes = torch.stack([tops, lefts, heights, widths], dim=-1).transpose(0, 1)  # (B, holes, 4)
        exists = torch.arange(holes[1]) < count.unsqueeze(1)
        return _filled(images, boxes * exists.unsqueeze(2), fill, mean, draws[1])

    return Transform(2 + 4 * holes[1], change)


def _filled(images: Tensor, boxes: Tensor, fill: int | list[int] | str, mean: Sequence[float], draws: Tensor) -> Tensor:
    """Fills boxes (B, holes, 4) as top, left, height and width; those without a size fill nothing."""
    import torch

    from era_cnn.data.noise import hashed

    count, channels, height, width = images.shape
    boxes = boxes.to(images.device)
    rows = torch.arange(height, device=images.device).view(-1, 1)
    columns = torch.arange(width, device=images.device)
    if fill == "mean":
        fill = [round(255 * value) for value in mean]
    if fill == "pixel_noise":
        noise = (hashed(draws, channels * height * width, images.device) >> 24).view(images.shape).to(torch.uint8)
    elif fill == "box_noise":
        noise = hashed(draws, boxes.shape[1] * channels, images.device) >> 24
        noise = noise.view(count, -1, channels, 1, 1).to(torch.uint8)
    else:
        noise = torch.tensor(0 if fill == "black" else fill, dtype=torch.uint8, device=images.device).view(-1, 1, 1)
    for number in range(boxes.shape[1]):
        top, left, box_height, box_width = (each.view(-1, 1, 1) for each in boxes[:, number].unbind(dim=1))
        inside = (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
        content = noise[:, number] if fill == "box_noise" else noise
        images = torch.where(inside.unsqueeze(1), content, images)
    return images
