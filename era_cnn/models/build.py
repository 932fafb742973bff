"""Builds a network from its config: checks every field, passes shapes from layer to layer, reports every mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from era_cnn.config.choices import BLOCKS, before_training
from era_cnn.config.data_info import DataInfo
from era_cnn.config.network import ModelConfig
from era_cnn.config.schema import RunConfig
from era_cnn.config.sections import FieldError, values_of
from era_cnn.config.signatures import given_parameters, is_own
from era_cnn.errors import ConfigError, PluginError, problem
from era_cnn.models.network import IMAGE, Graph, Network
from era_cnn.models.options import apply_options, unused_options
from era_cnn.models.shapes import output_shape, pass_empty
from era_cnn.models.specs import LAYERS, block_fields, layer_problems, own_options, takes_from_model
from era_cnn.models.targets import count_params, target_problems
from era_cnn.models.wiring import Layers, inputs_of, is_chain
from era_cnn.randomness import ONE_AT_A_TIME, key, seed_torch

__all__ = ["Network", "build_from_config", "build_network", "check_network", "count_params", "layer_problems"]

MAX_LAYER_PARAMS = 2**28
"""The most values in a layer, including its buffers: 1 GiB, more than any layer for small images needs."""


def build_network(
    layers: Layers,
    inherited: Mapping[str, Any],
    *,
    seed: int,
    info: DataInfo,
) -> Network:
    """Builds a network on the default device (within `torch.device("meta")`, it has no memory for weights).

    Each layer's initial weights depend only on the seed and the layer's name, so that adding, removing or changing a
    layer does not affect those of the others.

    Args:
        layers: Maps a layer's name to its block and the block's fields.
        inherited: Values for the fields that a layer does not set.
        seed: The seed of the initial weights.
        info: The shape of the input images, and the number of classes.

    Raises:
        ConfigError: With every wrong field; if all fields are valid, with the first layer that does not fit its input.
    """
    problems = list(layer_problems(layers, inherited))
    if problems:
        raise ConfigError(problems)
    with ONE_AT_A_TIME:
        generator_state = torch.get_rng_state()  # the caller's random numbers stay the caller's
        try:
            return _build(layers, inherited, seed, info)
        finally:
            torch.set_rng_state(generator_state)


def _build(layers: Layers, inherited: Mapping[str, Any], seed: int, info: DataInfo) -> Network:
    sources = inputs_of(layers)
    network = Network() if is_chain(sources) else Graph(sources)
    shapes, num_classes = {IMAGE: torch.Size((1, *info.shape))}, info.num_classes
    for name, spec in layers.items():
        seed_torch(torch.device("cpu"), key(seed, "init", name))
        in_shapes = {source: shapes[source] for source in sources[name]}
        try:
            layer = _construct(spec, inherited, in_shapes, num_classes)
            _check_size(layer)
            with before_training():
                shapes[name] = output_shape(layer, list(in_shapes.values()))
        except FieldError as error:
            field = f"{LAYERS}.{name}.{_own_name(error.field, spec)}"
            raise ConfigError([problem(field, error.rule, error.got, error.advice)]) from error
        network.add_module(name, layer)
    if shapes[name].numel() != num_classes:
        got = " × ".join(map(str, shapes[name][1:]))
        rule = f"output {num_classes} values for each image, one for each class"
        advice = "Let the last layer say out_channels: classes on one pixel, or be {block: gap_head, projection: conv}."
        raise ConfigError([problem(LAYERS, rule, got, advice)])
    return network


def build_from_config(config: RunConfig, *, may_miss_target: bool = False) -> Network:
    """The network of a run; it meets the target of its experiment, as far as that can be said before training.

    Raises:
        ConfigError: As `build_network`; also if an option of the model has no effect, or if the network misses the
            target and may not.
    """
    network = build_network(config.model.layers, config.model.inherited(), seed=config.seed, info=config.info)
    problems = [*_unused_fields(config.model), *unused_options(config.model, network), *_starved_norms(network, config)]
    if not count_params(network):
        problems.append(problem(LAYERS, "have parameters to train", 0, "Add a layer such as conv or linear."))
    if not problems and not may_miss_target:
        problems = list(target_problems(network, config))
    if problems:
        raise ConfigError(problems)
    return network


def check_network(config: RunConfig, *, may_miss_target: bool = False) -> None:
    """Raises the errors of `build_from_config`, in milliseconds: no weights are stored or computed."""
    with torch.device("meta"):
        build_from_config(config, may_miss_target=may_miss_target)


def _own_name(field: str, spec: Mapping[str, Any]) -> str:
    """The block's own name of a field: the size of a pooling is the kernel size of a block that only pools."""
    return "kernel_size" if field == "pool_size" and field not in BLOCKS.section(spec["block"]).model_fields else field


def _construct(
    spec: Mapping[str, Any], inherited: Mapping[str, Any], in_shapes: Mapping[str, torch.Size], num_classes: int
) -> nn.Module:
    shape = next(iter(in_shapes.values()))
    block, given = spec["block"], given_parameters(BLOCKS[spec["block"]])
    if len(shape) != 4 and not {"in_shape", "in_shapes"} & {*given}:
        rule = "fit its input, which is flattened"
        raise FieldError("block", rule, block, "Only blocks such as linear can follow it.")
    layer: nn.Module = BLOCKS.make(
        block,
        block_fields(spec, inherited, num_classes),
        in_channels=shape[1],
        in_size=tuple(shape[2:]),
        in_shape=tuple(shape[1:]),
        in_shapes={name: tuple(each[1:]) for name, each in in_shapes.items()},
        num_classes=num_classes,
    )
    apply_options(layer, own_options(spec), inherited)
    if not is_own(BLOCKS[block]):
        layer.register_forward_hook(partial(_check_output, block))
    return layer


def _check_output(block: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
    """Raises a `PluginError` unless a layer returns a tensor of as many images as it was given, in training, too."""
    if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[0] != inputs[0].shape[0]:
        rule = f"return a tensor (B, …) from forward() for inputs of shape {tuple(inputs[0].shape)}"
        raise PluginError(BLOCKS.fault(block, rule, output))


def _check_size(layer: nn.Module) -> None:
    size = sum(tensor.numel() for tensor in (*layer.parameters(), *layer.buffers()))
    if size > MAX_LAYER_PARAMS:
        raise FieldError("block", f"make at most {MAX_LAYER_PARAMS:,} parameters", size, "Make it smaller.")


def _starved_norms(network: Network, config: RunConfig) -> Iterator[str]:
    """Batch norm can't train on one value per channel, as in a last batch of one image at one pixel."""
    size = config.trainer.batch_size
    smallest = min(size, (not config.trainer.drop_last and config.num_train_images % size) or size)
    alone = [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and smallest // getattr(module, "splits", 1) <= 1
    ]
    pixels: list[int] = []
    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs: pixels.append(inputs[0].shape[2:].numel()))
        for norm in alone
    ]
    if alone:
        pass_empty(network, (1, *config.info.shape))
    for hook in hooks:
        hook.remove()
    if 1 in pixels:
        rule = f"not leave one of {config.num_train_images:,} images alone in a batch, with batch norm on one pixel"
        yield problem("trainer.batch_size", rule, size, "Change it by one, for example, or set trainer.drop_last=true.")


def _unused_fields(model: ModelConfig) -> Iterator[str]:
    """Fields of blocks that the model sets, and that no layer takes from it."""
    if model.dropout and not any(takes_from_model("dropout", spec) for spec in model.layers.values()):
        yield problem("model.dropout", "be 0 if no layer uses it", model.dropout, "Set it in a layer.")
    norms = [
        values_of(block_fields(spec, model.inherited(), num_classes=2))["norm"]
        for spec in model.layers.values()
        if takes_from_model("norm_groups", spec)
    ]
    if "norm_groups" in model.inherited() and "group" not in norms:
        rule = "not be set if no layer that leaves it to the model has group norm"
        yield problem("model.norm_groups", rule, model.norm_groups, "Remove norm_groups.")
