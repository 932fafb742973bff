"""Transforms of colours. Those that need colour refuse grey images, where they would change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.transforms.fields import FactorRange, between, check_factors, smaller_first
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor


@transform("brightness", check=check_factors)
def brightness(*, factor: FactorRange) -> Transform:
    """Multiplies all values by a factor uniform in its range, as torchvision's `adjust_brightness`."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.brightness(images, between(draws[0], *factor))

    return Transform(1, change)


@transform("contrast", check=check_factors)
def contrast(*, factor: FactorRange) -> Transform:
    """Multiplies the distance from the image's mean brightness by a factor, as torchvision's `adjust_contrast`."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.contrast(images, between(draws[0], *factor))

    return Transform(1, change)


@transform("saturation", check=check_factors)
def saturation(info: DataInfo, *, factor: FactorRange) -> Transform:
    """Multiplies the distance from the grey image by a factor, as torchvision's `adjust_saturation`."""
    _check_colour(info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.saturation(images, between(draws[0], *factor))

    return Transform(1, change)


@transform("hue", check=smaller_first("shift"))
def hue(
    info: DataInfo,
    *,
    shift: Annotated[
        list[Annotated[float, Field(ge=-0.5, le=0.5)]],
        Field(
            min_length=2,
            max_length=2,
            description="the range of the shift as a fraction of the colour circle, as [-0.05, 0.05]",
        ),
    ],
) -> Transform:
    """Turns the hue by a share of the colour circle uniform in its range, as torchvision's `adjust_hue`."""
    _check_colour(info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.hue(images, between(draws[0], *shift))

    return Transform(1, change)


@transform("greyscale")
def greyscale(info: DataInfo) -> Transform:
    """Makes all three channels the brightness: of every image, unless `probability` is less than 1."""
    _check_colour(info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.greyscale(images)

    return Transform(0, change)


@transform("invert")
def invert() -> Transform:
    """Makes the negative: of every image, unless `probability` is less than 1."""
    return Transform(0, lambda images, draws: 255 - images)


def _check_colour(info: DataInfo) -> None:
    if info.shape[0] != 3:
        advice = "Remove it; brightness and contrast work on grey images."
        raise FieldError("", "have colour images, of 3 channels", info.shape[0], advice)
