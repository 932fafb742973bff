from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from era_cnn.training.lr_range import Curve, Ended, RangeTest


def curve_of(losses: Sequence[float] | Callable[[float], float], steps: int = 100) -> Curve:
    """The outcome of a test from 1e-4 to 1, whose loss is a list or a function of the learning rate."""
    test = RangeTest(start=1e-4, end=1.0, steps=steps)
    schedule = test.schedule(0.5, None)
    for step in range(steps):
        lr = 0.5 * schedule.lr(step)
        loss = losses(lr) if callable(losses) else losses[step]
        done: Any = SimpleNamespace(lr=lr, tally=SimpleNamespace(last_loss=torch.tensor(loss)))
        try:
            test.on_step(done)
        except Ended as ended:
            return test.curve(str(ended))
    raise AssertionError("it must end")


def valley(lr: float) -> float:
    """Lowest at 0.01."""
    return 0.5 + math.log10(lr / 0.01) ** 2


def test_the_rate_rises_exponentially_whatever_that_of_the_optimizer_is() -> None:
    schedule = RangeTest(start=1e-4, end=1.0, steps=101).schedule(0.5, 0.9)
    rates = [0.5 * schedule.lr(step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[50] == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(1.0)
    assert schedule.momentum is not None
    assert schedule.momentum(7) == 0.9
    assert RangeTest(start=1e-4, end=1.0, steps=101).schedule(0.5, None).momentum is None


def test_the_lowest_point_of_a_valley_is_found_a_twentieth_of_the_range_late() -> None:
    curve = curve_of(valley)
    assert curve.lowest_lr is not None
    assert 0.01 < curve.lowest_lr < 0.01 * 10**0.4
    assert curve.ended == "the range is complete after 100 of 100 steps"
    assert curve.problem == ""


def test_a_loss_that_diverges_ends_the_test() -> None:
    curve = curve_of(lambda lr: valley(lr) if lr < 0.05 else 1e6)
    assert re_steps(curve) == 68
    assert curve.lowest_lr == pytest.approx(0.01, rel=2)


def re_steps(curve: Curve) -> int:
    assert curve.ended.startswith("the loss diverged after ")
    return int(curve.ended.split()[4])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_counts_from_the_first_loss_on_that_is_not_finite(value: float) -> None:
    curve = curve_of(lambda lr: valley(lr) if lr < 0.05 else value)
    assert curve.ended == "the loss is no longer finite after 67 of 100 steps"
    assert len(curve.points) == 67
    assert all(math.isfinite(point.smoothed) for point in curve.points)
    assert curve.lowest_lr == pytest.approx(0.01, rel=2)


def test_a_lucky_first_batch_does_not_end_the_test() -> None:
    losses = [0.001, *([2.3] * 40), *[2.3 - 0.05 * step for step in range(40)], *([1.5] * 19)]
    curve = curve_of(losses)
    assert curve.ended == "the range is complete after 100 of 100 steps"
    assert curve.lowest_lr is not None
    assert curve.lowest_lr > 0.1


def test_a_low_loss_does_not_diverge_by_noise() -> None:
    curve = curve_of(lambda lr: 2.0 if lr < 0.01 else 0.01 if lr < 0.1 else 0.5)
    assert curve.ended.startswith("the range is complete")


@pytest.mark.parametrize(
    ("losses", "problem"),
    [
        (lambda lr: 2.3, "the loss never fell below 2.3: widen the range, or check the recipe"),
        (lambda lr: 2.3 + lr, "the loss never fell below 2.3: widen the range, or check the recipe"),
        (lambda lr: 2.3 - lr, "the loss still fell at 1: raise --end"),
        (lambda lr: math.nan, "the training ended at once, at 0.0001: lower --start"),
    ],
)
def test_without_a_lowest_point_the_reason_is_told(losses: Callable[[float], float], problem: str) -> None:
    curve = curve_of(losses)
    assert curve.lowest_lr is None
    assert curve.problem == problem
