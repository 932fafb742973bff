"""Transforms that move pixels: one implementation over matrices, see `era_cnn.data.sampling`.

Angles, shears and translations have the units and directions of torchvision's functions unless a transform says
otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.transforms.fields import (
    TO_BOTH_SIDES,
    Degrees,
    Fill,
    Interpolation,
    PaddingMode,
    between,
    check_fill,
    smaller_first,
    whole,
)
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor

Shear = Annotated[float, Field(ge=0, lt=90)]


@transform("rotate")
def rotate(
    info: DataInfo,
    *,
    degrees: Degrees,
    fill: Fill,
    interpolation: Interpolation = "nearest",
    padding_mode: PaddingMode = "constant",
) -> Transform:
    """A rotation about the centre by an angle uniform in [-degrees, degrees]."""
    check_fill(fill, info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.sampling import rotation_matrices

        matrices = rotation_matrices(between(draws[0], -degrees, degrees), images.shape[-2:])
        return _moved(images, matrices, interpolation=interpolation, padding_mode=padding_mode, fill=fill)

    return Transform(1, change)


@transform("affine", check=smaller_first("scale"))
def affine(
    info: DataInfo,
    *,
    degrees: Degrees,
    translate: Annotated[
        float, Field(ge=0, le=1, description="the largest shift along each axis, as a fraction of the size, 0 to 1")
    ],
    scale: Annotated[
        list[Annotated[float, Field(gt=0, le=10)]],
        Field(min_length=2, max_length=2, description="the smallest and the largest scale, as [0.9, 1.1]"),
    ],
    shear: Annotated[Shear, Field(description="the largest horizontal shear to either side in degrees, below 90")],
    fill: Fill,
    translate_y: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="the largest vertical shift, as a fraction of the height; null for that of both axes"),
    ] = None,
    shear_y: Annotated[
        Shear, Field(description="the largest vertical shear to either side in degrees, below 90")
    ] = 0.0,
    interpolation: Interpolation = "nearest",
    padding_mode: PaddingMode = "constant",
) -> Transform:
    """Rotation, translation (whole pixels), scaling and shear, each uniform in its range, as `RandomAffine`."""
    check_fill(fill, info)
    vertically = translate if translate_y is None else translate_y

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.sampling import affine_matrices

        height, width = images.shape[-2:]
        matrices = affine_matrices(
            angles=between(draws[0], -degrees, degrees),
            shift_x=between(draws[1], -translate * width, translate * width).round(),
            shift_y=between(draws[2], -vertically * height, vertically * height).round(),
            scales=between(draws[3], scale[0], scale[1]),
            shear_x=between(draws[4], -shear, shear),
            shear_y=between(draws[-1], -shear_y, shear_y),
            size=(height, width),
        )
        return _moved(images, matrices, interpolation=interpolation, padding_mode=padding_mode, fill=fill)

    return Transform(6 if shear_y else 5, change)


@transform("shift_scale_rotate", check=smaller_first("shift_limit", "scale_limit", "rotate_limit"))
def shift_scale_rotate(
    info: DataInfo,
    *,
    shift_limit: Annotated[
        list[Annotated[float, Field(ge=-1, le=1)]],
        TO_BOTH_SIDES,
        Field(min_length=2, max_length=2, description="the range of shifts as a fraction of the size, as [-0.1, 0.1]"),
    ],
    scale_limit: Annotated[
        list[Annotated[float, Field(gt=-1, le=9)]],
        TO_BOTH_SIDES,
        Field(min_length=2, max_length=2, description="the range of what is added to a scale of 1, as [-0.1, 0.2]"),
    ],
    rotate_limit: Annotated[
        list[Annotated[float, Field(ge=-360, le=360)]],
        TO_BOTH_SIDES,
        Field(min_length=2, max_length=2, description="the range of angles in degrees, as [-15.0, 15.0]"),
    ],
    fill: Fill = 0,
    interpolation: Interpolation = "bilinear",
    padding_mode: PaddingMode = "constant",
) -> Transform:
    """Scales and turns about the centre, then shifts, as Albumentations' `ShiftScaleRotate`.

    One draw each for the angle (counter-clockwise), the scale, and the shift along either axis (not rounded to whole
    pixels), each uniform in its range; a single number is a range to both sides. What
    Albumentations calls `border_mode=cv2.BORDER_REFLECT_101`, its default for years, is `padding_mode: reflect`.
    """
    check_fill(fill, info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.sampling import affine_matrices

        height, width = images.shape[-2:]
        still = draws[0] * 0
        matrices = affine_matrices(
            angles=-between(draws[0], *rotate_limit),
            scales=1 + between(draws[1], *scale_limit),
            shift_x=between(draws[2], *shift_limit) * width,
            shift_y=between(draws[3], *shift_limit) * height,
            shear_x=still,
            shear_y=still,
            size=(height, width),
        )
        return _moved(images, matrices, interpolation=interpolation, padding_mode=padding_mode, fill=fill)

    return Transform(4, change)


def _moved(images: Tensor, matrices: Tensor, **options: Any) -> Tensor:
    from era_cnn.data.sampling import affine_sources, sample

    return sample(images, affine_sources(matrices, images.shape[-2:], images.device), **options)


@transform("perspective")
def perspective(
    info: DataInfo,
    *,
    distortion_scale: Annotated[
        float, Field(ge=0, le=0.9, description="how far corners move, from 0 to 0.9; 1 would be up to the centre")
    ],
    fill: Fill = 0,
    interpolation: Interpolation = "bilinear",
    padding_mode: PaddingMode = "constant",
) -> Transform:
    """Moves each corner inwards by whole pixels, uniform along either axis, as torchvision's `RandomPerspective`."""
    check_fill(fill, info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        from era_cnn.data.sampling import perspective_matrices, perspective_sources, sample

        height, width = images.shape[-2:]
        old = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=torch.float64)
        inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        furthest = torch.tensor([int(distortion_scale * (width // 2)), int(distortion_scale * (height // 2))])
        new = old + inwards * whole(draws.T.reshape(-1, 4, 2), 0, furthest)
        sources = perspective_sources(perspective_matrices(old.expand_as(new), new), (height, width), images.device)
        return sample(images, sources, interpolation=interpolation, padding_mode=padding_mode, fill=fill)

    return Transform(8, change)


@transform("elastic")
def elastic(
    info: DataInfo,
    *,
    alpha: Annotated[
        float, Field(ge=0, le=10_000, description="the strength of the shifts in half pixels, before the blur")
    ],
    sigma: Annotated[
        float, Field(gt=0, le=100, description="the smoothness of the shifts: the deviation of their blur in pixels")
    ],
    fill: Fill = 0,
    interpolation: Interpolation = "bilinear",
    padding_mode: PaddingMode = "constant",
) -> Transform:
    """Shifts each pixel by smooth random amounts (Simard, Steinkraus and Platt 2003), as `ElasticTransform`."""
    check_fill(fill, info)
    smallest = min(info.shape[1:])
    if int(4 * sigma) >= smallest:
        advice = f"The blur reaches 4 · sigma pixels, and the images have {info.shape[1]} × {info.shape[2]}."
        raise FieldError("sigma", f"be less than {smallest / 4:g}", sigma, advice)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.noise import elastic_shifts
        from era_cnn.data.sampling import displaced_sources, sample

        sources = displaced_sources(elastic_shifts(draws, images, alpha=alpha, sigma=sigma))
        return sample(images, sources, interpolation=interpolation, padding_mode=padding_mode, fill=fill)

    return Transform(2, change)


@transform("horizontal_flip")
def horizontal_flip() -> Transform:
    """Mirrors left and right: every image, unless `probability` is less than 1. Mirrored digits are other symbols."""
    return Transform(0, lambda images, draws: images.flip(3))


@transform("vertical_flip")
def vertical_flip() -> Transform:
    """Mirrors top and bottom: every image, unless `probability` is less than 1. Mirrored digits are other symbols."""
    return Transform(0, lambda images, draws: images.flip(2))
