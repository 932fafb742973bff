"""Residual blocks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from era_cnn.config.choices import block
from era_cnn.config.network import ActivationChoice, Bias, Dropout, NormChoice, NormGroups
from era_cnn.config.sections import FieldError
from era_cnn.models import layers
from era_cnn.models.blocks.fields import Channels, KernelSize, Pool, Stride
from era_cnn.models.blocks.parts import Parts, make_activation, make_dropout, make_norm, make_pool

Shortcut = Annotated[Literal["identity", "conv"], Field(description="the kind of shortcut")]
Preactivation = Annotated[
    bool, Field(description="true or false: whether norm and activation stand before each convolution")
]
FinalActivation = Annotated[
    Literal["after_sum", "before_sum", "none"], Field(description="the place of the second activation")
]
ZeroInit = Annotated[bool, Field(description="true or false: whether the scale of the last norm begins with 0")]

POSTACTIVATION = ("conv1", "norm1", "activation1", "pool", "conv2", "norm2", "activation2")
PREACTIVATION = ("norm1", "activation1", "conv1", "pool", "norm2", "activation2", "conv2")


@block("residual")
class Residual(nn.Module):
    """The sum of two padded convolutions and a shortcut (He et al. 2015, arXiv 1512.03385).

    (B, C, H, W) to (B, out_channels, H / stride, W / stride). With `shortcut: identity` the input must already have
    the output's shape; `shortcut: conv` brings it there by a 1×1 convolution. Pooling, between the convolutions and on
    the shortcut, is another way to fewer pixels (He et al. 2018, arXiv 1812.01187).

    With `preactivation`, norm and activation stand before each convolution, and no activation follows the sum (He et
    al. 2016, arXiv 1603.05027). `final_activation: before_sum` gives the x + R(x) of ResNet-9, where R ends in an
    activation. With `zero_init_residual`, the last norm begins with a scale of 0, so that the block begins as its
    shortcut (Goyal et al. 2017, arXiv 1706.02677).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: Channels,
        kernel_size: KernelSize = 3,
        stride: Stride = 1,
        shortcut: Shortcut = "identity",
        bias: Bias = False,
        norm: NormChoice = "batch",
        norm_groups: NormGroups = 4,
        activation: ActivationChoice = "relu",
        dropout: Dropout = 0.0,
        pool: Pool = "none",
        pool_size: KernelSize = 2,
        preactivation: Preactivation = False,
        final_activation: FinalActivation = "after_sum",
        zero_init_residual: ZeroInit = False,
    ) -> None:
        super().__init__()
        if shortcut == "identity" and in_channels != out_channels:
            rule = f"equal the {in_channels} input channels if shortcut is identity"
            raise FieldError("out_channels", rule, out_channels, "Change it, or set shortcut: conv.")
        if shortcut == "identity" and stride != 1:
            raise FieldError("stride", "be 1 if shortcut is identity", stride, "Set shortcut: conv.")
        if pool != "none" and stride != 1:
            raise FieldError("pool", "be none if stride is not 1", pool, "Remove one of the two.")
        if kernel_size % 2 == 0:
            raise FieldError("kernel_size", "be odd", kernel_size, "Change it by one.")
        first_channels = in_channels if preactivation else out_channels
        norm1, norm2 = (make_norm(norm, channels, norm_groups) for channels in (first_channels, out_channels))
        is_second_within = preactivation or final_activation == "before_sum"
        parts = {
            "conv1": layers.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=bias),
            "norm1": norm1,
            "activation1": make_activation(activation, first_channels, inplace=not preactivation or norm1 is not None),
            "pool": make_pool(pool, pool_size),
            "conv2": layers.Conv2d(out_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias),
            "norm2": norm2,
            "activation2": make_activation(activation, out_channels) if is_second_within else None,
        }
        self.body = Parts(**{name: parts[name] for name in (PREACTIVATION if preactivation else POSTACTIVATION)})
        self.shortcut = None
        if shortcut == "conv" or pool != "none":
            is_conv = shortcut == "conv"
            self.shortcut = Parts(
                pool=make_pool(pool, pool_size),
                conv=layers.Conv2d(in_channels, out_channels, 1, stride, bias=bias) if is_conv else None,
                norm=make_norm(norm, out_channels, norm_groups) if is_conv and not preactivation else None,
            )
        is_last = final_activation == "after_sum" and not preactivation
        self.activation = make_activation(activation, out_channels) if is_last else None
        self.dropout = make_dropout(dropout)
        if zero_init_residual and norm2 is not None:
            nn.init.zeros_(norm2.weight)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        total: Tensor = self.body(images) + (images if self.shortcut is None else self.shortcut(images))
        for part in (self.activation, self.dropout):
            total = total if part is None else part(total)
        return total
