from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from era_cnn.data.batches import Batch
from era_cnn.training.gradients import UNCHANGED, Gradients
from era_cnn.training.objective import Objective


def parameters(*pairs: tuple[list[float], list[float] | None]) -> list[nn.Parameter]:
    """Parameters with their gradients."""
    made = []
    for values, gradient in pairs:
        parameter = nn.Parameter(torch.tensor(values))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        made.append(parameter)
    return made


def gradients_of(found: list[nn.Parameter]) -> list[list[float]]:
    return [each.grad.tolist() for each in found if each.grad is not None]


def test_nothing_changes_by_default() -> None:
    found = parameters(([1.0, -2.0], [3e9, -4.0]))
    UNCHANGED.adjust(found)
    assert gradients_of(found) == [[3e9, -4.0]]


def test_l1_adds_the_sign_of_each_weight() -> None:
    found = parameters(([1.0, -2.0, 0.0], [0.5, 0.5, 0.5]), ([3.0], None))
    Gradients(l1=0.25).adjust(found)
    assert gradients_of(found) == [[0.75, 0.25, 0.5]]


def test_each_gradient_is_clipped_by_value() -> None:
    found = parameters(([1.0, 1.0, 1.0], [3.0, -4.0, 0.5]))
    Gradients(clip_value=1.0).adjust(found)
    assert gradients_of(found) == [[1.0, -1.0, 0.5]]


def test_all_gradients_together_are_clipped_by_their_norm() -> None:
    found = parameters(([1.0], [3.0]), ([1.0], [-4.0]))
    Gradients(clip_norm=1.0).adjust(found)
    assert gradients_of(found) == [[pytest.approx(0.6)], [pytest.approx(-0.8)]]
    Gradients(clip_norm=10.0).adjust(found)  # shorter already
    assert gradients_of(found) == [[pytest.approx(0.6)], [pytest.approx(-0.8)]]


def test_the_penalty_comes_first_then_the_value_then_the_norm() -> None:
    found = parameters(([1.0, -1.0], [3.0, 0.2]))
    Gradients(l1=1.0, clip_value=2.0, clip_norm=1.0).adjust(found)
    # [3, 0.2] + [1, -1] = [4, -0.8]; by value [2, -0.8]; its norm is 2.154
    norm = math.hypot(2.0, 0.8)
    assert gradients_of(found) == [pytest.approx([2 / norm, -0.8 / norm])]


def test_a_step_with_a_penalty_is_that_of_autograd_and_shows_the_loss_alone() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    batch = Batch(torch.randn(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]))
    optimizer = torch.optim.SGD(models[0].parameters(), lr=0.1)
    loss, _ = Objective(models[0], gradients=Gradients(l1=0.3)).backward(batch)
    optimizer.step()
    plain = F.cross_entropy(models[1](batch.images), batch.labels)
    (plain + 0.3 * sum(weight.abs().sum() for weight in models[1].parameters())).backward()
    torch.optim.SGD(models[1].parameters(), lr=0.1).step()
    assert loss.item() == plain.item()
    for mine, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
