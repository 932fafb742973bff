from __future__ import annotations

import copy

import pytest
import torch

from era_cnn.config.choices import OPTIMIZERS
from era_cnn.training.optimizers import make_optimizer
from tests.conftest import config_of
from tests.helpers import section_of

PYTORCHS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_the_options_of_its_config(name: str) -> None:
    config = config_of(f"optimizer={name}", "optimizer.lr=0.123", "optimizer.weight_decay=0.5").optimizer
    optimizer = make_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, PYTORCHS[name])
    assert optimizer.defaults["fused"] is True
    for option, value in config.model_dump(exclude={"name"}).items():
        expected = tuple(value) if isinstance(value, list) else value
        assert optimizer.defaults[option] == expected, option
    assert optimizer.defaults["lr"] == 0.123
    assert optimizer.defaults["weight_decay"] == 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_pytorchs(name: str) -> None:
    more = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {"betas": [0.8, 0.99], "eps": 1e-7}
    options = {"lr": 0.1, "weight_decay": 0.01, **more}
    theirs_of = PYTORCHS[name]
    weights = [torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))) for _ in range(2)]
    ours = make_optimizer(section_of(OPTIMIZERS, name, **options), [weights[0]])
    theirs = theirs_of([weights[1]], fused=True, **options)
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
