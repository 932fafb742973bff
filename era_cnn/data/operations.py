"""The operations of augmentation policies, each with one magnitude, with torchvision's meaning of both.

A policy gives a level from 0 to 1; a `Space` says which magnitude that is. Magnitudes and levels have one value for
each image, (B,), float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from era_cnn.data import colours
from era_cnn.data.sampling import affine_matrices, affine_sources, sample


@dataclass(frozen=True)
class Space:
    """The magnitudes at level 1: the slope of a shear, pixels of a shift, degrees, change of a factor, bits removed."""

    slope: float = 0.3
    shift: float | None = None
    """None for 150/331 of the size, from the images on which the policies were found."""

    degrees: float = 30.0
    factor: float = 0.9
    bits: int = 4

    def magnitudes(self, operation: str, levels: Tensor, size: Sequence[int]) -> Tensor:
        """The magnitude of an operation, not below 0, at these levels, for images of this height and width."""
        if operation == "posterize":
            return 8 - (levels * self.bits).round()
        if operation == "solarize":
            return 255 * (1 - levels)
        length = size[0] if operation == "translate_y" else size[1]
        shift = 150 / 331 * length if self.shift is None else self.shift
        kinds = {"shear": self.slope, "translate": shift, "rotate": self.degrees}
        return levels * kinds.get(operation.partition("_")[0], self.factor)


SIGNED = {
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast", "sharpness"
}  # fmt: skip
"""The operations whose magnitude may be negative; with colours, a factor is 1 plus the magnitude."""

OPERATIONS: Mapping[str, Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor]] = {
    "identity": lambda images, magnitudes, options: images,
    "shear_x": lambda images, slopes, options: _moved(images, options, shear_x=_degrees(slopes), centre=(0.0, 0.0)),
    "shear_y": lambda images, slopes, options: _moved(images, options, shear_y=_degrees(slopes), centre=(0.0, 0.0)),
    "translate_x": lambda images, pixels, options: _moved(images, options, shift_x=pixels.trunc()),
    "translate_y": lambda images, pixels, options: _moved(images, options, shift_y=pixels.trunc()),
    "rotate": lambda images, degrees, options: _moved(images, options, angles=-degrees),
    "brightness": lambda images, changes, options: colours.brightness(images, 1 + changes),
    "saturation": lambda images, changes, options: _saturated(images, 1 + changes),
    "contrast": lambda images, changes, options: colours.contrast(images, 1 + changes),
    "sharpness": lambda images, changes, options: colours.sharpness(images, 1 + changes),
    "posterize": lambda images, bits, options: colours.posterize(images, bits),
    "solarize": lambda images, thresholds, options: colours.solarize(images, thresholds),
    "autocontrast": lambda images, magnitudes, options: colours.autocontrast(images),
    "equalize": lambda images, magnitudes, options: colours.equalize(images),
    "invert": lambda images, magnitudes, options: 255 - images,
}


def apply_one_of(
    images: Tensor,
    operations: Sequence[str],
    chosen: Tensor,
    *,
    levels: Tensor,
    negative: Tensor,
    space: Space,
    options: Mapping[str, Any],
) -> Tensor:
    """Applies one operation to each image.

    Args:
        images: (B, C, H, W), uint8.
        operations: Names of operations.
        chosen: The index of each image's operation, (B,), on the CPU; -1 for none.
        levels: From 0 to 1, (B,).
        negative: Whether the magnitude is negative where it can be, (B,).
        space: The magnitudes of the levels.
        options: The interpolation and fill of `sample`.
    """
    changed = images.clone()
    for number, operation in enumerate(operations):
        (own,) = (chosen == number).nonzero(as_tuple=True)
        if not len(own):
            continue
        magnitudes = space.magnitudes(operation, levels[own], images.shape[2:])
        if operation in SIGNED:
            magnitudes = torch.where(negative[own], -magnitudes, magnitudes)
        where = own.to(images.device)
        changed[where] = OPERATIONS[operation](images[where], magnitudes, options)
    return changed


def _moved(images: Tensor, options: Mapping[str, Any], **parameters: Any) -> Tensor:
    still = torch.zeros(len(images), dtype=torch.float64)
    neutral = {"angles": still, "shift_x": still, "shift_y": still, "shear_x": still, "shear_y": still}
    size = images.shape[2:]
    matrices = affine_matrices(**{**neutral, "scales": still + 1, **parameters}, size=size)
    return sample(images, affine_sources(matrices, size, images.device), **options)


def _degrees(slopes: Tensor) -> Tensor:
    return torch.rad2deg(torch.atan(slopes))


def _saturated(images: Tensor, factors: Tensor) -> Tensor:
    """Grey images have no saturation; a policy leaves them as they are."""
    return colours.saturation(images, factors) if images.shape[1] == 3 else images
