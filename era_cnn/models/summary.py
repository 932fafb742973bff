"""The summary of a network: a row for every layer, with its output shape, parameters and receptive field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torchinfo
from torch import Tensor, nn

from era_cnn.errors import harmless


@dataclass(frozen=True)
class Row:
    """A layer without children: `receptive_field` in pixels of the input image, along one axis."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    params: int
    receptive_field: int


@dataclass(frozen=True)
class Summary:
    """A network's rows and totals.

    `receptive_field` is that of one position before a global pooling, which sees the whole image; `mult_adds` counts a
    multiplication with its addition as one, for one image, over the layers with weights, as torchinfo does.
    """

    rows: tuple[Row, ...]
    params: int
    mult_adds: int
    receptive_field: int

    def table(self) -> str:
        """The rows and totals as text."""
        head = ("layer", "type", "output (C, H, W)", "params", "field")
        body = [
            (
                harmless(row.name),
                f"{row.type}-{i}",
                _shape(row.output_shape),
                f"{row.params:,}",
                f"{row.receptive_field}",
            )
            for i, row in enumerate(self.rows, start=1)
        ]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        lines = [_line(line, widths) for line in (head, tuple("-" * width for width in widths), *body)]
        totals = (
            f"Parameters: {self.params:,}",
            f"Receptive field: {self.receptive_field} px",
            f"Multiply-adds: {self.mult_adds:,} for one image",
        )
        return "\n".join((*lines, "", *totals)) + "\n"


def summarise(network: nn.Module, image_shape: tuple[int, int, int]) -> Summary:
    """Summarises a network, with torchinfo, for one image of shape (C, H, W)."""
    fields = _receptive_fields(network, image_shape)
    device = next(network.parameters()).device
    info = torchinfo.summary(network, input_data=torch.zeros(1, *image_shape, device=device), verbose=0, device=device)
    names = {id(module): name for name, module in network.named_modules()}
    rows = tuple(
        Row(
            name=names[layer.layer_id],
            type=_torch_name(layer.module),
            output_shape=tuple(layer.output_size[1:]),
            params=layer.num_params,
            receptive_field=fields[names[layer.layer_id]],
        )
        for layer in info.summary_list
        if layer.is_leaf_layer
    )
    return Summary(rows, info.total_params, info.total_mult_adds, _local_field(network, rows))


def _local_field(network: nn.Module, rows: Sequence[Row]) -> int:
    """The widest field before a pooling to one pixel; after that, each position sees the whole image."""
    widest = 1
    for row in rows:
        pools = isinstance(network.get_submodule(row.name), nn.AvgPool2d | nn.MaxPool2d)
        if pools and row.output_shape[1:] == (1, 1):
            break
        widest = max(widest, row.receptive_field)
    return widest


def _receptive_fields(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Passes one image through the layers, and tracks the receptive field and pixel distance of each tensor.

    A kernel of k pixels that are `jump` input pixels apart widens the field by (k - 1) · jump; a stride s makes them
    s · jump apart (Araujo, Norris and Sim 2019, Distill). The field of a sum of branches is that of the widest branch:
    a tensor that no layer produced gets the widest field so far.
    """
    seen: dict[int, tuple[Tensor, int, int]] = {}  # by id; keeping the tensor alive keeps its id unique
    fields: dict[str, int] = {}
    widest = (1, 1)

    def follow(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal widest
        _, field, jump = seen.get(id(inputs[0]), (None, *widest))
        field += (_size(module, "dilation") * (_size(module, "kernel_size") - 1)) * jump
        jump *= _size(module, "stride")
        widest = (max(widest[0], field), max(widest[1], jump))
        seen[id(output)] = (output, field, jump)
        fields[name] = field

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: follow(name, module, inputs, output)

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    was_training = network.training
    images = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
    seen[id(images)] = (images, 1, 1)
    try:
        with torch.no_grad():
            network.eval()(images)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return fields


def _size(module: nn.Module, name: str) -> int:
    value = getattr(module, name, 1)
    return int(value[0] if isinstance(value, tuple) else value)


def _torch_name(module: nn.Module) -> str:
    """The name of the torch.nn class that a layer is or extends; otherwise the name of its own class."""
    names = [cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn")]
    return names[0] if names[0] != "Module" else type(module).__name__


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Joins cells to a line: text aligned to the left, numbers to the right."""
    pairs = zip(cells, widths, strict=True)
    return "  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(pairs)).rstrip()
