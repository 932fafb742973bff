"""What a scheduler returns: functions of the position, so that it has no state to save."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """Learning rate and momentum over a training, as pure functions of the step and of the scores so far.

    `lr` maps a step, counted from 0 over the whole training, to the factor on the optimizer's learning rate, and
    `momentum` to the momentum: that of SGD, or beta1 of Adam. `after` maps the watched values of the evaluations so
    far, one for each evaluated epoch, to one more factor on the learning rate.
    """

    lr: Callable[[int], float]
    momentum: Callable[[int], float] | None = None
    after: Callable[[Sequence[float]], float] | None = None

    def checked(self, fault: Callable[[str, object], Exception]) -> Schedule:
        """The same schedule, which raises a fault, made of a rule and a value, instead of returning a wrong value."""

        def within(rule: str, end: float, function: Callable[[Any], float] | None) -> Any:
            def value_at(position: Any) -> float:
                value = function(position)  # type: ignore[misc]
                if not _is_number(value, end):
                    raise fault(rule, value)
                return value

            return function and value_at

        factor = "give a finite factor of the learning rate, at least 0"
        momentum = within("give a momentum in [0, 1)", 1.0, self.momentum)
        return Schedule(within(factor, math.inf, self.lr), momentum, within(factor, math.inf, self.after))

    def each_epoch(self, steps_per_epoch: int) -> Schedule:
        """The same schedule, its steps taken as epochs: nothing changes within an epoch."""

        def held(of_epoch: Callable[[int], float]) -> Callable[[int], float]:
            return lambda step: of_epoch(step // steps_per_epoch)

        return Schedule(held(self.lr), held(self.momentum) if self.momentum else None, self.after)


def _is_number(value: Any, end: float) -> bool:
    """Whether a value is a number in [0, end) that can be multiplied by a float; one of NumPy or a tensor will do."""
    try:
        return math.isfinite(1.0 * value) and bool(0 <= value < end)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: of a tensor with several values
        return False


def is_loss(watch: str) -> bool:
    """Whether a watched value, such as `val_loss`, is better when it is lower; an accuracy is better when higher."""
    return watch.endswith("_loss")
