"""The fields that several transforms share, and the rules about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.errors import amount

if TYPE_CHECKING:
    from torch import Tensor


def form_of(value: object) -> str:
    """The form of a value that may be one number, a list or a name: the tag of its type."""
    return "[each]" if isinstance(value, list) else "[name]" if isinstance(value, str) else "[one]"


def _number_or_list(value: object) -> str:
    return "[each]" if isinstance(value, list) else "[one]"


Pixel = Annotated[int, Field(ge=0, le=255)]
Fill = Annotated[
    Annotated[Pixel, Tag("[one]")] | Annotated[list[Pixel], Tag("[each]")],
    Discriminator(_number_or_list),
    Field(
        description="the value of the pixels that come from outside, 0 to 255; a list has one value for each channel"
    ),
]
Interpolation = Annotated[
    Literal["nearest", "bilinear"], Field(description="how values between the centres of pixels are found")
]
PaddingMode = Annotated[
    Literal["constant", "edge", "reflect", "symmetric"],
    Field(description="what lies outside the image: constant is the fill, the others repeat or mirror the image"),
]
Degrees = Annotated[float, Field(ge=0, le=180, description="the largest rotation to either side in degrees, 0 to 180")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=100)]
FactorRange = Annotated[
    list[Factor],
    Field(
        min_length=2, max_length=2, description="the smallest and the largest factor, as [0.8, 1.2]; 1 changes nothing"
    ),
]
Ratio = Annotated[
    list[Annotated[float, Field(ge=0.01, le=100)]],
    Field(min_length=2, max_length=2, description="the smallest and the largest aspect ratio, as [0.75, 1.33]"),
]
TO_BOTH_SIDES = BeforeValidator(lambda value: [-value, value] if isinstance(value, int | float) else value)
"""Lets a number stand for the range from its negative to itself."""


def smaller_first(*fields: str) -> Callable[[Any], None]:
    """A check that ranges, unless they are null, hold the smaller value first."""

    def check(section: Any) -> None:
        for field in fields:
            limits = getattr(section, field)
            if limits is not None and limits[0] > limits[1]:
                raise FieldError(field, "hold the smaller value first", limits, "Swap the two.")

    return check


def factors(*fields: str) -> Callable[[Any], None]:
    """A check that factors are not what is added to 1: [0, 0.05] would make images almost black."""

    def check(section: Any) -> None:
        smaller_first(*fields)(section)
        for field in fields:
            limits = getattr(section, field)
            if limits is not None and limits[1] < 0.5:
                advice = "A factor of 1 changes nothing: for 5% to either side, write [0.95, 1.05]."
                raise FieldError(field, "reach at least to 0.5", limits, advice)

    return check


def check_fill(fill: object, info: DataInfo) -> None:
    """Raises a `FieldError` if a list of values does not have one for each channel."""
    channels = info.shape[0]
    if isinstance(fill, list) and len(fill) != channels:
        rule = f"be one value, or a list with one for each of {amount(channels, 'channel')}"
        raise FieldError("fill", rule, fill, "Write a single value for all channels.")


def between(draws: Tensor, low: float, high: float) -> Tensor:
    """Uniform numbers in [low, high)."""
    return draws * (high - low) + low


def whole(draws: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Uniform whole numbers from low to high, both included, int64."""
    return low + (draws * (high - low + 1)).long()
