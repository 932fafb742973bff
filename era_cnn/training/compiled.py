"""A network's training pass through PyTorch's compiler, which fuses what lies between the convolutions.

Evaluation, and batches of another size such as the last one of an epoch, take the normal pass. Importing this module
does not import the compiler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from era_cnn.data.batches import Batch
from era_cnn.models.layers import Dropout
from era_cnn.training.objective import Objective, kept

OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"deterministic": True, "compile_threads": 1}
"""Settings of the compiler: it never chooses code by measuring it, and leaves no processes behind."""


class CompiledPass:
    """The forward pass of a network in training, for images of one shape (B, C, H, W) to logits (B, K).

    Compiled code draws no random numbers: those of dropout are drawn before, and passed in.
    """

    def __init__(self, network: nn.Module, batch_size: int) -> None:
        self._network, self._batch_size = network, batch_size
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._dropouts = [layer for layer in network.modules() if isinstance(layer, Dropout)]
        self._shapes: dict[Dropout, torch.Size] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of images; compiled at the first call."""
        if len(images) != self._batch_size or not self._network.training:
            logits: Tensor = self._network(images)
            return logits
        if self._compiled is None:
            self._compiled = torch.compile(self._network.forward, fullgraph=True, dynamic=False, options=OPTIONS)
        if self._dropouts and not self._shapes:
            self._shapes = _input_shapes(self._network, self._dropouts, images)
        for layer, shape in self._shapes.items():
            layer.kept = layer.draw(shape, images.device)
        try:
            return self._compiled(images)
        finally:
            for layer in self._dropouts:
                layer.kept = None


@torch.no_grad()
def _input_shapes(network: nn.Module, layers: list[Dropout], images: Tensor) -> dict[Dropout, torch.Size]:
    """The shape of what each layer gets; the network is evaluated once, which changes nothing in it."""
    shapes: dict[Dropout, torch.Size] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: shapes.update({layer: inputs[0].shape}))
        for layer in layers
    ]
    network.eval()(images)
    network.train()
    for hook in hooks:
        hook.remove()
    return shapes


def compile_pass(objective: Objective, batch: Batch) -> float:
    """Compiles the passes of an objective for batches like this one; returns the seconds that this took.

    The second pass must find what the first one compiled: a block that counts its calls in Python, for example, would
    be compiled again at each step, until the compiler gives up.
    """
    from torch._dynamo import config

    started = time.perf_counter()
    with kept(objective.network, batch.images.device):
        objective.backward(batch)
        with config.patch(error_on_recompile=True):
            objective.backward(batch)
    return time.perf_counter() - started
