from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from era_cnn.data.batches import Split
from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.fingerprint import fingerprint
from era_cnn.training.loop import Position, Step
from era_cnn.training.state import Member, TrainingState
from tests.training.test_checkpoint import CPU, EPOCHS, Training, assert_equal


class Average(Member):
    """The mean of a network's weights over its steps, as a member of the state."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.sums = [torch.zeros_like(parameter) for parameter in network.parameters()]
        self.count = 0

    def add(self, step: Step) -> None:
        self.count += 1
        for total, parameter in zip(self.sums, self.network.parameters(), strict=True):
            total += parameter.detach()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count, "nested": {"last": self.sums[-1] / max(1, self.count)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        for total, saved in zip(self.sums, state["sums"], strict=True):
            total.copy_(saved)


class Averaged(Training):
    """A training with a member."""

    def __init__(self, split: Split, *overrides: str) -> None:
        super().__init__(split, *overrides)
        self.average = Average(self.state.network)
        self.state.add("average", self.average)

    def save(self, step: Step) -> None:
        self.average.add(step)
        super().save(step)

    def outcome(self) -> tuple[list[Any], list[Tensor]]:
        history, tensors = super().outcome()
        return history, [*tensors, *self.average.sums, torch.tensor(self.average.count)]


def test_a_member_is_saved_restored_and_goes_on_bit_by_bit(split: Split) -> None:
    unbroken = Averaged(split)
    unbroken.run()
    assert unbroken.average.count == EPOCHS * 3
    for content in unbroken.saved:
        resumed = Averaged(split)
        resumed.run(Checkpoint.from_bytes(content, CPU))
        assert_equal(unbroken, resumed)


def test_a_member_that_is_not_restored_shows(split: Split) -> None:
    unbroken = Averaged(split)
    unbroken.run()
    checkpoint = Checkpoint.from_bytes(unbroken.saved[5], CPU)
    fresh = Averaged(split).state.state_dict()["average"]
    resumed = Averaged(split)
    resumed.run(replace(checkpoint, state={**checkpoint.state, "average": fresh}))
    with pytest.raises(AssertionError):
        assert_equal(unbroken, resumed)


def test_a_member_is_fingerprinted_after_network_and_optimizer(split: Split) -> None:
    plain, averaged = Training(split), Averaged(split)
    plain.run()
    averaged.run()
    own = {name for name in averaged.history[0].fingerprint if name.startswith("average.")}
    assert own == {*(f"average.sums.{number}" for number in range(len(averaged.average.sums))), "average.nested.last"}
    assert list(averaged.history[0].fingerprint)[-len(own) :] == sorted(
        own, key=list(averaged.history[0].fingerprint).index
    )
    rest = {name: value for name, value in averaged.history[0].fingerprint.items() if name not in own}
    assert rest == plain.history[0].fingerprint
    before = fingerprint(averaged.state, torch.arange(3))
    averaged.average.sums[0][0] += 1
    after = fingerprint(averaged.state, torch.arange(3))
    assert {name for name in before if before[name] != after[name]} == {"average.sums.0"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_member_that_is_not_finite_is_never_saved(value: float, split: Split) -> None:
    training = Averaged(split)
    training.average.sums[0][0] = value
    with pytest.raises(
        TrainingError, match=r"The tensor average.sums.0 must stay finite, got another value in epoch 1"
    ):
        training.save_at(Position())


def saved_by(training: Training) -> Checkpoint:
    training.save_at(Position())
    return Checkpoint.from_bytes(training.saved[-1], CPU)


@pytest.mark.parametrize(
    ("saves", "loads", "held"),
    [(Training, Averaged, "average, network, optimizer"), (Averaged, Training, "network, optimizer")],
)
def test_a_checkpoint_with_other_members_is_refused_and_nothing_is_loaded(
    saves, loads, held: str, split: Split
) -> None:
    checkpoint, other = saved_by(saves(split, "seed=2")), loads(split)
    before = [tensor.clone() for tensor in other.state.tensors().values()]
    with pytest.raises(RunFolderError) as caught:
        other.state.load_state_dict(checkpoint.state)
    assert str(caught.value) == (
        f"A checkpoint must hold {held}, got a difference in average. "
        "Resume with the listeners that the run was started with."
    )
    assert caught.value.exit_code == 4
    assert all(torch.equal(one, now) for one, now in zip(before, other.state.tensors().values(), strict=True))


@pytest.mark.parametrize("name", ["network", "weights", "optimizer", "average"])
def test_a_name_that_is_taken_is_refused(name: str, split: Split) -> None:
    training = Averaged(split)
    with pytest.raises(ValueError, match=f"The name of a member must be free, got '{name}'"):
        training.state.add(name, training.average)


@pytest.mark.parametrize("name", ["weights.conv1.conv", "", "a b", "a\n"])
def test_a_name_that_could_be_that_of_another_tensor_is_refused(name: str, split: Split) -> None:
    training = Averaged(split)
    with pytest.raises(ValueError, match="must be made of letters, digits and underscores"):
        training.state.add(name, training.average)


def test_a_member_that_comes_too_late_is_refused(split: Split) -> None:
    training = Averaged(split)
    training.run()
    with pytest.raises(ValueError, match="must be added before the training begins, got 'late'. Add it in on_start"):
        training.state.add("late", training.average)


def test_the_options_of_the_optimizer_stay_those_of_the_config(split: Split) -> None:
    checkpoint = saved_by(Training(split, "optimizer.lr=0.5", "optimizer.momentum=0.1", "optimizer.weight_decay=0.2"))
    own = Training(split, "optimizer.lr=0.03", "optimizer.momentum=0.8", "optimizer.nesterov=true")
    own.state.load_state_dict(checkpoint.state)
    (group,) = own.state.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.03, 0.8, 0.0, True)
    assert group["fused"] is True


def small(buffers: bool = True) -> Iterator[TrainingState]:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    yield TrainingState(network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9))
    yield TrainingState(network, torch.optim.Adam(network.parameters(), lr=0.1))


def test_the_tensors_are_named_in_the_order_in_which_one_comes_of_the_other() -> None:
    sgd, adam = small()
    weights = [f"weights.{name}" for name in sgd.network.state_dict()]
    assert list(sgd.tensors()) == weights  # there is no momentum before the first step
    sgd.network(torch.randn(4, 2)).sum().backward()
    sgd.optimizer.step()
    names = [name for name, _ in sgd.network.named_parameters()]
    assert list(sgd.tensors()) == [*weights, *(f"optimizer.{name}.momentum_buffer" for name in names)]
    adam.optimizer.step()
    moments = ("exp_avg", "exp_avg_sq", "step")
    assert list(adam.tensors()) == [*weights, *(f"optimizer.{name}.{each}" for name in names for each in moments)]
    assert sgd.device == CPU


def test_what_a_checkpoint_could_not_give_back_is_refused_at_once(split: Split) -> None:
    training = Averaged(split)

    class Strange(Member):
        def state_dict(self) -> dict[str, Any]:
            return {"plain": [1, 2.0, "x", None, True, {"deep": object()}]}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    with pytest.raises(ValueError, match=r"^strange\.plain\.5\.deep must be a tensor or a plain value, got object"):
        training.state.add("strange", Strange())
