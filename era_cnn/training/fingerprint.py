"""Digests of a training's tensors, which are equal if two trainings are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from era_cnn.training.state import TrainingState


def weights_sha256(network: nn.Module) -> str:
    """The digest of a network's weights and buffers."""
    return tensors_sha256(network.state_dict())


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensors, sorted by name: name, dtype, shape and raw bytes of each.

    It covers the values rather than a file, since two files with the same tensors may differ.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0".encode())
        digest.update(_described(tensor))
    return digest.hexdigest()


def fingerprint(state: TrainingState, order: Tensor) -> dict[str, str]:
    """The first 16 hexadecimal digits of the SHA-256 of each tensor of a training after an epoch.

    The order of the images (`order`) comes first, then the tensors of the state. Each depends on earlier ones, so the
    first that differs points to the cause.

    Args:
        state: The state after an epoch.
        order: The order of the training images in that epoch, shape (N,).
    """
    tensors = {"order": order, **state.tensors()}
    return {name: hashlib.sha256(_described(tensor)).hexdigest()[:16] for name, tensor in tensors.items()}


def _described(tensor: Tensor) -> bytes:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode() + raw.numpy().tobytes()
