"""Sets what a schedule says in an optimizer."""

from __future__ import annotations

import torch

from era_cnn.config.schedule import Schedule


class Rates:
    """The learning rates and the momentum of an optimizer, step by step.

    Args:
        optimizer: The optimizer, with the learning rates of its config.
        schedule: Its `momentum` is that of SGD, or beta1 of an optimizer with betas; other options are left alone.

    Attributes:
        reduced: A factor on all learning rates, which follows from the scores so far.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self._groups, self._schedule = optimizer.param_groups, schedule
        self._base_lrs = [group["lr"] for group in self._groups]
        self.reduced = 1.0

    def lr(self, step: int) -> float:
        """The learning rate of the first group at a step, counted from 0 over the whole training."""
        return float(self._base_lrs[0] * self._factor(step))

    def set(self, step: int) -> None:
        """Sets learning rates and momentum for a step."""
        factor = self._factor(step)
        for group, base_lr in zip(self._groups, self._base_lrs, strict=True):
            group["lr"] = base_lr * factor
            if self._schedule.momentum is not None:
                _set_momentum(group, self._schedule.momentum(step))

    def _factor(self, step: int) -> float:
        return self._schedule.lr(step) * self.reduced


def _set_momentum(group: dict[str, object], momentum: float) -> None:
    betas = group.get("betas")
    if "momentum" in group:  # first, since Muon's groups have the betas of its other parameters, too
        group["momentum"] = momentum
    else:
        assert isinstance(betas, tuple | list), "checked with the config"
        group["betas"] = (momentum, *betas[1:])
