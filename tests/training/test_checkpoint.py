from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from era_cnn.config.choices import OPTIMIZERS, SCHEDULERS
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches
from era_cnn.data.transforms import make_pipeline
from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.models.build import build_from_config
from era_cnn.runs.parts import ends_after, make_objective
from era_cnn.training.averaging import Average
from era_cnn.training.checkpoint import Checkpoint, capture
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.loop import Position, Step, fit
from era_cnn.training.optimizers import make_optimizer
from era_cnn.training.state import TrainingState
from era_cnn.training.windows import Steps
from tests.conftest import GREY_EXPERIMENTS, config_of, option
from tests.helpers import schedule_of, slow_but_first

CPU = torch.device("cpu")
EPOCHS, BATCH_SIZE, NUM_IMAGES = 2, 8, 20  # three steps an epoch, the last one smaller
ORIGIN = {"config_sha256": "a", "data_sha256": "b"}
NORMALISE = Normalise([0.3], [0.3])


IN_TWO_EPOCHS: dict[str, dict[str, object]] = {
    "one_cycle": {"warmup_epochs": 1.0},
    "cosine": {"warmup_epochs": 1.0},
    "multi_step": {"milestones": [1.0, 1.5]},
    "piecewise_linear": {"points": [[0, 0.1], [1, 1.0], [2, 0.0]]},
    "warm_restarts": {"cycle_epochs": 0.5},
    "cyclic": {"up_epochs": 0.5},
    "plateau": {"patience": 0, "threshold": 0.9, "threshold_mode": "abs"},
}
"""What a schedule needs to fit into so short a training, and to do something in it."""


class Training:
    """A short training of any config, which can be begun at a checkpoint."""

    def __init__(self, split: Split, *overrides: str, epochs: int = EPOCHS) -> None:
        config, split = config_of("trainer.epochs=15", *overrides), split.first(NUM_IMAGES)
        self.config, self.epochs, trainer = config, epochs, config.trainer
        network = build_from_config(config)
        self.state = TrainingState(network, make_optimizer(config.optimizer, network.parameters()))
        self.average = Average(network, trainer.ema_decay) if trainer.ema_decay else None
        if self.average:
            self.state.add("ema", self.average)
        augment = make_pipeline(config.augmentation.chosen(), config.info, config.data.mean)
        self.batches = TrainingBatches(split, batch_size=BATCH_SIZE, augment=augment, normalise=NORMALISE, seed=1)
        fields = {**config.scheduler.model_dump(), **IN_TWO_EPOCHS.get(config.scheduler.name, {})}
        self.schedule = schedule_of(epochs=epochs, steps_per_epoch=len(self.batches), watch=trainer.watch, **fields)
        self.test = EvaluationBatches(split, batch_size=15, normalise=NORMALISE)
        self.history = History()
        self.saved: list[bytes] = []
        self.rates: list[tuple[int, int, float, object]] = []

    def run(self, start: Checkpoint | None = None) -> None:
        """Saves after each step and each epoch, unless it resumes."""
        self.saves = start is None
        if start is not None:
            self.state.load_state_dict(start.state)
            self.history = start.history
        for metrics in fit(
            self.state, self.schedule, self.batches, epochs=self.epochs, seed=1, history=self.history, test=self.test,
            start=start.position if start else Position(), on_step=self.save, watch=self.config.trainer.watch,
            objective=make_objective(self.config, self.state.network, self.batches),
            average=self.average and self.average.network, ends_after=ends_after(self.config),
        ):  # fmt: skip
            if self.saves:
                self.save_at(Position(metrics.epoch + 1))

    def save(self, step: Step) -> None:
        group = self.state.optimizer.param_groups[0]
        self.rates.append((step.epoch, step.step, step.lr, group.get("betas", group.get("momentum"))))
        if self.saves:
            self.save_at(Position(step.epoch, step.step + 1, step.tally, step.seconds))

    def save_at(self, position: Position) -> None:
        self.saved.append(capture(ORIGIN, position, self.state, self.history).to_bytes())

    def outcome(self) -> tuple[list[EpochMetrics], list[torch.Tensor]]:
        """All that must be equal: the history without its seconds, weights and the optimizer's state."""
        moments = [value for state in self.state.optimizer.state_dict()["state"].values() for value in state.values()]
        tensors = [torch.as_tensor(value) for value in moments if value is not None]
        history = [replace(metrics, seconds=0.0) for metrics in self.history]
        more = self.average.network.state_dict().values() if self.average else ()
        return history, [*self.state.network.state_dict().values(), *tensors, *more]


def assert_equal(first: Training, second: Training) -> None:
    (history, tensors), (other_history, other_tensors) = first.outcome(), second.outcome()
    assert history == other_history
    assert len(tensors) == len(other_tensors)
    assert all(torch.equal(one, other) for one, other in zip(tensors, other_tensors, strict=True))


MODELS = sorted(set(GREY_EXPERIMENTS) - {"model_1", "model_4_digits", "model_3_plain", "model_4_dropout25"})
CASES = [
    *((f"experiment={name}",) for name in MODELS),
    *((f"optimizer={name}", "scheduler=step", "optimizer.weight_decay=0.01") for name in OPTIMIZERS),
    *((f"optimizer={name}", *option("scheduler", schedule)) for name in ("sgd", "adam") for schedule in SCHEDULERS),
    *(
        (f"augmentation={name}",)
        for name in ("none", "affine", "[rotate,affine]", "[horizontal_flip,gaussian_noise,cutout,mixup]")
    ),
]


SHALLOW = (
    *(f"~model.layers.{name}" for name in ("conv2", "skip", "conv3", "conv4", "conv5")),
    *("model.dropout=0", "model.layers.conv1.dropout=0.1"),
)
"""Leaves the default network one block with dropout and batch norm, and its head: a step takes a third of the time."""


@pytest.mark.parametrize("overrides", slow_but_first(CASES), ids=" ".join)
def test_a_training_goes_on_bit_by_bit_from_every_step(overrides: tuple[str, ...], split: Split) -> None:
    if not overrides[0].startswith("experiment="):
        overrides = (*overrides, *SHALLOW)
    unbroken = Training(split, *overrides)
    unbroken.run()
    assert len(unbroken.saved) == EPOCHS * (3 + 1)
    for content in unbroken.saved:
        resumed = Training(split, *overrides)
        resumed.run(Checkpoint.from_bytes(content, CPU))
        assert_equal(unbroken, resumed)


PLATEAU = (*option("scheduler", "plateau"), "scheduler.cooldown=1")
CYCLED = ("base_momentum=0.8", "max_momentum=0.95")
STATEFUL = {
    # It reduces after epochs 2 and 4: resumed before, at and after a reduction, and in the cooldown.
    "plateau": (PLATEAU, [1.0, 1.0, 0.1, 0.1]),
    "one_cycle": (("scheduler=one_cycle", *(f"scheduler.{each}" for each in CYCLED)), None),
    "cyclic with adam": (("scheduler=cyclic", "optimizer=adam", *(f"scheduler.{each}" for each in CYCLED)), None),
    "average": (("trainer.ema_decay=0.9", "model.norm=batch"), None),
    "early stopping": (
        ("trainer.watch=train_loss", "trainer.early_stopping.patience=2", "trainer.early_stopping.min_delta=9"),
        [1.0, 1.0, 1.0],
    ),
    "everything": (
        (
            *PLATEAU, "trainer.early_stopping.patience=2", "trainer.early_stopping.min_delta=9",
            "trainer.ema_decay=0.99", "trainer.class_weights=balanced", "trainer.l1=1e-4",
            "trainer.clip_grad_value=0.1", "trainer.clip_grad_norm=0.5", "trainer.label_smoothing=0.1",
            "optimizer.weight_decay=0.01", "optimizer.weight_decay_on=weights",
        ),
        [1.0, 1.0, 0.1],
    ),
}  # fmt: skip
"""Recipes, and the factor on the learning rate at the end of each epoch if it is not a function of the step alone."""


@pytest.mark.parametrize("name", slow_but_first(STATEFUL))
def test_a_stateful_recipe_goes_on_bit_by_bit_from_every_step(name: str, split: Split) -> None:
    overrides, factors = STATEFUL[name]
    unbroken = Training(split, *overrides, epochs=4)
    unbroken.run()
    if factors:
        assert [metrics.lr / 0.01 for metrics in unbroken.history] == pytest.approx(factors)
    assert len(unbroken.saved) == len(unbroken.history) * 4
    for number, content in enumerate(unbroken.saved):
        resumed = Training(split, *overrides, epochs=4)
        resumed.run(Checkpoint.from_bytes(content, CPU))
        assert_equal(unbroken, resumed)
        done = len(resumed.rates)
        assert resumed.rates == unbroken.rates[len(unbroken.rates) - done :], number
    assert unbroken.history[-1].end_reason == (
        "train_loss has not become better than "
        f"{unbroken.history[0].train_loss:.4g} in 2 evaluations" if "stopping" in name or name == "everything" else None
    )  # fmt: skip


def test_an_average_that_is_not_restored_shows(split: Split) -> None:
    unbroken = Training(split, "trainer.ema_decay=0.9")
    unbroken.run()
    checkpoint = Checkpoint.from_bytes(unbroken.saved[4], CPU)
    count = {**checkpoint.state["ema"], "num_updates": 0}
    resumed = Training(split, "trainer.ema_decay=0.9")
    resumed.run(replace(checkpoint, state={**checkpoint.state, "ema": count}))
    with pytest.raises(AssertionError):
        assert_equal(unbroken, resumed)


def damaged(checkpoint: Checkpoint, what: str) -> Checkpoint:
    if what == "momentum":
        optimizer = {**checkpoint.state["optimizer"], "state": {}}
        return replace(checkpoint, state={**checkpoint.state, "optimizer": optimizer})
    if what == "step":
        return replace(checkpoint, position=replace(checkpoint.position, steps_done=checkpoint.position.steps_done - 1))
    if what == "tally":
        return replace(checkpoint, position=replace(checkpoint.position, tally=None))
    network = {**checkpoint.state["network"], "conv1.norm.running_mean": torch.zeros(8)}
    return replace(checkpoint, state={**checkpoint.state, "network": network})


@pytest.mark.parametrize("what", ["momentum", "step", "tally", "running mean"])
def test_whatever_is_not_restored_shows(what: str, split: Split) -> None:
    unbroken = Training(split)
    unbroken.run()
    resumed = Training(split)
    resumed.run(damaged(Checkpoint.from_bytes(unbroken.saved[5], CPU), what))  # after step 2 of epoch 2
    with pytest.raises(AssertionError):
        assert_equal(unbroken, resumed)


def test_a_history_that_is_not_restored_is_noticed(split: Split) -> None:
    unbroken = Training(split)
    unbroken.run()
    resumed = Training(split)
    with pytest.raises(AssertionError, match="epochs must be appended in order"):
        resumed.run(replace(Checkpoint.from_bytes(unbroken.saved[5], CPU), history=History()))


def test_the_learning_rate_of_the_config_stays(split: Split) -> None:
    training = Training(split, "scheduler=step", "scheduler.every_epochs=1")
    training.run()
    assert training.state.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    resumed = Training(split, "scheduler=step", "scheduler.every_epochs=1")
    resumed.state.load_state_dict(Checkpoint.from_bytes(training.saved[-1], CPU).state)
    assert resumed.state.optimizer.param_groups[0]["lr"] == 0.01


def as_schema_3(values: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as the version before schema 4 wrote it: without the loss within epochs."""
    history = [{key: value for key, value in epoch.items() if key != "steps"} for epoch in values["history"]]
    tally = values["tally"] and {key: value for key, value in values["tally"].items() if key != "windows"}
    return {**values, "schema": 3, "history": history, "tally": tally}


def as_schema_2(values: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as the version before schema 3 wrote it."""
    former = as_schema_3(values)
    state = former.pop("state")
    records = former.pop("history")
    return {
        **former, "schema": 2, "weights": state["network"], "optimizer": state["optimizer"], "records": records,
    }  # fmt: skip


@pytest.mark.parametrize("former", [as_schema_2, as_schema_3])
def test_a_checkpoint_of_an_earlier_schema_goes_on_bit_by_bit(
    former: Callable[[dict[str, Any]], dict[str, Any]], split: Split
) -> None:
    unbroken = Training(split)
    unbroken.run()
    for content in unbroken.saved:
        buffer = io.BytesIO()
        torch.save(former(torch.load(io.BytesIO(content), weights_only=True)), buffer)
        checkpoint = Checkpoint.from_bytes(buffer.getvalue(), CPU)
        resumed = Training(split)
        resumed.run(checkpoint)
        num_without = checkpoint.position.epoch - (checkpoint.position.steps_done < len(unbroken.batches))
        assert all(metrics.steps == Steps() for metrics in resumed.history[:num_without])
        assert all(sum(metrics.steps.images) == NUM_IMAGES for metrics in resumed.history[num_without:])
        for training in (unbroken, resumed):
            training.history = History(replace(metrics, steps=Steps()) for metrics in training.history)
        assert_equal(unbroken, resumed)


def test_a_checkpoint_comes_back_as_it_was(split: Split) -> None:
    training = Training(split)
    training.run()
    read = [Checkpoint.from_bytes(content, CPU) for content in training.saved]
    assert all(checkpoint.origin == ORIGIN for checkpoint in read)
    assert [len(checkpoint.history) for checkpoint in read] == [0, 0, 0, 1, 1, 1, 1, 2]
    assert all(list(each.history) == training.history[: len(each.history)] for each in read)
    positions = [checkpoint.position for checkpoint in read]
    assert [(each.epoch, each.steps_done) for each in positions] == [
        (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("schema", [1, 5, None])
def test_a_checkpoint_of_another_version_is_refused(schema: int | None) -> None:
    buffer = io.BytesIO()
    torch.save({"schema": schema}, buffer)
    message = f"A checkpoint must have a schema up to 4, got {schema}: another version wrote it."
    with pytest.raises(RunFolderError, match=message):
        Checkpoint.from_bytes(buffer.getvalue(), CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_saved(value: float, split: Split) -> None:
    training = Training(split)
    tensors = training.state.network.state_dict()
    tensors["conv1.norm.running_var"][0] = value
    message = "The tensor weights.conv1.norm.running_var must stay finite, got another value in epoch 2 after 1 steps."
    with pytest.raises(TrainingError, match=message):
        training.save_at(Position(2, 1))


def test_weights_whose_sum_overflows_are_finite(split: Split) -> None:
    training = Training(split)
    training.state.network.state_dict()["conv1.conv.weight"][:] = 3e38
    training.save_at(Position())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_has_a_message(content: bytes) -> None:
    with pytest.raises(RunFolderError, match="^A checkpoint must hold a training, got "):
        Checkpoint.from_bytes(content, CPU)
