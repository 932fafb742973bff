"""Blocks of a single part: norm, activation, dropout, and weights for channels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from era_cnn.config.choices import block
from era_cnn.config.network import ActivationChoice, Dropout, NormChoice, NormGroups
from era_cnn.config.sections import FieldError
from era_cnn.models import layers
from era_cnn.models.blocks.parts import Parts, make_activation, make_norm


@block("norm")
class NormBlock(Parts):
    """A norm alone, as before the head of a network with pre-activation; (B, C, H, W) to the same shape."""

    def __init__(self, in_channels: int, *, norm: NormChoice = "batch", norm_groups: NormGroups = 4) -> None:
        super().__init__(norm=make_norm(norm, in_channels, norm_groups))


@block("activation")
class ActivationBlock(Parts):
    """An activation alone, as after a sum; (B, C, H, W) or (B, F) to the same shape."""

    def __init__(self, in_shape: tuple[int, ...], *, activation: ActivationChoice = "relu") -> None:
        super().__init__(activation=make_activation(activation, in_shape[0], inplace=False))


@block("dropout")
class DropoutBlock(layers.Dropout):
    """Dropout alone; (B, C, H, W) or (B, F) to the same shape."""

    def __init__(self, in_shape: tuple[int, ...], *, dropout: Dropout = 0.0) -> None:
        super().__init__(dropout)


@block("scale")
class Scale(nn.Module):
    """A constant factor, as on the logits of ResNet-9 (Page 2018); (B, C, H, W) or (B, F) to the same shape."""

    def __init__(
        self,
        in_shape: tuple[int, ...],
        *,
        factor: Annotated[float, Field(gt=0, le=1e6, description="the factor, greater than 0, as 0.125")],
    ) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        return images * self.factor

    def extra_repr(self) -> str:  # noqa: D102 - PyTorch's
        return str(self.factor)


@block("squeeze_excite")
class SqueezeExcite(nn.Module):
    """Weights each channel by what all channels hold on average (Hu et al. 2017, arXiv 1709.01507).

    (B, C, H, W) to the same shape. Two 1×1 convolutions map the means of the C channels over C / ratio values to C
    weights in (0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ratio: Annotated[int, Field(ge=1, le=1_024, description="how many times fewer values lie between")] = 16,
    ) -> None:
        super().__init__()
        if ratio > in_channels:
            raise FieldError("ratio", f"be at most the {in_channels} input channels", ratio, "Lower it.")
        self.weights = Parts(
            squeeze=nn.Conv2d(in_channels, in_channels // ratio, kernel_size=1),
            activation=nn.ReLU(inplace=True),
            excite=nn.Conv2d(in_channels // ratio, in_channels, kernel_size=1),
            sigmoid=nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        means = images.mean((2, 3), keepdim=True)  # deterministic on CUDA, unlike adaptive pooling
        weighted: Tensor = images * self.weights(means)
        return weighted
