"""Blocks that merge the outputs of several layers, named in the layer's `inputs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from era_cnn.config.choices import block
from era_cnn.config.network import ActivationChoice
from era_cnn.config.sections import FieldError, Own
from era_cnn.models.blocks.parts import make_activation


@block("add")
class Add(nn.Module):
    """The sum of its inputs, and optionally an activation; (B, C, H, W) or (B, F) each, to the same shape.

    The activation is the layer's own: that of the model does not apply.
    """

    def __init__(
        self, in_shapes: Mapping[str, tuple[int, ...]], *, activation: Annotated[ActivationChoice, Own()] = "none"
    ) -> None:
        super().__init__()
        if len(set(in_shapes.values())) > 1:
            advice = "Make them equal, with a 1×1 convolution or a stride for example, or use {block: concat}."
            raise FieldError("inputs", "have equal shapes", _listed(in_shapes), advice)
        self.sum = Sum()
        self.activation = make_activation(activation, next(iter(in_shapes.values()))[0])

    def forward(self, *inputs: Tensor) -> Tensor:  # noqa: D102 - the class says it
        total: Tensor = self.sum(*inputs)
        return total if self.activation is None else self.activation(total)


class Sum(nn.Module):
    """The sum of tensors of equal shape, as a new tensor."""

    def forward(self, *inputs: Tensor) -> Tensor:  # noqa: D102 - the class says it
        total = inputs[0] + inputs[1]
        for each in inputs[2:]:
            total = total + each
        return total


@block("concat")
class Concat(nn.Module):
    """All channels of its inputs, in their order; (B, C₁, H, W), (B, C₂, H, W)… to (B, C₁ + C₂ + …, H, W)."""

    def __init__(self, in_shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        if (
            len({shape[1:] for shape in in_shapes.values()}) > 1
            or len({len(shape) for shape in in_shapes.values()}) > 1
        ):
            advice = "Make them equal, by padding, a stride or pooling."
            raise FieldError("inputs", "have equal heights and widths", _listed(in_shapes), advice)

    def forward(self, *inputs: Tensor) -> Tensor:  # noqa: D102 - the class says it
        return torch.cat(inputs, dim=1)


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return " and ".join(f"{name} {shape}" for name, shape in shapes.items())
