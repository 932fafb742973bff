"""Optimizers by name, with PyTorch's own options.

All parameters are updated by one fused kernel where PyTorch has one, otherwise by one operation on all of them at a
time. Torch is imported when an optimizer is created, so that a config can be checked without it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from era_cnn.config.choices import OPTIMIZERS, optimizer
from era_cnn.config.sections import Choice, FieldError

if TYPE_CHECKING:
    import torch
    from torch import nn

LearningRate = Annotated[float, Field(gt=0, le=1e6, description="the learning rate, greater than 0")]
WeightDecay = Annotated[float, Field(ge=0, le=1e6, description="the weight decay, 0 for none")]
WeightDecayOn = Annotated[
    Literal["all", "weights"],
    Field(description="what decays: all parameters, or only weights, those of convolutions and linear layers"),
]
Momentum = Annotated[float, Field(ge=0, lt=1, description="the momentum, in [0, 1)")]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[
    list[Beta],
    Field(min_length=2, max_length=2, description="the decay rates of both moments, as [0.9, 0.999]"),
]
Eps = Annotated[float, Field(gt=0, le=1, description="the term added to the denominator, as 1e-8")]
AMSGrad = Annotated[
    bool, Field(description="true or false: whether the largest second moment so far is used, as in AMSGrad")
]


def _decay_fits(section: Any) -> None:
    if section.weight_decay_on != "all" and section.weight_decay == 0:
        advice = "Set optimizer.weight_decay=5e-4, for example."
        raise FieldError("weight_decay_on", "be all without weight decay", section.weight_decay_on, advice)


def _sgd_fits(section: Any) -> None:
    _decay_fits(section)
    if section.dampening and section.momentum == 0:
        raise FieldError("dampening", "be 0 without momentum", section.dampening, "Set optimizer.momentum=0.9.")
    if section.dampening and section.nesterov:
        raise FieldError("dampening", "be 0 with Nesterov's momentum", section.dampening, "Remove one of the two.")
    if section.nesterov and section.momentum == 0:
        advice = "Set optimizer.momentum=0.9, for example."
        raise FieldError("nesterov", "be false without momentum", True, advice)


@optimizer("sgd", check=_sgd_fits)
def sgd(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    momentum: Momentum = 0.0,
    dampening: Annotated[
        float, Field(ge=0, le=1, description="the share of each gradient that the momentum leaves out, 0 for none")
    ] = 0.0,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
    nesterov: Annotated[bool, Field(description="true or false: whether the momentum is Nesterov's")] = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent."""
    options = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
    }
    return fused("SGD", grouped(parameters, weight_decay_on), **options)


@optimizer("adam", check=_decay_fits)
def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    betas: Betas,
    eps: Eps,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
    amsgrad: AMSGrad = False,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2014, arXiv 1412.6980)."""
    options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    return fused("Adam", grouped(parameters, weight_decay_on), **options)


@optimizer("adamw", check=_decay_fits)
def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    betas: Betas,
    eps: Eps,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
    amsgrad: AMSGrad = False,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101)."""
    options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    return fused("AdamW", grouped(parameters, weight_decay_on), **options)


@optimizer("radam", check=_decay_fits)
def radam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    betas: Betas,
    eps: Eps,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
) -> torch.optim.Optimizer:
    """Adam whose first steps are rectified instead of warmed up (Liu et al. 2019, arXiv 1908.03265)."""
    options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
    return foreach("RAdam", grouped(parameters, weight_decay_on), **options)


@optimizer("nadam", check=_decay_fits)
def nadam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    betas: Betas,
    eps: Eps,
    momentum_decay: Annotated[float, Field(ge=0, le=1, description="the decay of the momentum, as 0.004")],
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
) -> torch.optim.Optimizer:
    """Adam with Nesterov's momentum (Dozat 2016)."""
    options = {
        "lr": lr,
        "betas": tuple(betas),
        "eps": eps,
        "momentum_decay": momentum_decay,
        "weight_decay": weight_decay,
    }
    return foreach("NAdam", grouped(parameters, weight_decay_on), **options)


@optimizer("rmsprop", check=_decay_fits)
def rmsprop(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    alpha: Annotated[float, Field(ge=0, lt=1, description="the decay rate of the squared gradients, as 0.99")],
    eps: Eps,
    momentum: Momentum = 0.0,
    centered: Annotated[
        bool, Field(description="true or false: whether the variance replaces the second moment")
    ] = False,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
) -> torch.optim.Optimizer:
    """RMSprop (Tieleman and Hinton 2012; Graves 2013, arXiv 1308.0850)."""
    options = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
    return foreach("RMSprop", grouped(parameters, weight_decay_on), weight_decay=weight_decay, **options)


@optimizer("adagrad", check=_decay_fits)
def adagrad(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    lr_decay: Annotated[float, Field(ge=0, le=1e6, description="the decay of the learning rate, 0 for none")] = 0.0,
    eps: Eps,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
) -> torch.optim.Optimizer:
    """Adagrad (Duchi, Hazan and Singer 2011)."""
    options = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
    return fused("Adagrad", grouped(parameters, weight_decay_on), **options)


@optimizer("adadelta", check=_decay_fits)
def adadelta(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    rho: Annotated[float, Field(ge=0, lt=1, description="the decay rate of both averages, as 0.9")],
    eps: Eps,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
) -> torch.optim.Optimizer:
    """Adadelta (Zeiler 2012, arXiv 1212.5701)."""
    options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
    return foreach("Adadelta", grouped(parameters, weight_decay_on), **options)


@optimizer("muon", check=_decay_fits)
def muon(
    parameters: Iterable[nn.Parameter],
    *,
    lr: LearningRate,
    momentum: Momentum,
    nesterov: Annotated[bool, Field(description="true or false: whether the momentum is Nesterov's")] = True,
    adjust_lr: Annotated[
        Literal["original", "match_rms_adamw"],
        Field(description="what the shape of a weight does to its learning rate; match_rms_adamw suits AdamW's rates"),
    ] = "match_rms_adamw",
    betas: Betas,
    eps: Eps,
    weight_decay: WeightDecay = 0.0,
    weight_decay_on: WeightDecayOn = "all",
) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024) for weights, as matrices with a row for each output; AdamW for norms and biases.

    `momentum` is that of the weights, `betas` and `eps` are AdamW's. Arithmetic is PyTorch's, in bfloat16.
    """
    from era_cnn.training.muon import Muon

    weights, others = _by_kind(parameters)
    groups: list[dict[str, Any]] = [
        {"params": weights, "momentum": momentum, "nesterov": nesterov, "adjust_lr_fn": adjust_lr},
        {"params": others, "weight_decay": weight_decay if weight_decay_on == "all" else 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return Muon(groups, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, fused=True)


def make_optimizer(section: Choice, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a section over some parameters.

    Raises:
        FieldError: If the fields of the section contradict each other.
    """
    made: torch.optim.Optimizer = OPTIMIZERS.make(section.name, section, parameters=parameters)
    return made


def decays(parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight of a convolution or linear layer: not of a norm, no bias and no PReLU slope."""
    return parameter.dim() >= 2


def _by_kind(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that `decays` and the others."""
    parameters = list(parameters)
    return [each for each in parameters if decays(each)], [each for each in parameters if not decays(each)]


def grouped(parameters: Iterable[nn.Parameter], weight_decay_on: str) -> list[Any]:
    """The parameters, or with `weights` a group of those that decay and one of those that do not, in this order."""
    if weight_decay_on == "all":
        return list(parameters)
    weights, others = _by_kind(parameters)
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fused(name: str, parameters: Iterable[Any], **options: Any) -> torch.optim.Optimizer:
    """PyTorch's optimizer of that name, with one fused kernel that updates all parameters."""
    made: torch.optim.Optimizer = without_compiler(name)(parameters, fused=True, **options)
    return made


def foreach(name: str, parameters: Iterable[Any], **options: Any) -> torch.optim.Optimizer:
    """PyTorch's optimizer of that name, with operations that each take all parameters at a time."""
    made: torch.optim.Optimizer = without_compiler(name)(parameters, foreach=True, **options)
    return made


@functools.cache
def without_compiler(name: str) -> Any:
    """PyTorch's optimizer without the wrappers that PyTorch adds to its methods for `torch.compile`.

    The wrappers import the compiler, which nothing here uses and which costs a second at each start, and 170 MiB.
    """
    import torch

    optimizer_class = getattr(torch.optim, name)
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {method: inspect.unwrap(getattr(optimizer_class, method)) for method in wrapped}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer_class.step))
    return type(name, (optimizer_class,), methods)
