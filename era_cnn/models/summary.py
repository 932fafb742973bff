"""The summary of a network: a row for every layer, with its output shape, parameters and receptive field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torchinfo
from torch import nn

from era_cnn.config.choices import before_training
from era_cnn.config.data_info import DataInfo
from era_cnn.errors import harmless
from era_cnn.models.network import Graph
from era_cnn.models.receptive import receptive_fields


@dataclass(frozen=True)
class Row:
    """A layer without children: `receptive_field` in pixels of the input image, along one axis."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    params: int
    mult_adds: int
    receptive_field: int
    inputs: tuple[str, ...] = ()
    """In a graph, for the first row of a layer: the names of the layers whose outputs it takes."""


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

    def to_json(self, info: DataInfo) -> dict[str, Any]:
        """The summary as plain values, together with the description of the data set, for those who have neither."""
        values = asdict(self)
        layers = values.pop("rows")
        return {"image_shape": info.shape, "class_names": info.class_names, **values, "layers": layers}

    def table(self) -> str:
        """The rows and totals as text; that of a graph has a column for what each layer takes."""
        is_graph = any(row.inputs for row in self.rows)
        head = ("layer", "type", "output (C, H, W)", "params", "field", *(["input"] if is_graph else []))
        body = [
            (
                harmless(row.name),
                f"{row.type}-{i}",
                _shape(row.output_shape),
                f"{row.params:,}",
                f"{row.receptive_field}",
                *([harmless(", ".join(row.inputs))] if is_graph else []),
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
    """Summarises a network, with torchinfo, for one image of shape (C, H, W).

    Raises:
        ConfigError: If a block of a plugin can't be used.
    """
    fields, local_field = receptive_fields(network, image_shape)
    device = next(network.parameters()).device
    image = torch.zeros(1, *image_shape, device=device)
    with before_training():
        try:
            info = torchinfo.summary(network, input_data=image, verbose=0, device=device)
        except RuntimeError as error:  # torchinfo's own, whatever a layer has raised
            raise error.__cause__ or error from None
    names = {id(module): name for name, module in network.named_modules()}
    rows = [
        Row(
            name=names[layer.layer_id],
            type=_torch_name(layer.module),
            output_shape=tuple(layer.output_size[1:]),
            params=layer.num_params,
            mult_adds=layer.macs,
            receptive_field=fields[names[layer.layer_id]],
        )
        for layer in info.summary_list
        if layer.is_leaf_layer
    ]
    return Summary(tuple(_with_inputs(network, rows)), info.total_params, info.total_mult_adds, local_field)


def _with_inputs(network: nn.Module, rows: Sequence[Row]) -> Iterator[Row]:
    """The rows; the first one of each layer of a graph has the names of the layer's inputs."""
    left = dict(network.inputs_of) if isinstance(network, Graph) else {}
    for row in rows:
        yield replace(row, inputs=left.pop(row.name.partition(".")[0], ()))


def _torch_name(module: nn.Module) -> str:
    """The name of the torch.nn class that a layer is or extends; otherwise the name of its own class."""
    names = [cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn")]
    return names[0] if names[0] != "Module" else type(module).__name__


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Joins cells to a line: text aligned to the left, numbers (the fourth and fifth) to the right."""
    pairs = zip(cells, widths, strict=True)
    return "  ".join(cell.rjust(w) if i in (3, 4) else cell.ljust(w) for i, (cell, w) in enumerate(pairs)).rstrip()
