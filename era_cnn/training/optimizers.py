"""Optimizers by name, with PyTorch's own options; all parameters are updated by one fused kernel.

Torch is imported when an optimizer is created, so that a config can be checked without it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from era_cnn.config.choices import OPTIMIZERS, optimizer
from era_cnn.config.sections import Choice, FieldError

if TYPE_CHECKING:
    import torch
    from torch import nn

LearningRate = Annotated[float, Field(gt=0, le=1e6, description="the learning rate, greater than 0")]
WeightDecay = Annotated[float, Field(ge=0, le=1e6, description="the weight decay, 0 for none")]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[
    list[Beta],
    Field(min_length=2, max_length=2, description="the decay rates of both moments, as [0.9, 0.999]"),
]
Eps = Annotated[float, Field(gt=0, le=1, description="the term added to the denominator, as 1e-8")]


def _nesterov_needs_momentum(section: Any) -> None:
    if section.nesterov and section.momentum == 0:
        advice = "Set optimizer.momentum=0.9, for example."
        raise FieldError("nesterov", "be false without momentum", True, advice)


@optimizer("sgd", check=_nesterov_needs_momentum)
def sgd(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    momentum: Annotated[float, Field(ge=0, lt=1, description="the momentum, in [0, 1)")] = 0.0,
    weight_decay: WeightDecay = 0.0,
    nesterov: Annotated[bool, Field(description="true or false: whether the momentum is Nesterov's")] = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent."""
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
    return fused("SGD", parameters, **options)


@optimizer("adam")
def adam(
    parameters: Iterable[nn.Parameter], *, lr: LearningRate, betas: Betas, eps: Eps, weight_decay: WeightDecay = 0.0
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2014, arXiv 1412.6980)."""
    return fused("Adam", parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@optimizer("adamw")
def adamw(
    parameters: Iterable[nn.Parameter], *, lr: LearningRate, betas: Betas, eps: Eps, weight_decay: WeightDecay = 0.0
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101)."""
    return fused("AdamW", parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def make_optimizer(section: Choice, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a section over some parameters.

    Raises:
        FieldError: If the fields of the section contradict each other.
    """
    made: torch.optim.Optimizer = OPTIMIZERS.make(section.name, section, parameters=parameters)
    return made


def fused(name: str, parameters: Iterable[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """PyTorch's optimizer of that name, with one fused kernel that updates all parameters."""
    made: torch.optim.Optimizer = _without_compiler(name)(parameters, fused=True, **options)
    return made


@functools.cache
def _without_compiler(name: str) -> Any:
    """PyTorch's optimizer without the wrappers that PyTorch adds to its methods for `torch.compile`.

    The wrappers import the compiler, which nothing here uses and which costs a second at each start, and 170 MiB.
    """
    import torch

    optimizer_class = getattr(torch.optim, name)
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {method: inspect.unwrap(getattr(optimizer_class, method)) for method in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer_class.step))
    return type(name, (optimizer_class,), methods)
