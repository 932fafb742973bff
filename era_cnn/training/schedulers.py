"""Learning-rate schedules by name; only here are durations in epochs converted to steps.

A schedule is a pure function of the step, so it has no state to save.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from era_cnn.config.choices import scheduler
from era_cnn.config.sections import FieldError

Schedule = Callable[[int], float]
"""Maps a step, counted from 0 over the whole training, to the factor on the optimizer's learning rate."""

Epochs = Annotated[float, Field(gt=0, le=1e6, description="a duration in epochs, greater than 0")]
WarmupEpochs = Annotated[
    float, Field(ge=0, le=1e6, description="the duration of the linear warm-up in epochs, 0 for none")
]


def in_steps(epochs: float, steps_per_epoch: int) -> int:
    """A duration in epochs as a number of steps: at least 1, unless the duration is 0."""
    return max(1, round(epochs * steps_per_epoch)) if epochs else 0


def check_warmup(warmup_epochs: float, epochs: int) -> None:
    """Raises a `FieldError` if the warm-up does not end within the training."""
    if warmup_epochs >= epochs:
        rule = f"be shorter than trainer.epochs, {epochs}"
        raise FieldError("warmup_epochs", rule, warmup_epochs, "Lower it.")


@scheduler("constant")
def constant() -> Schedule:
    """The optimizer's learning rate throughout."""
    return lambda step: 1.0


@scheduler("step")
def step_decay(
    steps_per_epoch: int,
    *,
    every_epochs: Epochs,
    gamma: Annotated[float, Field(gt=0, le=1, description="the factor, in (0, 1]")],
) -> Schedule:
    """The learning rate times `gamma` after every `every_epochs`."""
    every_steps = in_steps(every_epochs, steps_per_epoch)
    return lambda step: float(gamma ** (step // every_steps))


@scheduler("one_cycle")
def one_cycle(
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: Epochs,
    div_factor: Annotated[
        float, Field(ge=1, le=1e9, description="the peak divided by the first learning rate, at least 1")
    ],
    final_div_factor: Annotated[
        float, Field(ge=1, le=1e9, description="the first learning rate divided by the last one, at least 1")
    ],
) -> Schedule:
    """Up to the optimizer's learning rate and down again, both along a cosine (Smith and Topin 2017).

    From 1 / div_factor to 1 and down to 1 / (div_factor · final_div_factor). The peak is at step `warmup_steps - 1`, as
    in PyTorch's OneCycleLR.
    """
    check_warmup(warmup_epochs, epochs)
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    peak, last_step = in_steps(warmup_epochs, steps_per_epoch) - 1, epochs * steps_per_epoch - 1

    def factor(step: int) -> float:
        if step <= peak:
            return _cosine(first, 1.0, step / peak) if peak else 1.0
        return _cosine(1.0, last, (step - peak) / (last_step - peak))

    return factor


@scheduler("cosine")
def cosine(
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: WarmupEpochs,
    final_factor: Annotated[
        float, Field(ge=0, le=1, description="the last learning rate as a fraction of the optimizer's, 0 to 1")
    ],
) -> Schedule:
    """A linear warm-up that ends at 1, then down along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    check_warmup(warmup_epochs, epochs)
    warmup_steps, total_steps = in_steps(warmup_epochs, steps_per_epoch), epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return _cosine(1.0, final_factor, (step - warmup_steps) / (total_steps - warmup_steps))

    return factor


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
