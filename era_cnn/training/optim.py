"""Optimizers and learning-rate schedules by name; the one place where epochs become steps.

A schedule is a pure function of the step: the state of a training is its position, nothing else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

Schedule = Callable[[int], float]
"""From a step, counted from 0 over the whole training, to the factor on the optimizer's learning rate."""


def _without_compiler(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The same optimizer, with the methods that PyTorch wraps for `torch.compile` unwrapped.

    The wrappers import the compiler, which nothing here uses: a second at each start, and 170 MiB.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": _without_compiler(torch.optim.SGD),
    "adam": _without_compiler(torch.optim.Adam),
    "adamw": _without_compiler(torch.optim.AdamW),
}


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """The optimizer called `name`, with PyTorch's own options; all parameters are updated by one fused kernel."""
    return OPTIMIZERS[name](parameters, fused=True, **options)


def make_schedule(name: str, *, epochs: int, steps_per_epoch: int, **options: float) -> Schedule:
    """The schedule called `name`; every option that ends in `_epochs` is a duration, converted here to steps."""
    in_steps = {
        key.removesuffix("_epochs") + "_steps" if key.endswith("_epochs") else key: (
            max(1, round(value * steps_per_epoch)) if key.endswith("_epochs") and value else value
        )
        for key, value in options.items()
    }
    return SCHEDULES[name](total_steps=epochs * steps_per_epoch, **in_steps)


def constant(*, total_steps: int) -> Schedule:
    """The learning rate throughout."""
    return lambda step: 1.0


def step_decay(*, total_steps: int, every_steps: int, gamma: float) -> Schedule:
    """Times gamma after every `every_steps`."""
    return lambda step: float(gamma ** (step // every_steps))


def one_cycle(*, total_steps: int, warmup_steps: int, div_factor: float, final_div_factor: float) -> Schedule:
    """From 1 / div_factor to 1 and down to 1 / (div_factor · final_div_factor), each along half a cosine.

    The peak is at step `warmup_steps - 1`, as in PyTorch's OneCycleLR.
    """
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    peak = warmup_steps - 1

    def factor(step: int) -> float:
        if step <= peak:
            return _cosine(first, 1.0, step / peak) if peak else 1.0
        return _cosine(1.0, last, (step - peak) / (total_steps - 1 - peak))

    return factor


def cosine(*, total_steps: int, warmup_steps: int, final_factor: float) -> Schedule:
    """A linear warm-up that ends at 1, then half a cosine down towards `final_factor`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return _cosine(1.0, final_factor, (step - warmup_steps) / (total_steps - warmup_steps))

    return factor


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step_decay,
    "one_cycle": one_cycle,
    "cosine": cosine,
}
