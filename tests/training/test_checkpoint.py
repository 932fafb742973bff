from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch

from era_cnn.data.augment import make_augmentation
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches
from era_cnn.data.sources import read_digits
from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.models.build import build_from_config
from era_cnn.training.checkpoint import Checkpoint, capture, restore
from era_cnn.training.loop import EpochMetrics, Position, Step, fit
from era_cnn.training.optim import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from tests.conftest import EXPERIMENTS, config_of

CPU = torch.device("cpu")
EPOCHS, BATCH_SIZE, NUM_IMAGES = 2, 8, 20  # three steps an epoch, the last one smaller
ORIGIN = {"config_sha256": "a", "data_sha256": "b"}
NORMALISE = Normalise(0.3, 0.3)


@pytest.fixture(scope="module")
def split() -> Split:
    dataset = read_digits(1437)
    return Split.on(CPU, dataset.train_images, dataset.train_labels).first(NUM_IMAGES)


class Training:
    """A short training of any config, which can be begun at a checkpoint."""

    def __init__(self, split: Split, *overrides: str) -> None:
        config = config_of("trainer.epochs=15", *overrides)
        self.model = build_from_config(config)
        self.optimizer = make_optimizer(config.optimizer.name, self.model.parameters(), **config.optimizer.options())
        augment = make_augmentation(config.augmentation.name, **config.augmentation.options())
        self.batches = TrainingBatches(split, batch_size=BATCH_SIZE, augment=augment, normalise=NORMALISE, seed=1)
        options = {"warmup_epochs": 1} if config.scheduler.name in ("one_cycle", "cosine") else {}
        options = {**config.scheduler.options(), **options}
        self.schedule = make_schedule(
            config.scheduler.name, epochs=EPOCHS, steps_per_epoch=len(self.batches), **options
        )
        self.test = EvaluationBatches(split, batch_size=15, normalise=NORMALISE)
        self.records: list[EpochMetrics] = []
        self.saved: list[bytes] = []

    def run(self, start: Checkpoint | None = None) -> None:
        if start is not None:
            restore(start, self.model, self.optimizer)
            self.records = list(start.records)
        for record in fit(
            self.model, self.optimizer, self.schedule, self.batches, epochs=EPOCHS, seed=1, test=self.test,
            start=start.position if start else Position(), on_step=self.save,
        ):  # fmt: skip
            self.records.append(record)
            self.save_at(Position(record.epoch + 1))

    def save(self, step: Step) -> None:
        self.save_at(Position(step.epoch, step.step + 1, step.tally, step.seconds))

    def save_at(self, position: Position) -> None:
        self.saved.append(capture(ORIGIN, position, self.model, self.optimizer, self.records).to_bytes())

    def outcome(self) -> tuple[list[EpochMetrics], list[torch.Tensor]]:
        """All that must be equal: records without their seconds, weights and the optimizer's state."""
        moments = [value for state in self.optimizer.state_dict()["state"].values() for value in state.values()]
        tensors = [torch.as_tensor(value) for value in moments if value is not None]
        return [replace(record, seconds=0.0) for record in self.records], [*self.model.state_dict().values(), *tensors]


def assert_equal(first: Training, second: Training) -> None:
    (records, tensors), (other_records, other_tensors) = first.outcome(), second.outcome()
    assert records == other_records
    assert len(tensors) == len(other_tensors)
    assert all(torch.equal(one, other) for one, other in zip(tensors, other_tensors, strict=True))


MODELS = sorted(set(EXPERIMENTS) - {"model_1", "model_4_digits", "model_3_plain", "model_4_dropout25"})
CASES = [
    *((f"experiment={name}",) for name in MODELS),
    *((f"optimizer={name}", f"scheduler={schedule}") for name in OPTIMIZERS for schedule in SCHEDULES),
    *((f"augmentation={name}",) for name in ("none", "affine")),
]


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_a_training_goes_on_bit_by_bit_from_every_step(overrides: tuple[str, ...], split: Split) -> None:
    unbroken = Training(split, *overrides)
    unbroken.run()
    assert len(unbroken.saved) == EPOCHS * (3 + 1)
    for content in unbroken.saved:
        resumed = Training(split, *overrides)
        resumed.run(Checkpoint.from_bytes(content, CPU))
        assert_equal(unbroken, resumed)


def damaged(checkpoint: Checkpoint, what: str) -> Checkpoint:
    if what == "momentum":
        return replace(checkpoint, optimizer={**checkpoint.optimizer, "state": {}})
    if what == "step":
        return replace(checkpoint, position=replace(checkpoint.position, steps_done=checkpoint.position.steps_done - 1))
    if what == "tally":
        return replace(checkpoint, position=replace(checkpoint.position, tally=None))
    if what == "records":
        return replace(checkpoint, records=[])
    return replace(checkpoint, weights={**checkpoint.weights, "conv1.norm.running_mean": torch.zeros(8)})


@pytest.mark.parametrize("what", ["momentum", "step", "tally", "records", "running mean"])
def test_whatever_is_not_restored_shows(what: str, split: Split) -> None:
    unbroken = Training(split)
    unbroken.run()
    resumed = Training(split)
    resumed.run(damaged(Checkpoint.from_bytes(unbroken.saved[5], CPU), what))  # after step 2 of epoch 2
    with pytest.raises(AssertionError):
        assert_equal(unbroken, resumed)


def test_the_learning_rate_of_the_config_stays(split: Split) -> None:
    training = Training(split, "scheduler=step", "scheduler.every_epochs=1")
    training.run()
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    resumed = Training(split, "scheduler=step", "scheduler.every_epochs=1")
    restore(Checkpoint.from_bytes(training.saved[-1], CPU), resumed.model, resumed.optimizer)
    assert resumed.optimizer.param_groups[0]["lr"] == 0.01


def test_a_checkpoint_of_another_version_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save({"schema": 1}, buffer)
    with pytest.raises(RunFolderError, match="must have the schema 2, got 1: another version wrote it."):
        Checkpoint.from_bytes(buffer.getvalue(), CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_saved(value: float, split: Split) -> None:
    training = Training(split)
    tensors = training.model.state_dict()
    tensors["conv1.norm.running_var"][0] = value
    message = "The tensor conv1.norm.running_var must stay finite, got another value in epoch 2 after 1 steps."
    with pytest.raises(TrainingError, match=message):
        training.save_at(Position(2, 1))


def test_weights_whose_sum_overflows_are_finite(split: Split) -> None:
    training = Training(split)
    training.model.state_dict()["conv1.conv.weight"][:] = 3e38
    training.save_at(Position())
