"""Noise and blur."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.transforms.fields import Fraction, between, smaller_first
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor


@transform("gaussian_noise", check=smaller_first("sigma"))
def gaussian_noise(
    *,
    sigma: Annotated[
        list[Fraction],
        Field(
            min_length=2,
            max_length=2,
            description="the range of the standard deviation as a fraction of 255, as [0.0, 0.1]",
        ),
    ],
) -> Transform:
    """Adds normal noise to each value; its standard deviation is uniform in `sigma`, drawn for each image."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import noise

        return noise.gaussian_noise(images, between(draws[0], *sigma), draws[1])

    return Transform(2, change)


def _kernel_is_odd(section: object) -> None:
    size = getattr(section, "kernel_size")  # noqa: B009
    if size % 2 == 0:
        raise FieldError("kernel_size", "be odd", size, f"Give {size + 1}, for example.")
    smaller_first("sigma")(section)


@transform("gaussian_blur", check=_kernel_is_odd)
def gaussian_blur(
    info: DataInfo,
    *,
    kernel_size: Annotated[int, Field(ge=3, le=999, description="the width of the blur in pixels, an odd number")],
    sigma: Annotated[
        list[Annotated[float, Field(gt=0, le=1000)]],
        Field(min_length=2, max_length=2, description="the range of the standard deviation in pixels, as [0.1, 2.0]"),
    ],
) -> Transform:
    """A Gaussian blur whose standard deviation is uniform in `sigma`, as torchvision's `GaussianBlur`."""
    limit = 2 * min(info.shape[1:])
    if kernel_size >= limit:
        raise FieldError("kernel_size", f"be less than {limit}, twice the size of the images", kernel_size, "Lower it.")

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data import noise

        return noise.gaussian_blur(images, between(draws[0], *sigma), kernel_size)

    return Transform(1, change)
