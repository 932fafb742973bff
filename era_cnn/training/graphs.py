"""A training step as CUDA graphs: a small network's hundreds of kernels are launched as two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from era_cnn.training.precision import autocast


def record_graphs(model: nn.Module, images: Tensor, precision: str) -> None:
    """Makes `model` replay its forward and backward pass in training, for batches shaped like `images` (B, C, H, W).

    Batches of another shape, such as the last of an epoch, and evaluation use the normal forward pass. Recording runs a
    few steps; their changes to the buffers, batch norm's moments, are undone.
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    usual = model.forward
    with autocast(images.device, precision, cache_enabled=False):  # a cached weight would be stale
        torch.cuda.make_graphed_callables(model.train(), (images,))
    replay = model.forward
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])

    def forward(inputs: Tensor) -> Tensor:
        logits: Tensor = (replay if inputs.shape == images.shape else usual)(inputs)
        return logits

    model.forward = forward
