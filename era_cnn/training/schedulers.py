"""Schedules by name; only here are durations in epochs converted to steps.

A schedule is a pure function of the step, and for `plateau` of the scores so far, so it has no state to save. Torch is
not imported, so that a config can be checked without it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from era_cnn.config.choices import scheduler
from era_cnn.config.schedule import Schedule, is_loss
from era_cnn.config.sections import FieldError
from era_cnn.errors import amount

Between = Callable[[float, float, float], float]
"""Start and end of a phase and the share that has passed, to the value there."""

Epochs = Annotated[float, Field(gt=0, le=1e6, description="a duration in epochs, greater than 0")]
WarmupEpochs = Annotated[
    float, Field(ge=0, le=1e6, description="the duration of the linear warm-up in epochs, 0 for none")
]
Gamma = Annotated[float, Field(gt=0, le=1, description="the factor, in (0, 1]")]
FinalFactor = Annotated[
    float, Field(ge=0, le=1, description="the last learning rate as a fraction of the optimizer's, 0 to 1")
]
DivFactor = Annotated[float, Field(ge=1, le=1e9, description="the peak divided by the first learning rate, at least 1")]
BaseMomentum = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | None,
    Field(description="the momentum (beta1 of Adam) at the highest learning rate, in (0, 1), null for a constant one"),
]
MaxMomentum = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | None,
    Field(description="the momentum (beta1 of Adam) at the lowest learning rate, in (0, 1), null for a constant one"),
]


def in_steps(epochs: float, steps_per_epoch: int) -> int:
    """A duration in epochs as a number of steps: at least 1, unless the duration is 0."""
    return max(1, round(epochs * steps_per_epoch)) if epochs else 0


def check_warmup(warmup_epochs: float, epochs: int) -> None:
    """Raises a `FieldError` if the warm-up does not end within the training."""
    if warmup_epochs >= epochs:
        rule = f"be shorter than trainer.epochs, {epochs}"
        raise FieldError("warmup_epochs", rule, warmup_epochs, "Lower it.")


def check_fits(field: str, value: object, duration: float, available: float) -> None:
    """Raises a `FieldError` if a phase lasts longer than the epochs that are left for it."""
    if duration > available:
        rule = f"end within the training, which leaves {available:g} epochs"
        raise FieldError(field, rule, value, "Lower it, or raise trainer.epochs.")


def check_momenta(base_momentum: float | None, max_momentum: float | None) -> None:
    """Raises a `FieldError` unless both bounds of the momentum are given in order, or none."""
    if (base_momentum is None) != (max_momentum is None):
        missing = "base_momentum" if base_momentum is None else "max_momentum"
        advice = "Give both, as 0.85 and 0.95, or neither."
        raise FieldError(missing, "be given with the other bound of the momentum", None, advice)
    if base_momentum is not None and max_momentum is not None and base_momentum > max_momentum:
        rule = f"be at most scheduler.max_momentum, {max_momentum}"
        raise FieldError("base_momentum", rule, base_momentum, "Swap the two.")


def warmed_up(curve: Callable[[int], float], warmup_steps: int) -> Callable[[int], float]:
    """A linear warm-up that ends at 1, and then the curve from its beginning."""
    return lambda step: (step + 1) / warmup_steps if step < warmup_steps else curve(step - warmup_steps)


@scheduler("constant")
def constant(epochs: int, steps_per_epoch: int, *, warmup_epochs: WarmupEpochs = 0.0) -> Schedule:
    """The optimizer's learning rate throughout."""
    check_warmup(warmup_epochs, epochs)
    return Schedule(warmed_up(lambda step: 1.0, in_steps(warmup_epochs, steps_per_epoch)))


@scheduler("step")
def step_decay(
    epochs: int, steps_per_epoch: int, *, every_epochs: Epochs, gamma: Gamma, warmup_epochs: WarmupEpochs = 0.0
) -> Schedule:
    """The learning rate times `gamma` after every `every_epochs`, counted from the beginning of the training."""
    check_warmup(warmup_epochs, epochs)
    every_steps, warmup_steps = (in_steps(each, steps_per_epoch) for each in (every_epochs, warmup_epochs))
    return Schedule(warmed_up(lambda step: float(gamma ** ((step + warmup_steps) // every_steps)), warmup_steps))


@scheduler("multi_step")
def multi_step(
    epochs: int,
    steps_per_epoch: int,
    *,
    milestones: Annotated[
        list[Annotated[float, Field(gt=0, le=1e6)]],
        Field(min_length=1, max_length=1000, description="the epochs after which to multiply, as [10, 15]"),
    ],
    gamma: Gamma,
    warmup_epochs: WarmupEpochs = 0.0,
) -> Schedule:
    """The learning rate times `gamma` after each milestone; milestones count from the beginning of the training."""
    check_warmup(warmup_epochs, epochs)
    if sorted(set(milestones)) != milestones:
        raise FieldError("milestones", "be in ascending order", milestones, "Sort them.")
    if milestones[-1] >= epochs:
        rule = f"lie within trainer.epochs, {epochs}"
        raise FieldError("milestones", rule, milestones, "Remove those that are never reached.")
    warmup_steps = in_steps(warmup_epochs, steps_per_epoch)
    at = [in_steps(milestone, steps_per_epoch) for milestone in milestones]
    return Schedule(
        warmed_up(lambda step: float(gamma ** sum(step + warmup_steps >= each for each in at)), warmup_steps)
    )


@scheduler("exponential")
def exponential(epochs: int, steps_per_epoch: int, *, gamma: Gamma, warmup_epochs: WarmupEpochs = 0.0) -> Schedule:
    """The learning rate times `gamma` for each epoch: smoothly, or with `update: epoch` after each epoch."""
    check_warmup(warmup_epochs, epochs)
    return Schedule(
        warmed_up(lambda step: float(gamma ** (step / steps_per_epoch)), in_steps(warmup_epochs, steps_per_epoch))
    )


@scheduler("polynomial")
def polynomial(
    epochs: int,
    steps_per_epoch: int,
    *,
    power: Annotated[float, Field(gt=0, le=100, description="the exponent, 1 for a line")],
    final_factor: FinalFactor = 0.0,
    warmup_epochs: WarmupEpochs = 0.0,
) -> Schedule:
    """Down to `final_factor` along (1 - share of the training) ** power."""
    check_warmup(warmup_epochs, epochs)
    warmup_steps = in_steps(warmup_epochs, steps_per_epoch)
    total_steps = epochs * steps_per_epoch - warmup_steps

    def factor(step: int) -> float:
        return final_factor + (1 - final_factor) * float((1 - step / total_steps) ** power)

    return Schedule(warmed_up(factor, warmup_steps))


@scheduler("piecewise_linear")
def piecewise_linear(
    epochs: int,
    steps_per_epoch: int,
    *,
    points: Annotated[
        list[Annotated[list[Annotated[float, Field(ge=0, le=1e6)]], Field(min_length=2, max_length=2)]],
        Field(
            min_length=1, max_length=1000, description="pairs of an epoch and a factor, as [[0, 0.1], [5, 1], [20, 0]]"
        ),
    ],
) -> Schedule:
    """Straight lines between points, and constant outside of them; two points at the same epoch make a jump.

    Any table of learning rates can be written this way: a step of the training is at epoch step / steps_per_epoch.
    """
    if any(first[0] > second[0] for first, second in pairwise(points)):
        raise FieldError("points", "be in the order of their epochs", points, "Sort them.")
    check_fits("points", points, points[-1][0], epochs)

    def factor(step: int) -> float:
        epoch = step / steps_per_epoch
        passed = sum(point[0] <= epoch for point in points)
        if passed in (0, len(points)):
            return points[max(0, passed - 1)][1]
        (start, before), (end, after) = points[passed - 1], points[passed]
        return _linear(before, after, (epoch - start) / (end - start))

    return Schedule(factor)


@scheduler("one_cycle")
def one_cycle(
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="the duration of the rise in epochs, greater than 0, null to give pct_start"),
    ] = None,
    pct_start: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        Field(description="the share of the rise in the training, in (0, 1), null to give warmup_epochs"),
    ] = None,
    div_factor: DivFactor,
    final_div_factor: Annotated[
        float, Field(ge=1, le=1e9, description="the first learning rate divided by the last one, at least 1")
    ],
    anneal: Annotated[
        Literal["cosine", "linear"], Field(description="the form of the rise and the descent")
    ] = "cosine",
    three_phase: Annotated[
        bool, Field(description="true or false: whether a descent as long as the rise stands before the last phase")
    ] = False,
    base_momentum: BaseMomentum = None,
    max_momentum: MaxMomentum = None,
) -> Schedule:
    """Up to the optimizer's learning rate and down again (Smith and Topin 2017, arXiv 1708.07120).

    From 1 / div_factor to 1 and down to 1 / (div_factor · final_div_factor). With `three_phase`, as in the paper, first
    down to 1 / div_factor in as many steps as up, then to the end. The momentum mirrors the first two phases, from
    max_momentum down to base_momentum and back. As in PyTorch's OneCycleLR, the peak is at step warmup_steps - 1, or at
    pct_start · total_steps - 1, which may lie between two steps.
    """
    check_momenta(base_momentum, max_momentum)
    last_step = epochs * steps_per_epoch - 1
    peak = _peak(warmup_epochs, pct_start, epochs, steps_per_epoch)
    if three_phase and not 0 < 2 * peak < last_step:
        field, value = ("warmup_epochs", warmup_epochs) if pct_start is None else ("pct_start", pct_start)
        raise FieldError(field, "leave a step for each of the three phases", value, "Choose less than half.")
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    low, high = base_momentum or 0.0, max_momentum or 0.0
    ends = (peak, 2 * peak, last_step) if three_phase else (peak, last_step)
    between = _cosine if anneal == "cosine" else _linear

    def along(values: Sequence[float]) -> Callable[[int], float]:
        return lambda step: _phase(step, ends, values, between)

    lrs = (first, 1.0, first, last) if three_phase else (first, 1.0, last)
    momenta = (high, low, high, high) if three_phase else (high, low, high)
    return Schedule(along(lrs), None if max_momentum is None else along(momenta))


def _peak(warmup_epochs: float | None, pct_start: float | None, epochs: int, steps_per_epoch: int) -> float:
    """The step of the highest learning rate in `one_cycle`."""
    if (warmup_epochs is None) == (pct_start is None):
        advice = "Set the other one to null."
        raise FieldError("pct_start", "be given instead of warmup_epochs, or the other way round", pct_start, advice)
    if warmup_epochs is not None:
        check_warmup(warmup_epochs, epochs)
        return in_steps(warmup_epochs, steps_per_epoch) - 1
    assert pct_start is not None, "one of the two is given"
    peak = pct_start * epochs * steps_per_epoch - 1
    if peak <= 0:
        rule = f"be more than one step of the training, {1 / (epochs * steps_per_epoch):.3g}"
        num_steps = amount(round(epochs * steps_per_epoch), "step")
        advice = f"The training has {num_steps}: raise pct_start or trainer.epochs, or lower trainer.batch_size."
        raise FieldError("pct_start", rule, pct_start, advice)
    return peak


def _phase(step: int, ends: Sequence[float], values: Sequence[float], between: Between) -> float:
    """The value at a step, where phase number i leads from values[i] to values[i + 1] and ends at step ends[i]."""
    number = bisect_left(ends[:-1], step)
    start, end = (0.0, *ends)[number], ends[number]
    share = (step - start) / (end - start) if end > start else 1.0
    return between(values[number], values[number + 1], share)


@scheduler("cosine")
def cosine(
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: WarmupEpochs,
    descent_epochs: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="the epochs from the peak to the lowest learning rate, PyTorch's T_max; null for all others"),
    ] = None,
    final_factor: FinalFactor,
) -> Schedule:
    """A linear warm-up that ends at 1, then down along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983).

    After `descent_epochs`, up along the other half and down again, as PyTorch's CosineAnnealingLR.
    """
    check_warmup(warmup_epochs, epochs)
    warmup_steps = in_steps(warmup_epochs, steps_per_epoch)
    descent_steps = epochs * steps_per_epoch - warmup_steps
    if descent_epochs is not None:
        check_fits("descent_epochs", descent_epochs, descent_epochs, epochs - warmup_epochs)
        descent_steps = in_steps(descent_epochs, steps_per_epoch)
    return Schedule(warmed_up(lambda step: _cosine(1.0, final_factor, step / descent_steps), warmup_steps))


@scheduler("warm_restarts")
def warm_restarts(
    epochs: int,
    steps_per_epoch: int,
    *,
    cycle_epochs: Annotated[float, Field(gt=0, le=1e6, description="the epochs of the first cycle, PyTorch's T_0")],
    cycle_mult: Annotated[
        int,
        Field(ge=1, le=100, description="the length of a cycle divided by that of the one before, PyTorch's T_mult"),
    ] = 1,
    final_factor: FinalFactor = 0.0,
    warmup_epochs: WarmupEpochs = 0.0,
) -> Schedule:
    """Half a cosine again and again, each time from 1 (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    check_warmup(warmup_epochs, epochs)
    check_fits("cycle_epochs", cycle_epochs, cycle_epochs, epochs - warmup_epochs)
    cycle_steps = in_steps(cycle_epochs, steps_per_epoch)

    def factor(step: int) -> float:
        length = cycle_steps
        while step >= length:
            step, length = step - length, length * cycle_mult
        return _cosine(1.0, final_factor, step / length)

    return Schedule(warmed_up(factor, in_steps(warmup_epochs, steps_per_epoch)))


@scheduler("cyclic")
def cyclic(
    epochs: int,
    steps_per_epoch: int,
    *,
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"],
        Field(description="how the peaks develop: equal, halved with each cycle, or times gamma with each step"),
    ],
    up_epochs: Epochs,
    down_epochs: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="the duration of the descent in epochs, null for that of the rise"),
    ] = None,
    div_factor: DivFactor,
    gamma: Annotated[float, Field(gt=0, le=1, description="the factor for each step in the mode exp_range")] = 1.0,
    base_momentum: BaseMomentum = None,
    max_momentum: MaxMomentum = None,
    warmup_epochs: WarmupEpochs = 0.0,
) -> Schedule:
    """Up to the optimizer's learning rate and down to 1 / div_factor of it, in lines (Smith 2015, arXiv 1506.01186).

    As PyTorch's CyclicLR: the momentum moves the other way, between max_momentum and base_momentum.
    """
    check_warmup(warmup_epochs, epochs)
    check_momenta(base_momentum, max_momentum)
    check_fits("up_epochs", up_epochs, up_epochs, epochs - warmup_epochs)
    if down_epochs is not None:
        check_fits("down_epochs", down_epochs, down_epochs, epochs - warmup_epochs)
    if gamma != 1 and mode != "exp_range":
        raise FieldError("gamma", f"be 1 in the mode {mode}", gamma, "Set scheduler.mode=exp_range.")
    up, warmup_steps = in_steps(up_epochs, steps_per_epoch), in_steps(warmup_epochs, steps_per_epoch)
    length = up + in_steps(up_epochs if down_epochs is None else down_epochs, steps_per_epoch)

    def height(step: int) -> float:
        """How far a step is from the lowest learning rate, 0 to 1."""
        cycle, within = divmod(step, length)
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**step}[mode]
        return scale * (within / up if within <= up else (length - within) / (length - up))

    lr = warmed_up(lambda step: _linear(1 / div_factor, 1.0, height(step)), warmup_steps)
    if base_momentum is None or max_momentum is None:
        return Schedule(lr)
    low, high = base_momentum, max_momentum
    return Schedule(lr, lambda step: _linear(high, low, height(max(0, step - warmup_steps))))


@scheduler("plateau")
def plateau(
    epochs: int,
    steps_per_epoch: int,
    watch: str,
    *,
    factor: Annotated[float, Field(gt=0, lt=1, description="the factor of each reduction, in (0, 1)")],
    patience: Annotated[
        int, Field(ge=0, le=10**6, description="the evaluations in a row without a better value that are tolerated")
    ],
    cooldown: Annotated[
        int, Field(ge=0, le=10**6, description="the evaluations after a reduction that are not counted as bad")
    ] = 0,
    threshold: Annotated[
        float, Field(ge=0, lt=1, description="by how much a value must be better than the best one, in [0, 1)")
    ] = 1e-4,
    threshold_mode: Annotated[
        Literal["rel", "abs"], Field(description="whether the threshold is relative to the best value or absolute")
    ] = "rel",
    min_factor: Annotated[
        float, Field(ge=0, le=1, description="the lowest learning rate as a fraction of the optimizer's, 0 for none")
    ] = 0.0,
    warmup_epochs: WarmupEpochs = 0.0,
) -> Schedule:
    """The learning rate times `factor` when `trainer.watch` has not become better for more than `patience` evaluations.

    As PyTorch's ReduceLROnPlateau with eps=0: with patience 2, the third bad evaluation in a row reduces the learning
    rate for the next epoch. A loss must fall and an accuracy rise; a value that is not a number is bad. Only
    evaluations count, so `trainer.eval_every_epochs` stretches the patience.
    """
    check_warmup(warmup_epochs, epochs)
    sign = 1.0 if is_loss(watch) else -1.0

    def is_better(value: float, best: float) -> bool:
        bound = best * (1 - sign * threshold) if threshold_mode == "rel" else best - sign * threshold
        return sign * value < sign * bound

    def after(watched: Sequence[float]) -> float:
        best, num_bad, cooling, reduced = sign * math.inf, 0, 0, 1.0
        for value in watched:
            best, num_bad = (value, 0) if is_better(value, best) else (best, num_bad + 1)
            if cooling:
                cooling, num_bad = cooling - 1, 0
            if num_bad > patience:
                reduced, cooling, num_bad = max(reduced * factor, min_factor), cooldown, 0
        return reduced

    return Schedule(warmed_up(lambda step: 1.0, in_steps(warmup_epochs, steps_per_epoch)), after=after)


def _linear(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
