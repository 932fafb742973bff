"""Digests of a training's tensors: what two trainings have to have in common to be the same."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the model's tensors, sorted by name: name, dtype, shape and raw bytes of each.

    Over the values, not over a file: two files with the same tensors may differ.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0".encode())
        digest.update(_described(tensor))
    return digest.hexdigest()


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer, order: Tensor) -> dict[str, str]:
    """The first 16 hexadecimal digits of the SHA-256 of each tensor of a training.

    In the order in which one comes of the other: `order` of the images, then the model's tensors from its first layer
    to its last (`weights.NAME`), then the optimizer's (`optimizer.NAME.MOMENT`). So the first that differs points to
    the cause.

    Args:
        model: As it is after an epoch.
        optimizer: Over that model's parameters.
        order: Of the training images in that epoch, shape (N,).
    """
    tensors = {"order": order}
    tensors |= {f"weights.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})
        tensors |= {
            f"optimizer.{name}.{moment}": torch.as_tensor(value)
            for moment, value in sorted(moments.items())
            if value is not None
        }
    return {name: hashlib.sha256(_described(tensor)).hexdigest()[:16] for name, tensor in tensors.items()}


def _described(tensor: Tensor) -> bytes:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode() + raw.numpy().tobytes()
