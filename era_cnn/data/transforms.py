"""Transforms of training images by name, with random numbers for each image.

Torch is imported when a transform is applied, so that a config can be checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from era_cnn.config.choices import TRANSFORMS, transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError, Section

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Maps images (B, C, H, W) uint8, on any device, to images of the same shape and type.

    `num_draws` is the number of random numbers for each image. `change` takes the images and those numbers, shape
    (num_draws, B), uniform in [0, 1), float64 on the CPU.
    """

    num_draws: int
    change: Callable[[Tensor, Tensor], Tensor]


class Pipeline:
    """Applies transforms in sequence; each takes its own rows of the random numbers."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = tuple(transforms)
        self.num_draws = sum(each.num_draws for each in transforms)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transforms each image (B, C, H, W) with its column of the draws (num_draws, B)."""
        for each in self.transforms:
            own, draws = draws[: each.num_draws], draws[each.num_draws :]
            images = each.change(images, own)
        return images


def make_pipeline(chosen: Mapping[str, Section], info: DataInfo) -> Pipeline:
    """The transforms of a config, in its order.

    Raises:
        FieldError: If a transform does not fit the images.
    """
    return Pipeline([TRANSFORMS.make(name, section, info=info) for name, section in chosen.items()])


Fill = Annotated[int, Field(ge=0, le=255, description="the value of the pixels that come from outside, 0 to 255")]
Degrees = Annotated[float, Field(ge=0, le=180, description="the largest rotation to either side in degrees, 0 to 180")]


@transform("rotate")
def rotate(*, degrees: Degrees, fill: Fill) -> Transform:
    """A rotation about the centre by an angle uniform in [-degrees, degrees]."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.sampling import rotation_matrices, sample_nearest

        angles = _between(draws[0], -degrees, degrees)
        return sample_nearest(images, rotation_matrices(angles, images.shape[-2:]), fill)

    return Transform(1, change)


def _scale_is_a_range(section: Any) -> None:
    if section.scale[0] > section.scale[1]:
        raise FieldError("scale", "hold the smaller value first", section.scale, "Swap the two.")


@transform("affine", check=_scale_is_a_range)
def affine(
    *,
    degrees: Degrees,
    translate: Annotated[
        float, Field(ge=0, le=1, description="the largest shift along each axis, as a fraction of the size, 0 to 1")
    ],
    scale: Annotated[
        list[Annotated[float, Field(gt=0, le=10)]],
        Field(min_length=2, max_length=2, description="the smallest and the largest scale, as [0.9, 1.1]"),
    ],
    shear: Annotated[
        float, Field(ge=0, lt=90, description="the largest horizontal shear to either side in degrees, below 90")
    ],
    fill: Fill,
) -> Transform:
    """Rotation, translation (whole pixels), scaling and horizontal shear, each uniform in its range."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.sampling import affine_matrices, sample_nearest

        height, width = images.shape[-2:]
        matrices = affine_matrices(
            angles=_between(draws[0], -degrees, degrees),
            shift_x=_between(draws[1], -translate * width, translate * width).round(),
            shift_y=_between(draws[2], -translate * height, translate * height).round(),
            scales=_between(draws[3], scale[0], scale[1]),
            shears=_between(draws[4], -shear, shear),
            size=(height, width),
        )
        return sample_nearest(images, matrices, fill)

    return Transform(5, change)


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return draws * (high - low) + low
