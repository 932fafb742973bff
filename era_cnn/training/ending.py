"""Ends a training before its last epoch: pure functions of the history, so that an interruption changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from era_cnn.config.schedule import is_loss
from era_cnn.training.history import EpochMetrics, watched

EndsAfter = Callable[[Sequence[EpochMetrics]], str | None]
"""Why to end a training after these epochs; None to go on."""


def never(history: Sequence[EpochMetrics]) -> str | None:
    """Trains every epoch."""
    return None


def first_of(*rules: EndsAfter) -> EndsAfter:
    """Ends a training as soon as one of the rules does, for its reason."""
    return lambda history: next(filter(None, (rule(history) for rule in rules)), None)


def at_target(watch: str, accuracy: float) -> EndsAfter:
    """Ends a training when the accuracy on the split of `watch` reaches the target."""
    name = f"{watch.partition('_')[0]}_accuracy"

    def ends(history: Sequence[EpochMetrics]) -> str | None:
        reached = any(value >= accuracy for value in watched(history, name))
        return f"{name} has reached the target, {accuracy}" if reached else None

    return ends


def without_progress(watch: str, *, patience: int, min_delta: float, min_epochs: int) -> EndsAfter:
    """Ends a training after `patience` evaluations in a row that are not better than the best one by `min_delta`.

    A value that is not a number is not better. At least `min_epochs` are trained.
    """

    def ends(history: Sequence[EpochMetrics]) -> str | None:
        best, num_bad = _progress(watched(history, watch), min_delta, lower=is_loss(watch))
        if num_bad < patience or len(history) < min_epochs:
            return None
        return f"{watch} has not become better than {best:.4g} in {num_bad} evaluations"

    return ends


def _progress(values: Sequence[float], min_delta: float, *, lower: bool) -> tuple[float, int]:
    """The best value, and the number of values since then."""
    sign = 1.0 if lower else -1.0
    best, num_bad = sign * math.inf, 0
    for value in values:
        is_better = sign * value < sign * best - min_delta
        best, num_bad = (value, 0) if is_better else (best, num_bad + 1)
    return best, num_bad
