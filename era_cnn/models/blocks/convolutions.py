"""Blocks of a convolution and what follows it."""

from __future__ import annotations

from typing import Annotated

from era_cnn.config.choices import block
from era_cnn.config.network import DEFAULT_ORDER, ActivationChoice, Bias, Dropout, NormChoice, NormGroups, Order
from era_cnn.config.sections import FieldError, Own
from era_cnn.models import layers
from era_cnn.models.blocks.fields import Bare, Channels, Dilation, Groups, KernelSize, Padding, Pool, Stride
from era_cnn.models.blocks.parts import Parts, make_activation, make_dropout, make_norm, make_parts, make_pool


@block("conv")
class Conv(Parts):
    """Convolution, activation, norm and dropout, in the given order, then pooling, if any.

    (B, C, H, W) to (B, out_channels, H', W'), where H' = (H + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1,
    rounded down. Pooling divides it by pool_size; an order of five parts, pool among them, pools there, not at the end.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: Channels,
        kernel_size: KernelSize = 3,
        stride: Stride = 1,
        padding: Padding = 0,
        dilation: Dilation = 1,
        groups: Groups = 1,
        bias: Bias = False,
        norm: NormChoice = "batch",
        norm_groups: NormGroups = 4,
        activation: ActivationChoice = "relu",
        dropout: Dropout = 0.0,
        order: Order = DEFAULT_ORDER,
        pool: Pool = "none",
        pool_size: KernelSize = 2,
        bare: Bare = False,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            rule = f"divide both the {in_channels} input channels and the {out_channels} output channels"
            raise FieldError("groups", rule, groups, "Choose a common divisor.")
        if bare and pool != "none":
            raise FieldError("pool", "be none where bare is true", pool, "Remove it, or set bare: false.")
        conv = layers.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        if bare:
            super().__init__(conv=conv)
        else:
            super().__init__(
                **make_parts(
                    conv,
                    norm=norm,
                    norm_groups=norm_groups,
                    activation=activation,
                    dropout=dropout,
                    order=order,
                    pool=make_pool(pool, pool_size),
                )
            )


@block("transition")
class Transition(Parts):
    """Pooling, if any, then a 1×1 convolution and its activation: fewer pixels, other channels.

    (B, C, H, W) to (B, out_channels, H / pool_size, W / pool_size). Norm, dropout and order are the layer's own: those
    of the model do not apply.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: Channels,
        pool: Pool = "max",
        pool_size: KernelSize = 2,
        bias: Bias = False,
        norm: Annotated[NormChoice, Own()] = "none",
        norm_groups: NormGroups = 4,
        activation: ActivationChoice = "relu",
        dropout: Annotated[Dropout, Own()] = 0.0,
        order: Annotated[Order, Own()] = DEFAULT_ORDER,
        bare: Bare = False,
    ) -> None:
        pooling = make_pool(pool, pool_size)
        conv = layers.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias)
        if bare:
            super().__init__(pool=pooling, conv=conv)
        else:
            super().__init__(
                **make_parts(
                    conv,
                    norm=norm,
                    norm_groups=norm_groups,
                    activation=activation,
                    dropout=dropout,
                    order=["pool", *order],
                    pool=pooling,
                )
            )


@block("depthwise_separable")
class DepthwiseSeparable(Parts):
    """A k×k convolution within each channel, then a 1×1 convolution across them (Howard et al. 2017, 1704.04861).

    C k² + C out_channels weights, where a full convolution has C k² out_channels. Norm and activation follow both
    convolutions, dropout only the second.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: Channels,
        kernel_size: KernelSize = 3,
        stride: Stride = 1,
        padding: Padding = 0,
        dilation: Dilation = 1,
        bias: Bias = False,
        norm: NormChoice = "batch",
        norm_groups: NormGroups = 4,
        activation: ActivationChoice = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__(
            depthwise=layers.Conv2d(
                in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=bias
            ),
            norm1=make_norm(norm, in_channels, norm_groups),
            activation1=make_activation(activation, in_channels),
            pointwise=layers.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias),
            norm2=make_norm(norm, out_channels, norm_groups),
            activation2=make_activation(activation, out_channels),
            dropout=make_dropout(dropout),
        )
