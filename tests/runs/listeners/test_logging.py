"""Loggers: what they are sent, and that nothing they do changes or harms a run."""

from __future__ import annotations

import configparser
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import era_cnn
from era_cnn.config.choices import LOGGERS
from era_cnn.config.settings import setting_of
from era_cnn.config.versions import digest
from era_cnn.errors import ConfigError
from era_cnn.runs import parts
from era_cnn.runs.listeners import logging as module
from era_cnn.runs.listeners.logging import figures
from era_cnn.runs.loggers.sink import Sink
from era_cnn.training.history import EpochMetrics, Scores
from tests.conftest import config_of
from tests.helpers import nothing_stays_registered
from tests.process import ROOT

SMALL = [
    *("data=digits", "device=cpu", "threads=1", "trainer.epochs=3", "trainer.limit_train_images=64"),
    *("trainer.limit_test_images=50", "report=false", "scheduler=constant"),
]
DIVERGING = ("optimizer.lr=1e6", "optimizer.weight_decay=1e6", "model.norm=none")
"""Such a run fails in its first epoch."""

NAMES = sorted(LOGGERS)


class Failing(era_cnn.Listener):
    """Ends a run after an epoch."""

    is_essential = True

    def on_epoch(self, metrics: EpochMetrics) -> None:
        if metrics.epoch == 2:
            raise RuntimeError("the power is off")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> era_cnn.Run:
    return era_cnn.train(SMALL, folder=tmp_path_factory.mktemp("plain") / "run", quiet=True)


@pytest.fixture
def sent() -> Iterator[list[tuple[Any, ...]]]:
    """What a logger called `mine` is sent; it is registered for one test, and does what `behaviour` says."""
    calls: list[tuple[Any, ...]] = []

    class Mine(Sink):
        already: tuple[int, ...] = ()

        def __init__(self, run: era_cnn.LoggedRun) -> None:
            self.begin(run)

        def begin(self, run: era_cnn.LoggedRun) -> None:
            calls.append(("open", run))

        def logged_epochs(self) -> tuple[int, ...]:
            return self.already

        def log(self, epoch: int, figures: Any) -> None:
            calls.append(("log", epoch, figures))

        def finish(self, result: Any, images: Any) -> None:
            calls.append(("finish", result, images))

        def fail(self, message: str) -> None:
            calls.append(("fail", message))

        def close(self) -> None:
            calls.append(("close",))

    with nothing_stays_registered():
        LOGGERS.register("mine")(Mine)
        yield calls


def log_of(run: era_cnn.Run) -> str:
    return (run.path / "run.log").read_text(encoding="utf-8")


def fingerprints(run: era_cnn.Run) -> str:
    return (run.path / "fingerprints.jsonl").read_text(encoding="utf-8")


def test_a_logger_is_sent_each_epoch_and_then_the_images(plain: era_cnn.Run, sent: list[tuple[Any, ...]]) -> None:
    run = era_cnn.train([*SMALL, "logger=mine"], folder="run", quiet=True)
    assert [call[0] for call in sent] == ["open", "log", "log", "log", "finish", "close"]
    assert sent[0][1].settings["optimizer.lr"] == "0.01"
    assert sent[0][1].folder == run.path
    for (_, epoch, found), row in zip(sent[1:4], run.metrics, strict=True):
        assert found == {name: row[name] for name in row if name not in ("epoch", "seconds")}
        assert epoch == row["epoch"]
    _, result, images = sent[4]
    assert result["final_test_accuracy"] == run.result["final_test_accuracy"]
    assert images["confusion_matrix"].shape == (1, 120, 120)
    assert images["misclassified"].dtype == np.uint8
    assert images["misclassified"].shape[0] == 1
    assert fingerprints(run) == fingerprints(plain)


def test_a_resumed_run_sends_what_the_logger_does_not_have(
    sent: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="the power is off"):
        era_cnn.train([*SMALL, "logger=mine"], folder="run", quiet=True, listeners=[Failing()])
    assert [call[:2] for call in sent[1:]] == [("log", 1), ("fail", "the power is off"), ("close",)]
    sent.clear()
    monkeypatch.setattr(LOGGERS["mine"], "already", (1,))
    era_cnn.resume("run", quiet=True)
    assert [call[:2] for call in sent if call[0] == "log"] == [("log", 2), ("log", 3)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["begin", "logged_epochs", "log", "finish", "close"])
@pytest.mark.parametrize("error", [OSError("the disk\nis \x1b[31mfull"), SystemExit("bye")], ids=["error", "exit"])
def test_a_logger_that_fails_warns_once_and_changes_nothing(
    method: str, error: BaseException, plain: era_cnn.Run, sent: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(LOGGERS["mine"], method, fail)
    run = era_cnn.train([*SMALL, "logger=mine"], folder="run", quiet=True)
    said = [line for line in log_of(run).splitlines() if "logger=mine" in line]
    assert len(said) == 1
    assert f"logger=mine must work, got {type(error).__name__}: " in said[0]
    assert "The run is unaffected; its folder holds all figures." in said[0]
    assert "\x1b" not in said[0]
    assert fingerprints(run) == fingerprints(plain)
    assert run.state == "completed"


def test_a_logger_that_fails_when_a_run_fails_does_not_hide_why(
    sent: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGERS["mine"], "fail", lambda *arguments: 1 / 0)
    with pytest.raises(era_cnn.TrainingError, match="must stay finite"):
        era_cnn.train([*SMALL, *DIVERGING, "logger=mine"], folder="run", quiet=True)
    assert "logger=mine must work, got ZeroDivisionError" in Path("run/run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["begin", "log", "finish", "close"])
def test_a_logger_that_blocks_for_ever_does_not_hold_the_run(
    method: str, sent: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(LOGGERS["mine"], method, lambda *arguments: released.wait())
    monkeypatch.setattr(module.Logging.__init__, "__kwdefaults__", {"close_seconds": 0.05})
    try:
        run = era_cnn.train([*SMALL, "logger=mine"], folder="run", quiet=True)
        assert run.state == "completed"
        assert log_of(run).count("logger=mine must work, got no answer within 0.05 seconds.") == 1
    finally:
        released.set()


def test_the_threads_of_loggers_end_with_the_run(sent: list[tuple[Any, ...]]) -> None:
    era_cnn.train([*SMALL, "logger=mine"], folder="run", quiet=True)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("logger ")]


def test_a_replay_is_not_logged(sent: list[tuple[Any, ...]]) -> None:
    run = era_cnn.train([*SMALL, "logger=mine"], folder="run", quiet=True)
    sent.clear()
    assert era_cnn.replay(run.path)
    assert sent == []


@pytest.mark.slow
def test_several_loggers(sent: list[tuple[Any, ...]]) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    config = config_of("logger=[tensorboard,none]")
    assert list(config.logger.chosen()) == ["tensorboard"]
    run = era_cnn.train([*SMALL, "logger=[mine,tensorboard]"], folder="run", quiet=True)
    assert sent[-1] == ("close",)
    assert list((run.path / "tensorboard").iterdir())


def test_a_logger_is_no_part_of_what_a_run_is() -> None:
    plain, logged = config_of("experiment=model_3"), config_of("experiment=model_3", "logger=tensorboard")
    assert plain.logger.chosen() == {}
    assert list(logged.logger.chosen()) == ["tensorboard"]
    assert digest(plain) == digest(logged)
    one, other = (setting_of(config.model_dump(), type(config)) for config in (plain, logged))
    assert one == other
    assert not any("logger" in key for key in {**one.values, **one.labels})


@pytest.mark.parametrize("name", NAMES)
def test_a_logger_without_its_package_is_refused_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    packages = ", ".join(LOGGERS[name].packages)
    message = f"logger={name} must have its packages installed, got no {packages}. Install them: pip install 'era_cnn[{name}]'"
    with pytest.raises(ConfigError, match=re.escape(message)):
        era_cnn.train([*SMALL, f"logger={name}"], folder="run", quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_logger_has_an_extra_with_its_packages_which_the_tests_need_too(name: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {extra: lines.split("\n") for extra, lines in setup["options.extras_require"].items()}
    assert set(extras[name]) <= set(extras["dev"])
    named = {re.split("[-<>=]", line)[0] for line in extras[name]}
    assert set(LOGGERS[name].packages) <= named


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("name", NAMES)
def test_each_logger_works_and_changes_no_result(name: str, plain: era_cnn.Run) -> None:
    for package in LOGGERS[name].packages:
        pytest.importorskip(package, reason=f"the extra {name} is not installed")
    run = era_cnn.train([*SMALL, f"logger={name}"], folder="run", quiet=True)
    assert f"logger={name} must" not in log_of(run)
    assert fingerprints(run) == fingerprints(plain)


def test_only_finite_figures_are_sent() -> None:
    test = Scores(loss=math.inf, accuracy=0.5, num_correct=1, num_images=2)
    metrics = EpochMetrics(1, 0.1, math.nan, 0.25, 1.0, None, test, {})
    assert figures(metrics) == {"lr": 0.1, "train_accuracy": 0.25, "test_accuracy": 0.5}


def test_long_values_of_a_config_are_cut_with_a_mark() -> None:
    assert module._cut("x" * 300) == "x" * 249 + "…"
    assert module._cut("x" * 250) == "x" * 250


# TensorBoard


def points_of(folder: Path) -> Any:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    found = event_accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_tensorboard_holds_each_point_once_also_after_a_resume() -> None:
    with pytest.raises(RuntimeError, match="the power is off"):
        era_cnn.train([*SMALL, "logger=tensorboard"], folder="run", quiet=True, listeners=[Failing()])
    run = era_cnn.resume("run", quiet=True)
    found = points_of(run.path)
    for name, tag in (("test_accuracy", "accuracy/test"), ("train_loss", "loss/train"), ("lr", "lr")):
        points = found.Scalars(tag)
        assert [point.step for point in points] == [1, 2, 3]
        assert [point.value for point in points] == pytest.approx([row[name] for row in run.metrics])
    assert sorted(found.Tags()["images"]) == ["confusion_matrix", "misclassified"]
    assert found.Tags()["tensors"] == ["config/text_summary"]


def test_tensorboard_says_where_a_run_diverged() -> None:
    with pytest.raises(era_cnn.TrainingError, match="must stay finite"):
        era_cnn.train([*SMALL, *DIVERGING, "logger=tensorboard"], folder="run", quiet=True)
    (failure,) = points_of(Path("run")).Tensors("failure/text_summary")
    assert re.match(rb"The .* must stay finite, got nan .* epoch 1\b", failure.tensor_proto.string_val[0])


def test_a_link_in_place_of_the_folder_of_tensorboard_is_refused(plain: era_cnn.Run, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the power is off"):
        era_cnn.train([*SMALL, "logger=tensorboard"], folder="run", quiet=True, listeners=[Failing()])
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "run" / "tensorboard").rename(elsewhere)
    (tmp_path / "run" / "tensorboard").symlink_to(elsewhere)
    with pytest.raises(era_cnn.RunFolderError, match="tensorboard must be a"):
        era_cnn.resume("run", quiet=True)
