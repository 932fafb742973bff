"""Augmentation policies: each image gets operations that are chosen at random, as torchvision's transforms do it.

On grey images, saturation does nothing; all other operations work on any. Shears turn about the upper left corner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from era_cnn.config.choices import transform
from era_cnn.config.data_info import DataInfo
from era_cnn.data.transforms.fields import Fill, Interpolation, check_fill, whole
from era_cnn.data.transforms.pipeline import Transform

if TYPE_CHECKING:
    from torch import Tensor

CHOICES = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
BINS = 31


@transform("rand_augment")
def rand_augment(
    info: DataInfo,
    *,
    num_ops: Annotated[int, Field(ge=1, le=14, description="the number of operations on each image")],
    magnitude: Annotated[int, Field(ge=0, lt=BINS, description="the strength of all operations, from 0 to 30")],
    fill: Fill = 0,
    interpolation: Interpolation = "nearest",
) -> Transform:
    """Several operations of one strength (Cubuk et al., arXiv 1909.13719), as torchvision's `RandAugment`."""
    check_fill(fill, info)
    options = {"fill": fill, "interpolation": interpolation}

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.operations import Space, apply_one_of

        levels = (draws[0] * 0) + magnitude / (BINS - 1)
        for which, sign in draws.view(num_ops, 2, -1):
            chosen, negative = whole(which, 0, len(CHOICES) - 1), sign < 0.5
            images = apply_one_of(
                images, CHOICES, chosen, levels=levels, negative=negative, space=Space(), options=options
            )
        return images

    return Transform(2 * num_ops, change)


@transform("trivial_augment")
def trivial_augment(info: DataInfo, *, fill: Fill = 0, interpolation: Interpolation = "nearest") -> Transform:
    """One operation of any strength (Müller and Hutter, arXiv 2103.10158), as torchvision's `TrivialAugmentWide`."""
    check_fill(fill, info)
    options = {"fill": fill, "interpolation": interpolation}

    def change(images: Tensor, draws: Tensor) -> Tensor:
        from era_cnn.data.operations import Space, apply_one_of

        wide = Space(slope=0.99, shift=32.0, degrees=135.0, factor=0.99, bits=6)
        chosen, levels = whole(draws[0], 0, len(CHOICES) - 1), whole(draws[1], 0, BINS - 1) / (BINS - 1)
        return apply_one_of(
            images, CHOICES, chosen, levels=levels.double(), negative=draws[2] < 0.5, space=wide, options=options
        )

    return Transform(3, change)


CIFAR10 = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("saturation", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("saturation", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("saturation", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("saturation", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("saturation", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
"""The policy of Cubuk et al. for CIFAR-10: pairs of operation, probability, and strength from 0 to 9."""


@transform("auto_augment")
def auto_augment(info: DataInfo, *, fill: Fill = 0, interpolation: Interpolation = "nearest") -> Transform:
    """One of 25 pairs of operations, found for CIFAR-10 (Cubuk et al., arXiv 1805.09501), as `AutoAugment`."""
    check_fill(fill, info)
    options = {"fill": fill, "interpolation": interpolation}

    def change(images: Tensor, draws: Tensor) -> Tensor:
        import torch

        from era_cnn.data.operations import Space, apply_one_of

        pair = whole(draws[0], 0, len(CIFAR10) - 1)
        for position in range(2):
            names, probabilities, strengths = zip(*(each[position] for each in CIFAR10), strict=True)
            happens, sign = draws[1 + 2 * position], draws[2 + 2 * position]
            chosen = torch.where(happens <= torch.tensor(probabilities, dtype=torch.float64)[pair], pair, -1)
            levels = torch.tensor(strengths, dtype=torch.float64)[pair] / 9
            images = apply_one_of(
                images, names, chosen, levels=levels, negative=sign < 0.5, space=Space(), options=options
            )
        return images

    return Transform(5, change)
