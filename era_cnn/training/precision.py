"""The arithmetic of a network: full precision, or bfloat16 where PyTorch's autocast considers it safe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which a network computes in `precision`: fp32 or bf16. Weights and their updates stay in fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
