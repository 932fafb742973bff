"""Muon for networks whose weights are not matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from era_cnn.training.optimizers import without_compiler

AdamW: Any = without_compiler("AdamW")
FOR_MATRICES = ("momentum", "nesterov", "adjust_lr_fn")
"""The options of a group whose parameters Muon updates; other groups have none of them."""


class Muon(AdamW):  # type: ignore[misc]
    """AdamW whose groups with the options `FOR_MATRICES` are updated by PyTorch's Muon instead.

    PyTorch's takes matrices alone. A weight (C, …) is updated as the matrix (C, all others), so a convolution as the
    linear layer that it applies to each patch. Weight decay is decoupled in both.
    """

    param_groups: list[dict[str, Any]]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores what is loaded or copied; AdamW's own expects its moments for every parameter."""
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates all parameters that have a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not _has_matrices(group)]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in filter(_has_matrices, groups):
            self._update_matrices(group)

    def _update_matrices(self, group: dict[str, Any]) -> None:
        """One step of a new optimizer of PyTorch's on matrices, whose momentum is kept in the state of the weights."""
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        matrices = [nn.Parameter(_as_matrix(weight)) for weight in weights]
        options = {key: group[key] for key in ("lr", "weight_decay", *FOR_MATRICES)}
        optimizer = without_compiler("Muon")(matrices, **options)
        for weight, matrix in zip(weights, matrices, strict=True):
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            matrix.grad = _as_matrix(weight.grad)
            optimizer.state[matrix]["momentum_buffer"] = _as_matrix(self.state[weight]["momentum_buffer"])
        optimizer.step()
        for weight, matrix in zip(weights, matrices, strict=True):
            weight.copy_(matrix.view(weight.shape))
            self.state[weight]["momentum_buffer"].copy_(optimizer.state[matrix]["momentum_buffer"].view(weight.shape))


def _as_matrix(weight: Tensor) -> Tensor:
    """A copy of a weight (C, …) as the matrix (C, all others), row by row, however the weight is laid out."""
    return weight.detach().clone(memory_format=torch.contiguous_format).view(len(weight), -1)


def _has_matrices(group: dict[str, Any]) -> bool:
    return FOR_MATRICES[0] in group
