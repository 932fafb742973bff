"""What happens to the gradients between the backward pass and the update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Gradients:
    """An L1 penalty and two limits, applied in the order of the fields.

    `l1` is the factor of the sum of the magnitudes of all parameters: it adds its gradient, l1 · sign(w), and leaves
    the loss that is shown alone. `clip_value` limits each gradient, `clip_norm` the Euclidean norm of all together.
    """

    l1: float = 0.0
    clip_value: float | None = None
    clip_norm: float | None = None

    def adjust(self, parameters: Iterable[nn.Parameter]) -> None:
        """Changes the gradients in place; parameters without one are left alone."""
        trained = [parameter for parameter in parameters if parameter.grad is not None]
        if self.l1:
            _add_l1(trained, self.l1)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(trained, self.clip_value)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(trained, self.clip_norm)


UNCHANGED = Gradients()


@torch.no_grad()
def _add_l1(parameters: Iterable[nn.Parameter], l1: float) -> None:
    for parameter in parameters:
        assert parameter.grad is not None, "only those with a gradient are given"
        parameter.grad.add_(parameter.sign(), alpha=l1)
