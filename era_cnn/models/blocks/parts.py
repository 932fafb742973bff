"""The parts of blocks: norm, activation, pooling, and their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from era_cnn.config.network import Activation, Norm, Order, is_order
from era_cnn.config.sections import FieldError
from era_cnn.models import layers
from era_cnn.models.blocks.fields import Pool


def make_norm(name: Norm, channels: int, groups: int) -> nn.Module | None:
    """The normalisation called `name` over `channels` channels, or None for `none`.

    `layer` normalises over C, H and W of each image, with a scale and shift per channel: group norm with one
    group (Wu and He 2018, arXiv 1803.08494).
    """
    if name == "group" and channels % groups:
        raise FieldError("norm_groups", f"divide the {channels} channels", groups, "Choose a divisor.")
    makers: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: layers.BatchNorm2d(channels),
        "ghost_batch": lambda: layers.GhostBatchNorm2d(channels),
        "group": lambda: nn.GroupNorm(groups, channels),
        "layer": lambda: nn.GroupNorm(1, channels),
    }
    return makers[name]() if name in makers else None


def make_activation(name: Activation, channels: int, *, inplace: bool = True) -> nn.Module | None:
    """The activation called `name` on `channels` channels, or None for `none`.

    ReLU, whose gradient needs only its output, overwrites its input unless `inplace` is False. That is safe if the
    input comes from another part of the same block, since nothing else reads it. A block must never overwrite its own
    input, which another layer may read.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=inplace),
        "leaky_relu": nn.LeakyReLU,
        "prelu": lambda: nn.PReLU(channels),
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "hardswish": nn.Hardswish,
        "elu": nn.ELU,
        "selu": nn.SELU,
        "relu6": nn.ReLU6,
        "mish": nn.Mish,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    return makers[name]() if name in makers else None


def make_pool(name: Pool, kernel_size: int) -> nn.Module | None:
    """The pooling called `name` over windows that touch and do not overlap, or None for `none`."""
    makers = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
    return makers[name](kernel_size) if name in makers else None


def make_dropout(p: float) -> nn.Module | None:
    """Dropout with probability `p`, or None for 0."""
    return layers.Dropout(p) if p else None


class Parts(nn.Sequential):
    """Named modules in sequence; those that are None are left out."""

    def __init__(self, **parts: nn.Module | None) -> None:
        super().__init__()
        for name, part in parts.items():
            if part is not None:
                self.add_module(name, part)


def make_parts(
    conv: nn.Conv2d,
    *,
    norm: Norm,
    norm_groups: int,
    activation: Activation,
    dropout: float,
    order: Order,
    pool: nn.Module | None = None,
) -> dict[str, nn.Module | None]:
    """A convolution with norm, activation, dropout and pooling, in order; the pooling comes last if not in the order.

    A norm or an activation before the convolution has its input channels.
    """
    if not is_order(order):
        raise FieldError("order", "name every part once", order, "Write each part once.")
    is_before = {part: order.index(part) < order.index("conv") for part in ("norm", "activation")}
    channels = {part: conv.in_channels if before else conv.out_channels for part, before in is_before.items()}
    parts = {
        "conv": conv,
        "norm": make_norm(norm, channels["norm"], norm_groups),
        "activation": make_activation(activation, channels["activation"], inplace=not is_before["activation"]),
        "dropout": make_dropout(dropout),
        "pool": pool,
    }
    return {name: parts[name] for name in (*order, *({"pool"} - {*order}))}


def check_used(given: Mapping[str, object], fields: Mapping[str, object]) -> None:
    """Refuses fields that a layer sets without effect, since they are likely a mistake.

    Args:
        given: The fields that the layer itself sets.
        fields: All fields of its block, including inherited ones and defaults.

    Raises:
        FieldError: For the first field without effect.
    """
    for name, where, instead in _without_effect(fields):
        if name in given:
            raise FieldError(name, f"not be set {where}", given[name], f"Remove {name}, or set {instead}.")
    order = given.get("order")
    if fields.get("pool") == "none" and isinstance(order, list) and "pool" in order:
        raise FieldError("order", "not name pool where pool is none", order, "Remove it, or set pool: max.")


def _without_effect(fields: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """The fields that change nothing, whether or not they are set: name, reason, and what to set instead."""
    after_conv = ("norm", "norm_groups", "activation", "dropout", "order")
    return [
        *((name, "where bare is true", "bare: false") for name in after_conv if fields.get("bare")),
        *([("norm_groups", "unless norm is group", "norm: group")] if fields.get("norm") != "group" else []),
        *([("pool_size", "where pool is none", "pool: max")] if fields.get("pool") == "none" else []),
        *([("bias", "where projection is none", "projection: conv")] if fields.get("projection") == "none" else []),
        *(
            (name, "where preactivation is true", "preactivation: false")
            for name in ("final_activation", "zero_init_residual")
            if fields.get("preactivation")
        ),
        *([("zero_init_residual", "where norm is none", "norm: batch")] if fields.get("norm") == "none" else []),
    ]
