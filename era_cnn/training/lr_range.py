"""A learning-rate range test (Smith 2015, arXiv 1506.01186): the loss while the learning rate rises exponentially."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from era_cnn.config.schedule import Schedule
from era_cnn.training.loop import Step

BURN_IN = 0.05
"""The share of the steps whose losses count for nothing but the smoothing, so that a lucky first batch does no harm."""

SMOOTHED = 0.05
"""The share of the steps over which the smoothed loss looks back."""

DIVERGED = 4.0
"""The loss has diverged if, smoothed, it is so many times its lowest value, and higher than after the burn-in."""

FALLEN = 0.02
"""By which share of its value after the burn-in the smoothed loss must fall at least: less is noise."""


@dataclass(frozen=True)
class Point:
    """A step, from 0: the learning rate of the optimizer, the loss of the batch in nats, and the smoothed loss."""

    step: int
    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class Curve:
    """The points of a test, why they end, and the learning rate of the lowest smoothed loss.

    If there is no such rate, `problem` says why.
    """

    points: tuple[Point, ...]
    ended: str
    lowest_lr: float | None
    problem: str = ""


class Ended(Exception):  # noqa: N818 - no error
    """Ends the training of a test."""


class RangeTest:
    """Follows a training whose learning rate rises from `start` to `end` in so many steps.

    Args:
        start: The first learning rate.
        end: The last one.
        steps: The number of steps.
    """

    def __init__(self, *, start: float, end: float, steps: int) -> None:
        self._start, self._end, self._steps = start, end, steps
        self._keep = 1 - 1 / (SMOOTHED * steps)
        self._burn_in = round(BURN_IN * steps)
        self._running = 0.0
        self._points: list[Point] = []

    def schedule(self, base_lr: float, momentum: float | None) -> Schedule:
        """The schedule of the test, for an optimizer with this learning rate; the momentum is constant."""

        def factor(step: int) -> float:
            return self._start / base_lr * math.pow(self._end / self._start, step / (self._steps - 1))

        return Schedule(factor, None if momentum is None else lambda step: momentum)

    def on_step(self, step: Step) -> None:
        """Adds a step.

        Raises:
            Ended: If it was the last one, or the loss diverged.
        """
        loss = step.tally.last_loss.item()
        if not math.isfinite(loss):
            raise Ended("the loss is no longer finite")
        self._running = self._keep * self._running + (1 - self._keep) * loss
        number = len(self._points)
        self._points.append(Point(number, step.lr, loss, self._running / (1 - self._keep ** (number + 1))))
        counted = self._points[self._burn_in :]
        if counted and counted[-1].smoothed > max(DIVERGED * _lowest(counted).smoothed, counted[0].smoothed):
            raise Ended("the loss diverged")
        if number + 1 == self._steps:
            raise Ended("the range is complete")

    def curve(self, ended: str) -> Curve:
        """The outcome; `ended` says why there are no more points."""
        counted = self._points[self._burn_in :]
        ended = f"{ended} after {len(self._points)} of {self._steps} steps"
        lowest_lr, problem = self._judged(counted)
        return Curve(tuple(self._points), ended, lowest_lr, problem)

    def _judged(self, counted: Sequence[Point]) -> tuple[float | None, str]:
        if len(counted) < 2:
            return None, f"the training ended at once, at {self._start:g}: lower --start"
        lowest, first = _lowest(counted), counted[0]
        if lowest.smoothed > (1 - FALLEN) * first.smoothed:
            return None, f"the loss never fell below {first.smoothed:.4g}: widen the range, or check the recipe"
        if lowest.step == self._steps - 1:
            return None, f"the loss still fell at {self._end:g}: raise --end"
        return lowest.lr, ""


def _lowest(points: Sequence[Point]) -> Point:
    return min(points, key=lambda point: point.smoothed)
