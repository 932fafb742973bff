"""Networks: layers in sequence, or a graph of layers that name their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

IMAGE = "image"
"""The name of the network's input."""


class Network(nn.Sequential):
    """Layers in sequence; images (B, C, H, W) to logits (B, K)."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits.flatten(1)


class Graph(Network):
    """Layers in order, each with the names of its inputs: earlier layers or `image`; (B, C, H, W) to logits (B, K).

    An output is kept only until the last layer that takes it has run.
    """

    def __init__(self, inputs_of: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.inputs_of = {name: tuple(inputs) for name, inputs in inputs_of.items()}
        self.last_reader = {source: name for name, inputs in inputs_of.items() for source in inputs}

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        outputs = {IMAGE: images}
        for name, layer in self.named_children():
            inputs = [outputs[source] for source in self.inputs_of[name]]
            for source in self.inputs_of[name]:
                if self.last_reader[source] == name:
                    del outputs[source]
            outputs[name] = layer(*inputs)
            del inputs
        return outputs[name].flatten(1)
