"""Builds a network from its config: checks every field, passes shapes from layer to layer, reports every mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import functional_call

from era_cnn.config.choices import BLOCKS
from era_cnn.config.data_info import DataInfo
from era_cnn.config.messages import field_problems
from era_cnn.config.schema import ModelConfig, RunConfig
from era_cnn.config.sections import FieldError, Section
from era_cnn.errors import ConfigError, problem
from era_cnn.models.blocks import check_used
from era_cnn.randomness import ONE_AT_A_TIME, key, seed_torch

LAYERS = "model.layers"
MAX_LAYER_PARAMS = 2**28
"""The most values in a layer, including its buffers: 1 GiB, more than any layer for small images needs."""


class Network(nn.Sequential):
    """Layers in sequence; images (B, C, H, W) to logits (B, K)."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits.flatten(1)


def build_network(
    layers: Mapping[str, Mapping[str, Any]],
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
        ConfigError: With every wrong field; if all fields are valid, with the first layer that does not fit its input
            shape.
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


def _build(layers: Mapping[str, Mapping[str, Any]], inherited: Mapping[str, Any], seed: int, info: DataInfo) -> Network:
    network, shape, num_classes = Network(), torch.Size((1, *info.shape)), info.num_classes
    for name, spec in layers.items():
        seed_torch(torch.device("cpu"), key(seed, "init", name))
        try:
            layer = _construct(spec, inherited, shape, num_classes)
            _check_size(layer)
            shape = _output_shape(layer, shape)
        except FieldError as error:
            field = f"{LAYERS}.{name}.{_own_name(error.field, spec)}"
            raise ConfigError([problem(field, error.rule, error.got, error.advice)]) from error
        network.add_module(name, layer)
    if shape.numel() != num_classes:
        got = " × ".join(map(str, shape[1:]))
        rule = f"output {num_classes} values for each image, one for each class"
        raise ConfigError([problem(LAYERS, rule, got, "Let the last layer be {block: gap_head}.")])
    return network


def build_from_config(config: RunConfig) -> Network:
    """The network of a run, within the number of parameters that its target allows.

    Raises:
        ConfigError: As `build_network`; also if the network is too large, or an inherited option has no effect.
    """
    network = build_network(config.model.layers, config.model.inherited(), seed=config.seed, info=config.info)
    params, limit = count_params(network), config.target.max_params
    if limit is not None and params > limit:
        rule = f"make at most {limit:,} parameters, the target of experiment {config.name}"
        raise ConfigError(
            [f"{LAYERS} must {rule}, got {params:,}. Make the network smaller, or raise target.max_params."]
        )
    problems = [*_unused_options(config.model), *_starved_norms(network, config)]
    if problems:
        raise ConfigError(problems)
    return network


def check_network(config: RunConfig) -> None:
    """Raises the errors of `build_from_config`, in milliseconds: no weights are stored or computed."""
    with torch.device("meta"):
        build_from_config(config)


def count_params(network: nn.Module) -> int:
    """The number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def layer_problems(layers: Mapping[str, Mapping[str, Any]], inherited: Mapping[str, Any]) -> Iterator[str]:
    """The problems of names, blocks and their fields, regardless of shapes."""
    reserved = set(dir(nn.Sequential()))
    for name, spec in layers.items():
        key = f"{LAYERS}.{name}"
        if not name.isidentifier() or name in reserved:
            yield problem(key, "have a plain name (letters, digits, _)", name, "Rename the layer.")
        elif "block" not in spec:
            yield f"{key}.block must be given, got nothing. Choose one: {', '.join(BLOCKS)}."
        elif not isinstance(spec["block"], str) or spec["block"] not in BLOCKS:
            yield BLOCKS.unknown(f"{key}.block", spec["block"])
        else:
            yield from _fields_of_layer_problems(key, spec, inherited)


def _fields_of_layer_problems(key: str, spec: Mapping[str, Any], inherited: Mapping[str, Any]) -> Iterator[str]:
    given, schema = _given(spec), BLOCKS.section(spec["block"])
    try:
        schema.model_validate(given)
    except ValidationError as error:
        yield from field_problems(error, schema, prefix=f"{key}.")
        return
    try:
        merged = _merged(spec, inherited)
        check_used(given, merged.model_dump())
        BLOCKS.check(spec["block"], merged)
    except FieldError as error:
        yield problem(f"{key}.{error.field}", error.rule, error.got, error.advice)


def _own_name(field: str, spec: Mapping[str, Any]) -> str:
    """The block's own name of a field: the kernel size of a module within it may be its pool_size."""
    own = BLOCKS.section(spec["block"]).model_fields
    return "pool_size" if field == "kernel_size" and field not in own else field


def _given(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in spec.items() if field != "block"}


def _merged(spec: Mapping[str, Any], inherited: Mapping[str, Any]) -> Section:
    """All fields of a block: from the layer, or else the model, or else the block's defaults."""
    schema = BLOCKS.section(spec["block"])
    from_model = {field: value for field, value in inherited.items() if field in schema.model_fields}
    return schema.model_validate({**from_model, **_given(spec)})


def _construct(spec: Mapping[str, Any], inherited: Mapping[str, Any], shape: torch.Size, num_classes: int) -> nn.Module:
    if len(shape) != 4:
        rule = "fit its input"
        raise FieldError("block", rule, spec["block"], "Nothing can follow the flattened output before it.")
    layer: nn.Module = BLOCKS.make(
        spec["block"],
        _merged(spec, inherited),
        in_channels=shape[1],
        in_size=tuple(shape[2:]),
        num_classes=num_classes,
    )
    return layer


def _check_size(layer: nn.Module) -> None:
    size = sum(tensor.numel() for tensor in (*layer.parameters(), *layer.buffers()))
    if size > MAX_LAYER_PARAMS:
        raise FieldError("block", f"make at most {MAX_LAYER_PARAMS:,} parameters", size, "Make it smaller.")


def _output_shape(layer: nn.Module, shape: torch.Size) -> torch.Size:
    """The output shape of a layer, found by passing an empty batch through it with uninitialised weights.

    A meta tensor would do as well, but PyTorch imports its compiler for that, which takes more than a second.

    Raises:
        FieldError: If the layer does not fit.
    """
    tensors = dict((*layer.named_parameters(), *layer.named_buffers()))
    unwritten = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu") for name, tensor in tensors.items()}
    hooks = [module.register_forward_pre_hook(_check_fits) for module in layer.modules()]
    layer.eval()  # in training, batch norm requires more than one value per channel
    try:
        with torch.no_grad():
            output: Tensor = functional_call(layer, unwritten, (torch.empty((0, *shape[1:]), device="cpu"),))
    finally:
        layer.train()
        for hook in hooks:
            hook.remove()
    return torch.Size((shape[0], *output.shape[1:]))


def _check_fits(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if isinstance(module, nn.GroupNorm):
        _check_group_norm(module, inputs[0])
    elif isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        _check_kernel(module, inputs[0])


def _check_group_norm(module: nn.GroupNorm, images: Tensor) -> None:
    if images.shape[1:].numel() == module.num_groups:
        kind = "layer" if module.num_groups == 1 else "group"
        rule = "have more than one value to normalise over"
        raise FieldError("norm", rule, kind, "Set norm: none, or give it more channels or pixels.")


def _check_kernel(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, images: Tensor) -> None:
    size, padding, dilation = (
        min(images.shape[-2:]),
        _first(module.padding),
        _first(getattr(module, "dilation", 1)),
    )
    largest = (size + 2 * padding - 1) // dilation + 1
    kernel_size = _first(module.kernel_size)
    if kernel_size > largest:
        rule = f"be at most {largest}: its input is {size} px high or wide"
        raise FieldError("kernel_size", rule, kernel_size, "Lower it, or set padding.")


def _first(value: int | str | tuple[int, ...]) -> int:
    assert not isinstance(value, str), "no block uses padding='same'"
    return value[0] if isinstance(value, tuple) else value


def _starved_norms(network: Network, config: RunConfig) -> Iterator[str]:
    """Batch norm can't train on one value per channel, as in a last batch of one image at one pixel."""
    size = config.trainer.batch_size
    if size != 1 and config.num_train_images % size != 1:
        return
    pixels: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: pixels.append(inputs[0].shape[2:].numel()))
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    _output_shape(network, torch.Size((1, *config.info.shape)))
    for hook in hooks:
        hook.remove()
    if 1 in pixels:
        rule = f"not leave one of {config.num_train_images:,} images for the last batch, with batch norm on one pixel"
        yield problem("trainer.batch_size", rule, size, "Change it by one, for example.")


def _unused_options(model: ModelConfig) -> Iterator[str]:
    takers = (
        name
        for name, spec in model.layers.items()
        if "dropout" in BLOCKS.section(spec["block"]).model_fields and "dropout" not in spec and not spec.get("bare")
    )
    if model.dropout and next(takers, None) is None:
        yield problem("model.dropout", "be 0 if no layer uses it", model.dropout, "Set it in a layer.")
