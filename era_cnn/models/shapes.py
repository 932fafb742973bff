"""Shapes, and whether a layer fits its input: found by passing an empty batch through it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from era_cnn.config.sections import FieldError
from era_cnn.models import layers


def pass_empty(module: nn.Module, *shapes: Sequence[int]) -> Tensor:
    """The output of an empty batch, in evaluation mode, with uninitialised weights; hooks are called.

    A meta tensor would do as well, but PyTorch imports its compiler for that, which takes more than a second.

    Args:
        module: A layer, or a network. Its weights may be on the meta device.
        shapes: The shape of each input, with any first dimension.
    """
    tensors = dict((*module.named_parameters(), *module.named_buffers()))
    unwritten = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu") for name, tensor in tensors.items()}
    inputs = tuple(torch.empty((0, *shape[1:]), device="cpu") for shape in shapes)
    was_training = module.training
    module.eval()  # in training, batch norm requires more than one value per channel
    try:
        with torch.no_grad():
            output: Tensor = functional_call(module, unwritten, inputs)
    finally:
        module.train(was_training)
    return output


def output_shape(layer: nn.Module, shapes: Sequence[torch.Size]) -> torch.Size:
    """The output shape of a layer, of its input shapes.

    Raises:
        FieldError: If the layer does not fit.
    """
    hooks = [module.register_forward_pre_hook(_check_fits) for module in layer.modules()]
    try:
        output = pass_empty(layer, *shapes)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.Size((shapes[0][0], *output.shape[1:]))


def _check_fits(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if isinstance(module, nn.GroupNorm):
        _check_group_norm(module, inputs[0])
    elif isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        _check_kernel(module, inputs[0])
    if isinstance(module, layers.Conv2d) and module.padding_mode != "zeros":
        _check_border(module, inputs[0])


def _check_group_norm(module: nn.GroupNorm, images: Tensor) -> None:
    if images.shape[1:].numel() == module.num_groups:
        kind = "layer" if module.num_groups == 1 else "group"
        rule = "have more than one value to normalise over"
        raise FieldError("norm", rule, kind, "Set norm: none, or give it more channels or pixels.")


def _check_kernel(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, images: Tensor) -> None:
    values = (module.kernel_size, module.padding, getattr(module, "dilation", 1))
    for size, kernel_size, padding, dilation in sorted(zip(images.shape[-2:], *map(_pair, values), strict=True)):
        largest = (size + 2 * padding - 1) // dilation + 1
        if kernel_size > largest:
            rule = f"be at most {largest}: its input is {size} px high or wide"
            field = "kernel_size" if isinstance(module, nn.Conv2d) else "pool_size"
            raise FieldError(field, rule, kernel_size, "Lower it, or set padding.")


def _check_border(module: layers.Conv2d, images: Tensor) -> None:
    size, padding = min(images.shape[-2:]), _pair(module.padding)[0]
    largest = size - 1 if module.padding_mode == "reflect" else size
    if padding > largest and module.padding_mode != "replicate":
        rule = f"be at most {largest} where padding_mode is {module.padding_mode}: its input is {size} px high or wide"
        raise FieldError("padding", rule, padding, "Lower it.")


def _pair(value: int | str | tuple[int, ...]) -> tuple[int, ...]:
    """Height and width."""
    assert not isinstance(value, str), "padding: same is a number by now"
    return value if isinstance(value, tuple) else (value, value)
