"""Options of any layer, whatever its block: how PyTorch's modules within it differ from their defaults.

A layer that sets one has to have a module that it changes; one that the model sets reaches all layers that have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from era_cnn.config.network import ModelConfig
from era_cnn.config.sections import FieldError
from era_cnn.errors import problem
from era_cnn.models import layers


@dataclass(frozen=True)
class Option:
    """What an option changes."""

    what: str
    """The modules that it changes, for messages."""

    fits: Callable[[nn.Module], bool]
    change: Callable[[Any, Any], None]


def _is(*types: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, types)


def _set(attribute: str) -> Callable[[Any, Any], None]:
    return lambda module, value: setattr(module, attribute, value)


def _is_padded(module: nn.Module) -> bool:
    return isinstance(module, layers.Conv2d) and any(module.padding)


def _slope(module: nn.LeakyReLU | nn.PReLU, slope: float | None) -> None:
    if slope is None:
        return
    if isinstance(module, nn.PReLU):
        nn.init.constant_(module.weight, slope)
    else:
        module.negative_slope = slope


def _initialise(module: nn.Conv2d | nn.Linear, name: str) -> None:
    """Draws the weights from PyTorch's distribution called `name`, for ReLU if it is Kaiming's; biases begin with 0.

    Kaiming's keeps the variance of the outputs, or with fan_out that of the gradients.

    Xavier: Glorot and Bengio 2010. Kaiming: He et al. 2015, arXiv 1502.01852. Orthogonal: Saxe et al. 2013, 1312.6120.
    """
    for_relu: dict[str, Any] = {"nonlinearity": "relu"}
    fan_out: dict[str, Any] = {**for_relu, "mode": "fan_out"}
    makers: dict[str, Callable[[Any], Any]] = {
        "kaiming_normal": partial(nn.init.kaiming_normal_, **for_relu),
        "kaiming_uniform": partial(nn.init.kaiming_uniform_, **for_relu),
        "kaiming_normal_fan_out": partial(nn.init.kaiming_normal_, **fan_out),
        "kaiming_uniform_fan_out": partial(nn.init.kaiming_uniform_, **fan_out),
        "xavier_normal": nn.init.xavier_normal_,
        "xavier_uniform": nn.init.xavier_uniform_,
        "orthogonal": nn.init.orthogonal_,
    }
    if name == "default" or module.weight.is_meta:
        return
    makers[name](module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


OPTIONS: dict[str, Option] = {
    "ghost_splits": Option("ghost batch norm", _is(layers.GhostBatchNorm2d), _set("splits")),
    "norm_momentum": Option("batch norm", _is(nn.BatchNorm2d), _set("momentum")),
    "norm_eps": Option("norm", _is(nn.BatchNorm2d, nn.GroupNorm), _set("eps")),
    "negative_slope": Option("leaky ReLU or PReLU", _is(nn.LeakyReLU, nn.PReLU), _slope),
    "dropout_channels": Option("dropout", _is(layers.Dropout), _set("channels")),
    "padding_mode": Option("padded convolution", _is_padded, _set("padding_mode")),
    "init": Option("convolution or linear layer", _is(nn.Conv2d, nn.Linear), _initialise),
}
"""The options by name. Their types and defaults are those of the model's fields of the same names."""


def apply_options(layer: nn.Module, own: Mapping[str, Any], inherited: Mapping[str, Any]) -> None:
    """Changes the modules of a layer as its own options say, or else those of the model.

    Raises:
        FieldError: For an own option that changes nothing.
    """
    for name, option in OPTIONS.items():
        if name not in own and name not in inherited:
            continue
        modules = [module for module in layer.modules() if option.fits(module)]
        if name in own and not modules:
            rule = f"not be set in a layer without {option.what}"
            raise FieldError(name, rule, own[name], f"Remove {name}.")
        for module in modules:
            option.change(module, own.get(name, inherited.get(name)))


def unused_options(model: ModelConfig, network: nn.Module) -> Iterator[str]:
    """The options of the model that differ from their defaults and reach no module."""
    for name, option in OPTIONS.items():
        value, default = getattr(model, name), ModelConfig.model_fields[name].get_default()
        takers = (layer for each, layer in network.named_children() if name not in model.layers[each])
        if value != default and not any(option.fits(module) for layer in takers for module in layer.modules()):
            rule = f"not be set if no layer that leaves it to the model has {option.what}"
            yield problem(f"model.{name}", rule, value, f"Remove {name}.")
