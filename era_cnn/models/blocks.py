"""The blocks that a network is made of. A new one is a class with a decorator, here or in a plugin.

The network passes a constructor's positional parameters: any of `in_channels`, `in_size` (height, width) and
`num_classes`. The keyword parameters are the block's fields in YAML: see `config.choices`.

Shapes: B images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from era_cnn.config.choices import block
from era_cnn.config.schema import (
    DEFAULT_ORDER,
    Activation,
    ActivationChoice,
    Bias,
    Dropout,
    Norm,
    NormChoice,
    Order,
)
from era_cnn.config.sections import FieldError
from era_cnn.models import layers

Channels = Annotated[int, Field(ge=1, le=65_536, description="the number of channels")]
KernelSize = Annotated[int, Field(ge=1, le=1_024, description="the height and width of the kernel in pixels")]
Stride = Annotated[int, Field(ge=1, le=1_024, description="the step between two positions of the kernel in pixels")]
Padding = Annotated[int, Field(ge=0, le=1_024, description="the zeros added on every side in pixels")]
Dilation = Annotated[int, Field(ge=1, le=1_024, description="the distance between two taps of the kernel in pixels")]
Groups = Annotated[int, Field(ge=1, le=65_536, description="the number of groups of channels")]
Bare = Annotated[bool, Field(description="true or false: the convolution alone, without norm, activation and dropout")]
Pool = Literal["max", "avg", "none"]


def make_norm(name: Norm, channels: int, groups: int) -> nn.Module | None:
    """The normalisation called `name` over `channels` channels, or None for `none`.

    `layer` normalises over C, H and W of each image, with a scale and shift per channel: group norm with one
    group (Wu and He 2018, arXiv 1803.08494).
    """
    if name == "group" and channels % groups:
        raise FieldError("norm_groups", f"divide the {channels} channels", groups, "Choose a divisor.")
    makers: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: layers.BatchNorm2d(channels),
        "group": lambda: nn.GroupNorm(groups, channels),
        "layer": lambda: nn.GroupNorm(1, channels),
    }
    return makers[name]() if name in makers else None


def make_activation(name: Activation, *, inplace: bool = True) -> nn.Module | None:
    """The activation called `name`, or None for `none`.

    ReLU, whose gradient needs only its output, overwrites its input unless `inplace` is False. That is safe if the
    input comes from another part of the same block, since nothing else reads it.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=inplace),
        "leaky_relu": nn.LeakyReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "hardswish": nn.Hardswish,
    }
    return makers[name]() if name in makers else None


def make_pool(name: Pool, kernel_size: int) -> nn.Module | None:
    """The pooling called `name` over windows that touch and do not overlap, or None for `none`."""
    makers = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
    return makers[name](kernel_size) if name in makers else None


def check_pool_padding(kernel_size: int, padding: int) -> None:
    """Raises a `FieldError` if the padding is too large for PyTorch's pooling."""
    if 2 * padding > kernel_size:
        raise FieldError("padding", f"be at most half of kernel_size, {kernel_size // 2}", padding, "Lower it.")


class Parts(nn.Sequential):
    """Named modules in sequence; those that are None are left out."""

    def __init__(self, **parts: nn.Module | None) -> None:
        super().__init__()
        for name, part in parts.items():
            if part is not None:
                self.add_module(name, part)


def make_parts(
    conv: nn.Module,
    in_channels: int,
    out_channels: int,
    *,
    norm: Norm,
    norm_groups: int,
    activation: Activation,
    dropout: float,
    order: Order,
) -> dict[str, nn.Module | None]:
    """A convolution with norm, activation and dropout, in order; a norm before the convolution has `in_channels`."""
    if len(set(order)) < len(order):
        raise FieldError("order", "name every part once", order, "Write each part once.")
    normed_channels = out_channels if order.index("conv") < order.index("norm") else in_channels
    parts = {
        "conv": conv,
        "norm": make_norm(norm, normed_channels, norm_groups),
        "activation": make_activation(activation, inplace=order.index("conv") < order.index("activation")),
        "dropout": layers.Dropout(dropout) if dropout else None,
    }
    return {name: parts[name] for name in order}


def check_used(given: Mapping[str, object], fields: Mapping[str, object]) -> None:
    """Refuses fields that a layer sets without effect, since they are likely a mistake.

    Args:
        given: The fields that the layer itself sets.
        fields: All fields of its block, including inherited ones and defaults.

    Raises:
        FieldError: For the first field without effect.
    """
    after_conv = ("norm", "norm_groups", "activation", "dropout", "order")
    without_effect = [
        *((name, "where bare is true", "bare: false") for name in after_conv if fields.get("bare")),
        *([("norm_groups", "unless norm is group", "norm: group")] if fields.get("norm") != "group" else []),
        *([("pool_size", "where pool is none", "pool: max")] if fields.get("pool") == "none" else []),
        *([("bias", "where projection is none", "projection: conv")] if fields.get("projection") == "none" else []),
    ]
    for name, where, instead in without_effect:
        if name in given:
            raise FieldError(name, f"not be set {where}", given[name], f"Remove {name}, or set {instead}.")


@block("conv")
class Conv(Parts):
    """Convolution, activation, norm and dropout, in the given order; (B, C, H, W) to (B, out_channels, H', W').

    H' = (H + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1, rounded down.
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
        norm_groups: Groups = 4,
        activation: ActivationChoice = "relu",
        dropout: Dropout = 0.0,
        order: Order = DEFAULT_ORDER,
        bare: Bare = False,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            rule = f"divide both the {in_channels} input channels and the {out_channels} output channels"
            raise FieldError("groups", rule, groups, "Choose a common divisor.")
        conv = nn.Conv2d(
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
                    in_channels,
                    out_channels,
                    norm=norm,
                    norm_groups=norm_groups,
                    activation=activation,
                    dropout=dropout,
                    order=order,
                )
            )


@block("transition")
class Transition(Parts):
    """Pooling, if any, then a 1×1 convolution and its activation: fewer pixels, other channels.

    (B, C, H, W) to (B, out_channels, H / pool_size, W / pool_size).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: Channels,
        pool: Pool = "max",
        pool_size: KernelSize = 2,
        bias: Bias = False,
        activation: ActivationChoice = "relu",
        bare: Bare = False,
    ) -> None:
        super().__init__(
            pool=make_pool(pool, pool_size),
            conv=nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias),
            activation=None if bare else make_activation(activation),
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
        bias: Bias = False,
        norm: NormChoice = "batch",
        norm_groups: Groups = 4,
        activation: ActivationChoice = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__(
            depthwise=nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=bias),
            norm1=make_norm(norm, in_channels, norm_groups),
            activation1=make_activation(activation),
            pointwise=nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias),
            norm2=make_norm(norm, out_channels, norm_groups),
            activation2=make_activation(activation),
            dropout=layers.Dropout(dropout) if dropout else None,
        )


@block("residual")
class Residual(nn.Module):
    """The sum of two padded 3×3 convolutions and a shortcut (He et al. 2015, arXiv 1512.03385).

    (B, C, H, W) to (B, out_channels, H / stride, W / stride). With `shortcut: identity` the input must already have
    the output's shape; `shortcut: conv` brings it there by a 1×1 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: Channels,
        stride: Stride = 1,
        shortcut: Annotated[Literal["identity", "conv"], Field(description="the kind of shortcut")] = "identity",
        bias: Bias = False,
        norm: NormChoice = "batch",
        norm_groups: Groups = 4,
        activation: ActivationChoice = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        if shortcut == "identity" and in_channels != out_channels:
            rule = f"equal the {in_channels} input channels if shortcut is identity"
            raise FieldError("out_channels", rule, out_channels, "Change it, or set shortcut: conv.")
        if shortcut == "identity" and stride != 1:
            raise FieldError("stride", "be 1 if shortcut is identity", stride, "Set shortcut: conv.")
        self.body = Parts(
            conv1=nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias),
            norm1=make_norm(norm, out_channels, norm_groups),
            activation1=make_activation(activation),
            conv2=nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias),
            norm2=make_norm(norm, out_channels, norm_groups),
        )
        self.shortcut = None
        if shortcut == "conv":
            self.shortcut = Parts(
                conv=nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias),
                norm=make_norm(norm, out_channels, norm_groups),
            )
        self.activation = make_activation(activation)
        self.dropout = layers.Dropout(dropout) if dropout else None

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        total: Tensor = self.body(images) + (images if self.shortcut is None else self.shortcut(images))
        for part in (self.activation, self.dropout):
            total = total if part is None else part(total)
        return total


@block("max_pool")
class MaxPool(nn.MaxPool2d):
    """The largest value of each window; (B, C, H, W) to (B, C, H / stride, W / stride). No stride: kernel_size."""

    def __init__(self, *, kernel_size: KernelSize = 2, stride: Stride | None = None, padding: Padding = 0) -> None:
        check_pool_padding(kernel_size, padding)
        super().__init__(kernel_size, stride, padding)


@block("avg_pool")
class AvgPool(nn.AvgPool2d):
    """The mean of each window; (B, C, H, W) to (B, C, H / stride, W / stride). No stride: kernel_size."""

    def __init__(self, *, kernel_size: KernelSize = 2, stride: Stride | None = None, padding: Padding = 0) -> None:
        check_pool_padding(kernel_size, padding)
        super().__init__(kernel_size, stride, padding)


@block("blur_pool")
class BlurPool(nn.Module):
    """Downsampling after a fixed binomial low-pass filter (Zhang 2019, arXiv 1904.11486); no parameters.

    (B, C, H, W) to (B, C, H', W'), H' = (H - 1) / stride + 1 rounded down for an odd kernel: the border is reflected.
    """

    weight: Tensor

    def __init__(
        self,
        in_channels: int,
        in_size: tuple[int, int],
        *,
        kernel_size: Annotated[int, Field(ge=3, le=7, description="the taps of the filter, 3 to 7")] = 3,
        stride: Stride = 2,
    ) -> None:
        super().__init__()
        if kernel_size // 2 >= min(in_size):
            rule = f"be less than {2 * min(in_size)}, twice the smaller side of its input"
            raise FieldError("kernel_size", rule, kernel_size, "Lower it.")
        taps = torch.tensor([math.comb(kernel_size - 1, k) for k in range(kernel_size)], dtype=torch.float32)
        weight = torch.outer(taps, taps) / taps.sum() ** 2
        self.register_buffer("weight", weight.expand(in_channels, 1, kernel_size, kernel_size).contiguous())
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        before = (self.kernel_size - 1) // 2
        padded = images
        for dim in (2, 3):
            padded = reflect(padded, before, self.kernel_size - 1 - before, dim)
        return F.conv2d(padded, self.weight, stride=self.stride, groups=self.weight.shape[0])


def reflect(images: Tensor, before: int, after: int, dim: int) -> Tensor:
    """Mirrors the border of one dimension without repeating the outermost pixel.

    The same as `F.pad` with mode reflect, whose gradient PyTorch documents as nondeterministic on CUDA.
    """
    size = images.shape[dim]
    head = images.narrow(dim, 1, before).flip(dim)
    tail = images.narrow(dim, size - 1 - after, after).flip(dim)
    return torch.cat([head, images, tail], dim)


@block("gap_head")
class GapHead(Parts):
    """Global average pooling, (B, C, H, W) to (B, C, 1, 1), and optionally a layer from C to K after it.

    Without a projection, C must be K (Lin et al. 2013, arXiv 1312.4400). `projection: conv` is a 1×1 convolution,
    `linear` a linear layer on the flattened means: (B, K).
    """

    def __init__(
        self,
        in_channels: int,
        in_size: tuple[int, int],
        num_classes: int,
        *,
        projection: Annotated[
            Literal["none", "conv", "linear"], Field(description="the layer after the pooling")
        ] = "none",
        bias: Bias = False,
    ) -> None:
        if projection == "none" and in_channels != num_classes:
            rule = f"be conv or linear if there are {in_channels} input channels for {num_classes} classes"
            raise FieldError("projection", rule, projection, "Set projection: conv.")
        super().__init__(pool=nn.AvgPool2d(in_size if in_size[0] != in_size[1] else in_size[0]))
        if projection == "conv":
            self.add_module("conv", nn.Conv2d(in_channels, num_classes, kernel_size=1, bias=bias))
        elif projection == "linear":
            self.add_module("flatten", nn.Flatten())
            self.add_module("linear", nn.Linear(in_channels, num_classes, bias=bias))
