"""Measures what each layer of a network costs in training: memory, and the time of a forward and a backward pass.

Shapes: B random images in a batch, (B, C, H, W).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn.config.schema import RunConfig
from era_cnn.errors import amount, harmless, shortened
from era_cnn.models.build import build_from_config
from era_cnn.models.layers import hand_out
from era_cnn.randomness import Stream, generator
from era_cnn.runs.process import device_of, set_up
from era_cnn.training.precision import autocast

COLUMNS = 80
REPEATS = 7
"""The passes of which the median is taken, after one that allocates memory."""


@dataclass(frozen=True)
class LayerCost:
    """What a layer costs for a batch: bytes of its parameters and of its output, seconds of each pass."""

    name: str
    parameter_bytes: int
    activation_bytes: int
    forward_seconds: float
    backward_seconds: float

    @property
    def seconds(self) -> float:
        """Both passes."""
        return self.forward_seconds + self.backward_seconds


@dataclass(frozen=True)
class NetworkCost:
    """The layers in the order in which they run, each measured alone, and the network with its loss as a whole."""

    layers: tuple[LayerCost, ...]
    whole: LayerCost
    batch_size: int
    device: str
    threads: int

    def lines(self) -> Iterator[str]:
        """The table, at most 80 columns wide."""
        head = ("parameters", "activations", "forward", "backward", "share")
        total = sum(layer.seconds for layer in self.layers) or 1.0
        rows = [(layer.name, *_cells(layer), f"{100 * layer.seconds / total:.0f}%") for layer in self.layers]
        rows.append(("whole network", *_cells(self.whole), ""))
        widths = [max(len(row[i + 1]) for row in (("", *head), *rows)) for i in range(len(head))]
        room = COLUMNS - sum(widths) - 2 * len(widths)
        name_width = min(room, max(len(harmless(row[0])) for row in rows))
        on = f"{self.device}, {amount(self.threads, 'thread')}" if self.device == "cpu" else self.device
        yield f"A training step of {self.batch_size} random images ({on}), each layer measured alone:"
        for name, *cells in (("layer", *head), *rows):
            numbers = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            yield "  ".join([shortened(harmless(name), room).ljust(name_width), *numbers]).rstrip()


def _cells(layer: LayerCost) -> tuple[str, ...]:
    times = (f"{1000 * seconds:.2f} ms" for seconds in (layer.forward_seconds, layer.backward_seconds))
    return (_memory(layer.parameter_bytes), _memory(layer.activation_bytes), *times)


def _memory(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def profile_layers(config: RunConfig) -> NetworkCost:
    """Measures the network of a config with its batch size, device, threads and precision.

    A layer is measured alone, on the input that it has within the network. What a block does between its layers, such
    as an addition, only counts in the network as a whole.

    Raises:
        ConfigError: If the network can't be built, or the device is not available.
    """
    device, size = device_of(config), config.trainer.batch_size
    with set_up(config.threads):
        network = build_from_config(config, may_miss_target=True).to(device).to(memory_format=torch.channels_last)
        stream = Stream()
        stream.begin(0)
        hand_out(stream, network.train())
        images = torch.randn(size, *config.info.shape, generator=generator(config.seed, "profile")).to(device)
        labels = torch.arange(size, device=device) % config.info.num_classes

        def with_precision(module: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def call(*inputs: Tensor) -> Tensor:
                with autocast(device, config.precision):
                    return module(*inputs)

            return call

        def loss(images: Tensor) -> Tensor:
            return F.cross_entropy(network(images).float(), labels)

        inputs = _inputs(network, lambda: with_precision(network)(images))
        layers = tuple(_cost(name, module, with_precision(module), given) for name, module, given in inputs)
        whole = _cost("whole network", network, with_precision(loss), [images])
    activations = sum(layer.activation_bytes for layer in layers)
    whole = LayerCost(whole.name, whole.parameter_bytes, activations, whole.forward_seconds, whole.backward_seconds)
    return NetworkCost(layers, whole, size, device.type, config.threads)


def _inputs(network: nn.Module, run: Callable[[], Tensor]) -> list[tuple[str, nn.Module, list[Tensor]]]:
    """Each layer without children with its name and inputs, in the order in which they run."""
    found: list[tuple[str, nn.Module, list[Tensor]]] = []
    names = {module: name for name, module in network.named_modules() if not list(module.children())}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs: found.append((names[module], module, [_copy(each) for each in inputs]))
        )
        for module in names
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _cost(name: str, module: nn.Module, call: Callable[..., Tensor], inputs: Sequence[Tensor]) -> LayerCost:
    forward, backward, output = [], [], inputs[0]
    for _ in range(1 + REPEATS):
        module.zero_grad(set_to_none=True)
        # Copies, since a layer may work in place.
        given = [_copy(each).clone() for each in inputs]
        started = _now(inputs[0].device)
        output = call(*given)
        forward.append(_now(inputs[0].device) - started)
        gradient = torch.ones_like(output)
        started = _now(inputs[0].device)
        if output.requires_grad:
            output.backward(gradient)  # type: ignore[no-untyped-call]
        backward.append(_now(inputs[0].device) - started)
    return LayerCost(
        name=name,
        parameter_bytes=sum(each.numel() * each.element_size() for each in module.parameters()),
        activation_bytes=output.numel() * output.element_size(),
        forward_seconds=statistics.median(forward[1:]),
        backward_seconds=statistics.median(backward[1:]),
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
