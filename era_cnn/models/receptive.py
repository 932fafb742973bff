"""Receptive fields: how many pixels of the input image a position of an output depends on, along one axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from era_cnn.models.shapes import pass_empty


@dataclass(frozen=True)
class Reach:
    """What a position of a tensor sees: `field` pixels; neighbours are `jump` input pixels apart."""

    field: int = 1
    jump: int = 1
    is_global: bool = False
    """Whether it comes from a global pooling, and so from the whole image."""


def receptive_fields(network: nn.Module, image_shape: Sequence[int]) -> tuple[dict[str, int], int]:
    """The field of each module without children, by name, and the widest one before a global pooling.

    A kernel of k pixels that are `jump` input pixels apart widens the field by (k - 1) · jump; a stride s makes them
    s · jump apart (Araujo, Norris and Sim 2019, Distill). A sum, a product or a concatenation has the field of the
    widest of its branches, one after a global pooling excepted.
    """
    fields: dict[str, int] = {}
    local = [1]
    reaches = _Reaches()

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def follow(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            reach = _through(module, reaches.of(inputs), output)
            reaches.put(output, reach)
            fields[name] = reach.field
            if not reach.is_global:
                local.append(reach.field)

        return follow

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(hook(name)) for name, module in leaves]
    try:
        with reaches:
            pass_empty(network, (1, *image_shape))
    finally:
        for each in hooks:
            each.remove()
    return fields, max(local)


def _through(module: nn.Module, reach: Reach, output: Tensor) -> Reach:
    is_global = isinstance(module, nn.AvgPool2d | nn.MaxPool2d) and output.shape[2:].numel() == 1
    return Reach(
        field=reach.field + _size(module, "dilation") * (_size(module, "kernel_size") - 1) * reach.jump,
        jump=reach.jump * _size(module, "stride"),
        is_global=is_global or reach.is_global,
    )


def _size(module: nn.Module, name: str) -> int:
    value = getattr(module, name, 1)
    return int(value[0] if isinstance(value, tuple) else value)


class _Reaches(TorchFunctionMode):
    """Remembers the reach of each tensor; the result of a function has the widest of its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Reach]] = {}  # by id; keeping the tensor alive keeps its id unique

    def put(self, tensor: Tensor, reach: Reach) -> None:
        self._known[id(tensor)] = tensor, reach

    def of(self, tensors: Iterable[Tensor]) -> Reach:
        found = [self._known[id(each)][1] for each in tensors if id(each) in self._known]
        found = [reach for reach in found if not reach.is_global] or found or [Reach()]
        return Reach(
            max(reach.field for reach in found), max(reach.jump for reach in found), is_global=found[0].is_global
        )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.put(output, self.of(_tensors(args)))
        return output


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for each in arguments:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)
