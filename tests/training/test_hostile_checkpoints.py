"""Checkpoints that no run writes: nothing of them is used, whatever they hold."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import pytest
import torch

from era_cnn.config.choices import OPTIMIZERS
from era_cnn.data.batches import Split
from era_cnn.errors import RunFolderError
from era_cnn.models.build import build_from_config
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.history import EpochMetrics, History, Scores
from era_cnn.training.loop import Position
from era_cnn.training.state import load_weights
from tests.conftest import config_of
from tests.helpers import slow_but_first
from tests.training.test_checkpoint import CPU
from tests.training.test_state import Averaged

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def saved(split: Split) -> dict[str, bytes]:
    """A checkpoint by optimizer, from after the second step."""
    found = {}
    for name in OPTIMIZERS:
        training = Averaged(split, f"optimizer={name}")
        training.run()
        found[name] = training.saved[1]
    return found


def changed(content: bytes, change: Change) -> bytes:
    values = torch.load(io.BytesIO(content), weights_only=True)
    change(values)
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def moment(make: Callable[[torch.Tensor], Any]) -> Change:
    """Changes the first moment of the first parameter."""

    def change(values: dict[str, Any]) -> None:
        moments = values["state"]["optimizer"]["state"][0]
        name = next(name for name, value in moments.items() if value.dim())  # a step is a number
        moments[name] = make(moments[name])

    return change


def weight(make: Callable[[torch.Tensor], Any]) -> Change:
    def change(values: dict[str, Any]) -> None:
        weights = values["state"]["network"]
        weights["conv2.conv.weight"] = make(weights["conv2.conv.weight"])

    return change


def in_state(change: Change) -> Change:
    return lambda values: change(values["state"])


STATES: dict[str, Change] = {
    "a moment of one value": moment(lambda tensor: tensor.flatten()[:1].clone()),
    "an endless moment": moment(lambda tensor: tensor.flatten()[:1].expand(2**40)),
    "a moment of doubles": moment(lambda tensor: tensor.double()),
    "a sparse moment": moment(lambda tensor: tensor.to_sparse()),
    "a moment that is a number": moment(lambda tensor: 1.0),
    "a moment that is a list": moment(lambda tensor: [1.0]),
    "a missing moment": lambda values: values["state"]["optimizer"]["state"][0].clear(),
    "another moment": lambda values: values["state"]["optimizer"]["state"][0].update(x=torch.zeros(1)),
    "moments of nothing": lambda values: values["state"]["optimizer"]["state"].update({999: {}}),
    "moments that are a list": lambda values: values["state"]["optimizer"].update(state=[]),
    "an optimizer without moments": in_state(lambda state: state["optimizer"].clear()),
    "an optimizer that is a list": in_state(lambda state: state.update(optimizer=[])),
    "a moment without values": moment(lambda tensor: tensor.to("meta")),
    "a moment of NaN": moment(lambda tensor: tensor * math.nan),
    "a weight without values": weight(lambda tensor: tensor.to("meta")),
    "an infinite weight": weight(lambda tensor: tensor / 0),
    "a state that is a list": lambda values: values.update(state=[]),
    "a weight of one value": weight(lambda tensor: tensor.flatten()[:1].clone()),
    "an endless weight": weight(lambda tensor: tensor.flatten()[:1].expand(2**40)),
    "a weight of integers": weight(lambda tensor: tensor.long()),
    "a weight that is a string": weight(lambda tensor: "x"),
    "a missing weight": in_state(lambda state: state["network"].pop("conv2.conv.weight")),
    "another weight": in_state(lambda state: state["network"].update(x=torch.zeros(1))),
    "weights that are a list": in_state(lambda state: state.update(network=[])),
    "a member with another count": in_state(lambda state: state["average"].update(count="x")),
    "a member with other tensors": in_state(lambda state: state["average"].update(sums=[torch.zeros(1)])),
    "a member that is a list": in_state(lambda state: state.update(average=[])),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("optimizer", slow_but_first(OPTIMIZERS))
@pytest.mark.parametrize("what", STATES)
def test_a_state_that_does_not_fit_changes_nothing(
    what: str, optimizer: str, saved: dict[str, bytes], split: Split
) -> None:
    training = Averaged(split, f"optimizer={optimizer}", "seed=2")
    before = {name: tensor.clone() for name, tensor in training.state.tensors().items()}
    checkpoint = Checkpoint.from_bytes(changed(saved[optimizer], STATES[what]), CPU)
    with pytest.raises(RunFolderError, match=r"^The checkpoint must hold .* as .*, got ") as caught:
        training.state.load_state_dict(checkpoint.state)
    assert len(str(caught.value)) < 1000
    after = training.state.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_are_laid_out_as_their_parameters(optimizer: str, saved: dict[str, bytes], split: Split) -> None:
    expanded = changed(saved[optimizer], moment(lambda tensor: tensor.flatten()[:1].expand(tensor.shape)))
    training = Averaged(split, f"optimizer={optimizer}")
    training.state.load_state_dict(Checkpoint.from_bytes(expanded, CPU).state)
    for parameter, moments in training.state.optimizer.state.items():
        for value in moments.values():
            assert not value.shape or value.stride() == parameter.stride()


def test_loaded_moments_have_no_gradients(saved: dict[str, bytes], split: Split) -> None:
    content = changed(saved["sgd"], moment(lambda tensor: tensor.clone().requires_grad_()))
    training = Averaged(split)
    training.state.load_state_dict(Checkpoint.from_bytes(content, CPU).state)
    assert not any(tensor.requires_grad for name, tensor in training.state.tensors().items() if "optimizer" in name)


@pytest.mark.parametrize("name", [1, "x", "x" * 10**6])
def test_a_state_with_another_entry_is_refused(name: object, saved: dict[str, bytes], split: Split) -> None:
    checkpoint = Checkpoint.from_bytes(changed(saved["sgd"], in_state(lambda state: state.update({name: 1}))), CPU)
    with pytest.raises(RunFolderError, match=r"^A checkpoint must hold .*, got a difference in ") as caught:
        Averaged(split).state.load_state_dict(checkpoint.state)
    assert len(str(caught.value)) < 1000


def test_a_parameter_without_a_gradient_has_no_moments(saved: dict[str, bytes], split: Split) -> None:
    content = changed(saved["sgd"], lambda values: values["state"]["optimizer"]["state"].pop(0))
    Averaged(split).state.load_state_dict(Checkpoint.from_bytes(content, CPU).state)


SCORES = asdict(Scores(1.0, 0.5, 5, 10))
EPOCH = asdict(EpochMetrics(1, 0.1, 1.0, 0.5, 1.0, None, Scores(1.0, 0.5, 5, 10), {}))


def test_an_epoch_that_a_run_writes_is_read(saved: dict[str, bytes]) -> None:
    content = changed(saved["sgd"], lambda values: values["history"].append(EPOCH))
    assert asdict(Checkpoint.from_bytes(content, CPU).history[-1]) == EPOCH


FORMS: dict[str, Change] = {
    **{f"no {name}": (lambda values, name=name: values.pop(name)) for name in (  # type: ignore[misc]
        "schema", "origin", "epoch", "steps_done", "tally", "seconds", "history"
    )},
    **{
        f"{name} {value!r}": (lambda values, name=name, value=value: values.update({name: value}))  # type: ignore[misc]
        for name, odd in {
            "schema": (None, -1, "x", []),
            "origin": (None, [], {"config_sha256": 1}),
            "epoch": (None, 0, -1, "x", 2.5),
            "steps_done": (None, -1, "x"),
            "tally": ("x", [1], {}, {"__class__": 1}, {"loss_sum": 1.0}),
            "seconds": (None, -1.0, float("nan"), "x"),
            "history": (None, 1, [1], [{}], [{"epoch": 1}]),
        }.items()
        for value in odd
    },
    **{
        f"an epoch with {name} {value}": (lambda values, name=name, value=value: values["history"].append({**EPOCH, name: value}))  # type: ignore[misc]
        for name, odd in {
            "seconds": (-1.0, math.nan), "train_loss": (math.nan, math.inf), "train_accuracy": (-0.1, 1.1), "lr": (math.nan,),
            "test": ({**SCORES, "accuracy": 7.0}, {**SCORES, "loss": math.nan}, []),
        }.items()
        for value in odd
    },
    "a tally of no images": lambda values: values["tally"].update(num_images=0),
    "a tally of many sums": lambda values: values["tally"].update(loss_sum=torch.zeros(2)),
    "a tally with a method": lambda values: values["tally"].update(add=1),
    **{
        f"windows whose {name} is {value}": (lambda values, name=name, value=value: values["tally"]["windows"].update({name: value}))  # type: ignore[misc]
        for name, odd in {
            "step": (None, [], [2], [0, 1], [2, 1], [1, 1], ["x", "y"], list(range(1, 102))),
            "images": ([], [0, 8], [16, 8], [8, 10**9]), "lr": ([0.1], [math.nan, 0.1], "xy"),
            "sums": (None, torch.zeros(2), torch.zeros(2, 3), torch.tensor([[math.nan], [1.0]])),
        }.items()
        for value in odd
    },
    "windows of other weights": lambda values: values["tally"]["windows"].update(sums=torch.ones(2, 2)),
    "an epoch with steps of other lengths": lambda values: values["history"].append(
        {**EPOCH, "steps": {"step": [1], "images": [], "loss": [1.0], "lr": [0.1]}}
    ),
    "an epoch with too many steps": lambda values: values["history"].append(
        {**EPOCH, "steps": {"step": [1] * 101, "images": [1] * 101, "loss": [1.0] * 101, "lr": [0.1] * 101}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORMS)
def test_a_checkpoint_of_another_form_is_refused(what: str, saved: dict[str, bytes]) -> None:
    content = changed(saved["sgd"], FORMS[what])
    with pytest.raises(RunFolderError, match=r"^A checkpoint must (hold a training|have a schema)") as caught:
        Checkpoint.from_bytes(content, CPU)
    assert len(str(caught.value)) < 500


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(saved: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved["sgd"])) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/bomb", bytes(2**24))
    with pytest.raises(RunFolderError, match="an archive of .* bytes that unpacks to "):
        Checkpoint.from_bytes(buffer.getvalue(), CPU)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"x" * 100])
def test_only_archives_are_read(content: bytes) -> None:
    with pytest.raises(RunFolderError, match="must hold a training, got BadZipFile"):
        Checkpoint.from_bytes(content, CPU)


def at(position: Position, num_epochs: int, *, last: int | None = None, tested: int = 3) -> Checkpoint:
    """At a position after some epochs, of which one says that it is the last, and those from `tested` on were tested."""
    scores = Scores(1.0, 0.5, 5, 10)
    epochs = (
        EpochMetrics(number, 0.1, 1.0, 0.5, 1.0, None, scores if number >= tested else None, {}, number == last)
        for number in range(1, num_epochs + 1)
    )
    return Checkpoint({}, position, {}, History(epochs))


@pytest.mark.parametrize(
    ("num_epochs", "last", "tested", "ends_after", "is_possible"),
    [
        (2, None, 3, None, True), (3, None, 3, None, True), (3, 3, 3, None, True), (2, 2, 2, 2, True),
        (2, 2, 1, None, False), (3, 1, 1, None, False), (3, 3, 4, None, False), (3, None, 4, None, False),
        (2, 2, 3, 2, False), (3, 3, 1, 2, False), (2, 1, 1, 2, False),
    ],
)  # fmt: skip
def test_a_training_ends_only_where_its_config_ends_it(
    num_epochs: int, last: int | None, tested: int, ends_after: int | None, is_possible: bool
) -> None:
    checkpoint = at(Position(num_epochs + 1), num_epochs, last=last, tested=tested)
    with nullcontext() if is_possible else pytest.raises(RunFolderError, match="must be within 3 epochs"):
        checkpoint.check_position(epochs=3, num_steps=4, ends_after=lambda history: len(history) == ends_after)


@pytest.mark.parametrize(
    ("epoch", "steps_done", "num_epochs", "is_possible"),
    [
        (1, 0, 0, True), (1, 4, 0, True), (2, 0, 1, True), (3, 4, 2, True), (4, 0, 3, True),
        (10**9, 0, 0, False), (4, 1, 3, False), (5, 0, 4, False), (1, 5, 0, False), (2, 0, 0, False), (2, 0, 2, False),
    ],
)  # fmt: skip
def test_a_position_outside_the_training_is_refused(
    epoch: int, steps_done: int, num_epochs: int, is_possible: bool, split: Split
) -> None:
    tally = object() if steps_done else None
    checkpoint = at(Position(epoch, steps_done, tally), num_epochs)  # type: ignore[arg-type]
    if is_possible:
        checkpoint.check_position(epochs=3, num_steps=4)
        return
    with pytest.raises(
        RunFolderError, match=f"must be within 3 epochs of 4 steps, got epoch {epoch} after {steps_done}"
    ):
        checkpoint.check_position(epochs=3, num_steps=4)


def test_weights_of_another_network_are_refused() -> None:
    network, other = (build_from_config(config_of(f"experiment={name}")) for name in ("model_3", "model_2"))
    with pytest.raises(RunFolderError, match=r"must hold the names that the config gives as weights, got a difference"):
        load_weights(network, other.state_dict())
    load_weights(network, network.state_dict())
