from __future__ import annotations

from pathlib import Path

import pytest
import torch

from era_cnn.folders.checkpoints import CheckpointFolder
from era_cnn.folders.run import RunFolder
from era_cnn.runs.listeners import saver as module
from era_cnn.runs.listeners.saver import Saver
from era_cnn.runs.listeners.stop import StopWhenAsked
from era_cnn.runs.listeners.writer import Writer
from era_cnn.runs.stopping import Interrupted, StopRequest
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.evaluate import Tally
from era_cnn.training.history import EpochMetrics, History, Scores
from era_cnn.training.listeners import Training
from era_cnn.training.loop import Step
from era_cnn.training.state import TrainingState
from tests.conftest import config_of

CPU = torch.device("cpu")
ORIGIN = {"config_sha256": "a", "data_sha256": "b"}


@pytest.fixture
def training(tmp_path: Path) -> Training:
    network = torch.nn.Linear(2, 2)
    state = TrainingState(network, torch.optim.SGD(network.parameters(), lr=0.1))
    return Training(config_of("data.val_size=100"), state, History(), tmp_path)


def step_of(step: int, epoch: int = 1) -> Step:
    tally = Tally(CPU)
    tally.add(torch.tensor(1.0), torch.eye(2), torch.tensor([0, 1]))
    return Step(epoch, step, 10, 0.1, tally, 2.5)


def epoch_of(epoch: int, accuracy: float) -> EpochMetrics:
    scores = Scores(1.0, accuracy, round(100 * accuracy), 100)
    return EpochMetrics(epoch, 0.1, 1.0, 0.5, 1.0, scores, None, {"order": str(epoch)})


def saver_of(training: Training, every_seconds: float | None = None) -> Saver:
    saver = Saver(CheckpointFolder(training.folder / "checkpoints"), origin=ORIGIN, every_seconds=every_seconds)
    saver.on_start(training)
    return saver


def names(training: Training) -> list[str]:
    return sorted(path.name.rpartition("_")[0] for path in (training.folder / "checkpoints").glob("*"))


def test_nothing_is_saved_before_the_first_step(training: Training) -> None:
    saver_of(training).save()
    assert names(training) == []


def test_within_an_epoch_it_saves_every_so_many_seconds(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    saver = saver_of(training, every_seconds=5.0)
    saved = []
    for step in range(10):
        now[0] += 2.0
        saver.on_step(step_of(step))
        saved.append(names(training)[-1:] == [f"epoch-00001_step-{step + 1:07d}"])
    assert saved == [False, False, True, False, False, True, False, False, True, False]


def test_without_a_time_it_saves_at_the_end_of_an_epoch_alone(training: Training) -> None:
    saver = saver_of(training)
    for step in range(10):
        saver.on_step(step_of(step))
    assert names(training) == []
    training.history.append(epoch_of(1, 0.5))
    saver.on_epoch(training.history[-1])
    assert names(training) == ["best_epoch-00001", "epoch-00002_step-0000000"]


def test_the_best_is_saved_when_it_is_one_and_is_kept(training: Training) -> None:
    saver, best = saver_of(training), []
    for epoch, accuracy in enumerate((0.5, 0.4, 0.5, 0.6), start=1):
        training.history.append(epoch_of(epoch, accuracy))
        saver.on_epoch(training.history[-1])
        best.append(names(training)[0])
    assert best == ["best_epoch-00001"] * 3 + ["best_epoch-00004"]


def test_what_is_asked_for_is_saved_once(training: Training) -> None:
    saver = saver_of(training)
    saver.on_step(step_of(3))
    saver.save()
    (path,) = (training.folder / "checkpoints").iterdir()
    found = Checkpoint.from_bytes(path.read_bytes(), CPU)
    assert (found.origin, found.position.epoch, found.position.steps_done, found.position.seconds) == (
        ORIGIN,
        1,
        4,
        2.5,
    )
    assert found.position.tally is not None
    assert found.position.tally.num_images == 2
    path.unlink()
    saver.save()  # nothing has come since
    assert names(training) == []


def test_the_writer_writes_the_history_as_it_is_now(training: Training) -> None:
    folder = RunFolder(training.folder)
    writer = Writer(folder)
    writer.on_start(training)
    writer.write()
    assert folder.read_metrics() == []
    assert folder.read_fingerprints() == {}
    for epoch in (1, 2):
        training.history.append(epoch_of(epoch, 0.5))
        writer.on_epoch(training.history[-1])
        assert [row["epoch"] for row in folder.read_metrics()] == [str(number) for number in range(1, epoch + 1)]
    assert folder.read_metrics()[0]["val_accuracy"] == "0.5"
    assert folder.read_metrics()[0]["test_accuracy"] == ""
    assert folder.read_fingerprints() == {1: {"order": "1"}, 2: {"order": "2"}}


def test_a_run_stops_after_the_step_or_epoch_in_which_it_was_asked_to(training: Training) -> None:
    stop = StopRequest()
    listener = StopWhenAsked(stop)
    listener.on_step(step_of(1))
    listener.on_epoch(epoch_of(1, 0.5))
    stop.number = 15
    with pytest.raises(Interrupted, match="stopped by SIGTERM") as caught:
        listener.on_step(step_of(2))
    assert caught.value.exit_code == 143
    with pytest.raises(Interrupted):
        listener.on_epoch(epoch_of(1, 0.5))


@pytest.mark.parametrize("kind", [Saver, Writer, StopWhenAsked])
def test_what_a_run_needs_is_essential(kind: type) -> None:
    assert kind.is_essential
