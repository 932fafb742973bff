from __future__ import annotations

import pytest
import torch
from torch import nn

from era_cnn.config.choices import OPTIMIZERS
from era_cnn.config.schedule import Schedule
from era_cnn.training.optimizers import make_optimizer
from era_cnn.training.rates import Rates
from tests.helpers import section_of

FIELDS = {"lr": 0.02, "momentum": 0.9, "betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 0.1}


def network_of(memory_format: torch.memory_format) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, bias=False), nn.Flatten(), nn.Linear(8, 30)
    )
    return made.to(memory_format=memory_format)


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weight_decay_on", ["all", "weights"])
@pytest.mark.parametrize(("nesterov", "adjust_lr"), [(True, "match_rms_adamw"), (False, "original")])
def test_weights_are_updated_as_matrices_by_pytorchs_muon_and_the_others_by_its_adamw(
    memory_format: torch.memory_format, weight_decay_on: str, nesterov: bool, adjust_lr: str
) -> None:
    network = network_of(memory_format)
    parameters = list(network.parameters())
    more = {"nesterov": nesterov, "adjust_lr": adjust_lr, "weight_decay_on": weight_decay_on}
    ours = make_optimizer(section_of(OPTIMIZERS, "muon", **FIELDS, **more), parameters)
    weights = [each for each in parameters if each.dim() > 1]
    others = [each for each in parameters if each.dim() == 1]
    matrices = [nn.Parameter(each.detach().reshape(len(each), -1).clone()) for each in weights]
    vectors = [nn.Parameter(each.detach().clone()) for each in others]
    muon = torch.optim.Muon(
        matrices, lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn=adjust_lr
    )
    decay = 0.1 if weight_decay_on == "all" else 0.0
    adamw = torch.optim.AdamW(vectors, lr=0.02, betas=(0.8, 0.99), eps=1e-7, weight_decay=decay, fused=True)
    for step in range(4):
        give_gradients(parameters, step)
        for theirs, mine in zip([*matrices, *vectors], [*weights, *others], strict=True):
            theirs.grad = mine.grad.reshape(theirs.shape).clone()
        for optimizer in (ours, muon, adamw):
            optimizer.step()
        for theirs, mine in zip([*matrices, *vectors], [*weights, *others], strict=True):
            assert torch.equal(mine.reshape(theirs.shape), theirs)
    assert set(ours.state) == set(parameters)
    assert network[0].weight.is_contiguous(memory_format=memory_format)


def test_a_parameter_without_a_gradient_stays() -> None:
    network = network_of(torch.channels_last)
    optimizer = make_optimizer(section_of(OPTIMIZERS, "muon", **FIELDS), network.parameters())
    before = [each.clone() for each in network.parameters()]
    optimizer.step()
    network[0].weight.grad = torch.ones_like(network[0].weight)
    optimizer.step()
    is_same = [torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True)]
    assert is_same == [False, *[True] * 6]


def test_a_schedule_moves_the_momentum_of_the_weights_and_beta1_of_the_others() -> None:
    optimizer = make_optimizer(section_of(OPTIMIZERS, "muon", **FIELDS), network_of(torch.channels_last).parameters())
    Rates(optimizer, Schedule(lambda step: 0.5, lambda step: 0.7)).set(0)
    weights, others = optimizer.param_groups
    assert (weights["lr"], weights["momentum"], weights["betas"]) == (0.01, 0.7, (0.8, 0.99))
    assert (others["lr"], others["betas"]) == (0.01, (0.7, 0.99))
    assert "momentum" not in others
