"""Transforms of colours. Those that need colour refuse grey images, where they would change nothing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.transforms.fields import FactorRange, between, factors, smaller_first, whole
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor


@transform("brightness", check=factors("factor"))
def brightness(*, factor: FactorRange) -> Transform:
    """Multiplies all values by a factor uniform in its range, as torchvision's `adjust_brightness`."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.brightness(images, between(draws[0], *factor))

    return Transform(1, change)


@transform("contrast", check=factors("factor"))
def contrast(*, factor: FactorRange) -> Transform:
    """Multiplies the distance from the image's mean brightness by a factor, as torchvision's `adjust_contrast`."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.contrast(images, between(draws[0], *factor))

    return Transform(1, change)


@transform("saturation", check=factors("factor"))
def saturation(info: DataInfo, *, factor: FactorRange) -> Transform:
    """Multiplies the distance from the grey image by a factor, as torchvision's `adjust_saturation`."""
    _check_colour(info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.saturation(images, between(draws[0], *factor))

    return Transform(1, change)


HueRange = Annotated[
    list[Annotated[float, Field(ge=-0.5, le=0.5)]],
    Field(
        min_length=2,
        max_length=2,
        description="the range of the shift as a fraction of the colour circle, as [-0.05, 0.05]",
    ),
]


@transform("hue", check=smaller_first("shift"))
def hue(info: DataInfo, *, shift: HueRange) -> Transform:
    """Turns the hue by a share of the colour circle uniform in its range, as torchvision's `adjust_hue`."""
    _check_colour(info)

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import colours

        return colours.hue(images, between(draws[0], *shift))

    return Transform(1, change)


Factors = Annotated[
    FactorRange | None, Field(description="the smallest and the largest factor, as [0.8, 1.2], null for no change")
]
Shifts = Annotated[
    HueRange | None, Field(description="the range of the shift as that of hue, as [-0.05, 0.05], null for no change")
]


def _jitter_fits(section: Any) -> None:
    factors("brightness", "contrast", "saturation")(section)
    smaller_first("hue")(section)
    if section.brightness is section.contrast is section.saturation is section.hue is None:
        raise FieldError("brightness", "be given if nothing else is", None, "Give a range, as [0.8, 1.2].")


@transform("colour_jitter", check=_jitter_fits)
def colour_jitter(
    info: DataInfo,
    *,
    brightness: Factors = None,
    contrast: Factors = None,
    saturation: Factors = None,
    hue: Shifts = None,
) -> Transform:
    """Changes brightness, contrast, saturation and hue in an order drawn for each image, as `ColorJitter`.

    The order decides what is clipped. Each has the range and the meaning of the transform of its name.
    """
    ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    chosen = {name: limits for name, limits in ranges.items() if limits is not None}
    for name in ("saturation", "hue"):
        if name in chosen and info.shape[0] != 3:
            raise FieldError(name, "be null for grey images", chosen[name], "Remove it.")

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        from era_cnn.data import colours

        parameters = [between(own, *limits) for own, limits in zip(draws[1:], chosen.values(), strict=True)]
        orders = torch.tensor(list(itertools.permutations(range(len(chosen)))))
        order = orders[whole(draws[0], 0, len(orders) - 1)]  # (B, operations)
        changed = images.clone()
        for position, (number, name) in itertools.product(range(len(chosen)), enumerate(chosen)):
            (own,) = (order[:, position] == number).nonzero(as_tuple=True)
            if len(own):
                where = own.to(images.device)
                changed[where] = getattr(colours, name)(changed[where], parameters[number][own])
        return changed

    return Transform(1 + len(chosen), change)


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
