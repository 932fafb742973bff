"""What a target requires of a network, as far as it can be said before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from era_cnn.config.schema import Requirement, RunConfig
from era_cnn.models.receptive import receptive_fields
from era_cnn.models.shapes import pass_empty


def count_params(network: nn.Module) -> int:
    """The number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def target_problems(network: nn.Module, config: RunConfig) -> Iterator[str]:
    """Where a network misses the target of its experiment."""
    target, whose = config.target, f"the target of {config.name}"
    params = count_params(network)
    if target.max_params is not None and params > target.max_params:
        advice = "Make the network smaller, or raise target.max_params; ~experiment drops the target."
        yield f"model.layers must make at most {target.max_params:,} parameters, {whose}, got {params:,}. {advice}"
    if target.min_receptive_field is not None:
        field = receptive_fields(network, config.info.shape)[1]
        if field < target.min_receptive_field:
            rule = f"have a receptive field of at least {target.min_receptive_field} px, {whose}"
            yield f"model.layers must {rule}, got {field} px. Add layers, strides or dilation."
    for name in target.requires:
        requirement, found = REQUIREMENTS[name], _modules(network, config, REQUIREMENTS[name].fits)
        if bool(found) is requirement.is_forbidden:
            got = ", ".join(found) or "none"
            yield f"model.layers must have {requirement.what}, {whose}, got {got}. {requirement.advice}"


def _modules(network: nn.Module, config: RunConfig, fits: Callable[[Any, Tensor, Tensor], bool]) -> list[str]:
    """The names of the modules without children that fit, which is asked with input and output of an empty batch."""
    found: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: found.append(name) if fits(module, inputs[0], output) else None
        )
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    pass_empty(network, (1, *config.info.shape))
    for hook in hooks:
        hook.remove()
    return found


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
DROPOUTS = (nn.modules.dropout._DropoutNd,)


def _is_global_pool(module: nn.Module, images: Tensor, output: Tensor) -> bool:
    is_pool = isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d)
    return is_pool and images.shape[2:].numel() > 1 == output.shape[2:].numel()


def _is_depthwise(module: nn.Module, images: Tensor, output: Tensor) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def _is_dilated(module: nn.Module, images: Tensor, output: Tensor) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.dilation) > 1 and max(module.kernel_size) > 1


@dataclass(frozen=True)
class Kind:
    """Modules that a target requires, or forbids."""

    what: str
    fits: Callable[[Any, Tensor, Tensor], bool]
    advice: str
    is_forbidden: bool = False


REQUIREMENTS: dict[Requirement, Kind] = {
    "norm": Kind("a norm", lambda module, *_: isinstance(module, NORMS), "Set model.norm: batch."),
    "dropout": Kind(
        "dropout", lambda module, *_: isinstance(module, DROPOUTS) and module.p > 0, "Set model.dropout above 0."
    ),
    "gap": Kind("global average pooling", _is_global_pool, "Let the last layer be {block: gap_head}."),
    "depthwise": Kind("a depthwise convolution", _is_depthwise, "Use {block: depthwise_separable}."),
    "dilation": Kind("a dilated convolution", _is_dilated, "Set dilation: 2 in a layer."),
    "no_max_pool": Kind(
        "no max pooling",
        lambda module, *_: isinstance(module, nn.MaxPool2d),
        "Use a stride instead.",
        is_forbidden=True,
    ),
    "no_linear": Kind(
        "no linear layer", lambda module, *_: isinstance(module, nn.Linear), "Use {block: gap_head}.", is_forbidden=True
    ),
}
