from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from era_cnn.config.choices import OPTIMIZERS
from era_cnn.training.optimizers import make_optimizer
from tests.conftest import config_of
from tests.helpers import section_of

PYTORCHS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}
"""All but Muon, which is two of PyTorch's: see test_muon.py."""

FUSED = {"sgd", "adam", "adamw", "adagrad"}
OPTIONS: dict[str, dict[str, object]] = {
    "sgd": {"momentum": 0.9, "dampening": 0.3},
    "adam": {"betas": [0.8, 0.99], "eps": 1e-7, "amsgrad": True},
    "rmsprop": {"alpha": 0.8, "eps": 1e-7, "momentum": 0.5, "centered": True},
    "adagrad": {"lr_decay": 0.1, "eps": 1e-7},
    "adadelta": {"rho": 0.8, "eps": 1e-5},
    "nadam": {"betas": [0.8, 0.99], "eps": 1e-7, "momentum_decay": 0.01},
}


def kernel_of(name: str) -> str:
    return "fused" if name in FUSED else "foreach"


def test_every_optimizer_is_compared_with_pytorchs() -> None:
    assert {*PYTORCHS, "muon"} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", PYTORCHS)
def test_an_optimizer_takes_the_options_of_its_config(name: str) -> None:
    config = config_of(f"optimizer={name}", "optimizer.lr=0.123", "optimizer.weight_decay=0.5").optimizer
    optimizer = make_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, PYTORCHS[name])
    assert optimizer.defaults[kernel_of(name)] is True
    for option, value in config.model_dump(exclude={"name", "weight_decay_on"}).items():
        expected = tuple(value) if isinstance(value, list) else value
        assert optimizer.defaults[option] == expected, option
    assert optimizer.defaults["lr"] == 0.123
    assert optimizer.defaults["weight_decay"] == 0.5


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, OPTIONS.get(name, {"betas": [0.8, 0.99], "eps": 1e-7})) for name in PYTORCHS),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("adamw", {"amsgrad": True, "betas": [0.9, 0.999], "eps": 1e-8}),
    ],
)
def test_optimizers_are_pytorchs(name: str, more: dict[str, object]) -> None:
    options = {"lr": 0.1, "weight_decay": 0.01, **more}
    theirs_of = PYTORCHS[name]
    weights = [torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))) for _ in range(2)]
    ours = make_optimizer(section_of(OPTIMIZERS, name, **options), [weights[0]])
    theirs = theirs_of([weights[1]], **{kernel_of(name): True}, **options)
    assert isinstance(ours, theirs_of)
    for step in range(5):
        for weight in weights:
            weight.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        ours.step()
        theirs.step()
        assert torch.equal(*weights)
    assert not weights[0].grad.requires_grad
    state = copy.deepcopy(theirs.state_dict())
    ours.load_state_dict(state)
    assert ours.state_dict()["param_groups"] == state["param_groups"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_can_leave_out_norms_biases_and_slopes(name: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(2), nn.Flatten(), nn.Linear(2, 3))
    more = {"weight_decay": 0.5, "weight_decay_on": "weights"}
    config = config_of(f"optimizer={name}", *(f"optimizer.{key}={value}" for key, value in more.items())).optimizer
    optimizer = make_optimizer(config, network.parameters())
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = [([names[each] for each in group["params"]], group["weight_decay"]) for group in optimizer.param_groups]
    assert groups == [
        (["0.weight", "4.weight"], 0.5),
        (["0.bias", "1.weight", "1.bias", "2.weight", "4.bias"], 0.0),
    ]
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(3):
        optimizer.step()
    moved = {key for key, tensor in network.named_parameters() if not torch.equal(before[key], tensor)}
    assert moved == {"0.weight", "4.weight"}


def test_a_network_without_norms_and_biases_has_one_group() -> None:
    section = section_of(OPTIMIZERS, "sgd", lr=0.1, weight_decay=0.1, weight_decay_on="weights")
    (group,) = make_optimizer(section, nn.Linear(2, 3, bias=False).parameters()).param_groups
    assert group["weight_decay"] == 0.1
