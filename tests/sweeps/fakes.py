"""Jobs that train nothing: they write what a job leaves in its folder, an epoch each time that the driver looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest as config_digest
from era_cnn.errors import RunFolderError
from era_cnn.folders.ledger import Job
from era_cnn.folders.result import Result
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from era_cnn.sweeps.executor import Ended
from era_cnn.training.history import EpochMetrics, Scores

KILLED = "its process was killed by SIGKILL, as when memory runs out"
NO_PROCESS = 2**22 + 1
"""A number that no process has: Linux gives none above 2^22."""

MOST_LOOKS = 1000


@dataclass
class Script:
    """How the jobs of a test go, and what was asked of them; it outlives the drivers of its sweep.

    Attributes:
        ways: How the job of a seed fails after its first epoch: `raise`, `SIGKILL`, `silent` (it lives, and writes nothing),
            `damage` (of its result), `SIGTERM` (to the job alone). After `once `, it does so at its first attempt only; `raise,SIGTERM` has a way for each attempt.
        at_look: What happens elsewhere when the driver looks for the n-th time, from 1.
        accuracy: Of a config after an epoch, in [0, 1].
        first_state: As `Executor.first_state`; so is `can_stop_one`.
        can_withdraw: Whether `stop` reaches the jobs that were started.
        started: The number of each job that was started, and the epoch in which it began, in order.
        stopped: The number of each job that was asked to stop.
        calls: How often `halt` and `close` were called.
    """

    ways: dict[int, str] = field(default_factory=dict)
    at_look: dict[int, Callable[[], None]] = field(default_factory=dict)
    accuracy: Callable[[RunConfig, int], float] = lambda config, epoch: learned(config, epoch)
    first_state: str = "running"
    can_stop_one: bool = True
    can_withdraw: bool = True
    started: list[tuple[int, int]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=lambda: {"halt": 0, "close": 0})
    looks: int = 0
    failed_once: set[int] = field(default_factory=set)


class FakeExecutor:
    """Does jobs as a script says: an `era_cnn.sweeps.executor.Executor`.

    Args:
        sweep_dir: Where the folders of the jobs lie.
        script: How they go.
        at_once: The most jobs at a time.
    """

    def __init__(self, sweep_dir: Path, script: Script, at_once: int = 1) -> None:
        self._sweep_dir, self._script, self._at_once = sweep_dir, script, at_once
        self.first_state, self.can_stop_one = script.first_state, script.can_stop_one
        self._jobs: list[Job] = []
        self._configs: dict[int, RunConfig] = {}
        self._asked: set[int] = set()

    def is_full(self) -> bool:
        """Whether as many jobs are under way as may be."""
        return len(self._jobs) >= self._at_once

    def has_room(self, job: Job) -> bool:
        """Whether there are fewer."""
        return not self.is_full()

    def start(self, job: Job) -> None:
        """Takes note of it."""
        self._jobs.append(job)
        self._script.started.append((job.number, _epochs_done(self._folder(job)) + 1))

    def ended(self, seconds: float) -> Sequence[Ended]:
        """Lets each job do an epoch."""
        self._script.looks += 1
        assert self._script.looks < MOST_LOOKS, "the driver goes on for ever"
        if self._script.looks in self._script.at_look:
            self._script.at_look[self._script.looks]()
        found = [ended for job in self._jobs if (ended := self._go_on(job))]
        for ended in found:
            self._jobs.remove(ended.job)
        return found

    def stop(self, job: Job | None = None) -> Sequence[Job]:
        """Lets all jobs, or one, end when they are next looked at; all go on if the script says so."""
        asked = [each for each in self._jobs if job is None or each == job]
        self._script.stopped += [each.number for each in asked]
        if not self._script.can_withdraw:
            for each in asked:
                self._jobs.remove(each)
            return asked
        self._asked |= {each.number for each in asked}
        return []

    def halt(self) -> None:
        """Counts."""
        self._script.calls["halt"] += 1

    def close(self) -> None:
        """Counts."""
        self._script.calls["close"] += 1

    def _folder(self, job: Job) -> RunFolder:
        return RunFolder(self._sweep_dir / job.folder)

    def _config_of(self, job: Job) -> RunConfig:
        if job.number not in self._configs:
            self._configs[job.number] = read_config(self._folder(job)).config
        return self._configs[job.number]

    def _go_on(self, job: Job) -> Ended | None:
        folder = self._folder(job)
        try:
            if folder.is_in_use() or folder.result() is not None:
                return Ended(job)
        except RunFolderError:
            return Ended(job)
        config = self._config_of(job)
        folder.begin(config)
        if job.number in self._asked:
            folder.end("interrupted", "Interrupted.")
            return Ended(job)
        epoch = min(_epochs_done(folder) + 1, job.epochs)
        folder.write_metrics(
            [self._record(config, each) for each in range(1, epoch + 1)], with_val=bool(config.data.val_size)
        )
        way = self._script.ways.get(config.seed, "")
        if "," in way:
            attempt = [number for number, _ in self._script.started].count(job.number)
            way = "".join(way.split(",")[attempt - 1 : attempt])
        if way == "SIGTERM" and epoch == job.epochs:
            way = ""  # it came too late
        if way and config.seed not in self._script.failed_once:
            if way.startswith("once "):
                self._script.failed_once.add(config.seed)
            return Ended(job, _fail(folder, way.removeprefix("once ")))
        if epoch >= job.epochs:
            folder.complete(self._result(config, epoch))
            return Ended(job)
        return None

    def _record(self, config: RunConfig, epoch: int) -> EpochMetrics:
        accuracy = self._script.accuracy(config, epoch)
        scores = Scores(1 - accuracy, accuracy, round(accuracy * 100), 100)
        has_val = bool(config.data.val_size)
        is_last = epoch == config.trainer.epochs_to_run
        val, test = scores if has_val else None, None if has_val and not is_last else scores
        return EpochMetrics(epoch, 0.01, 1 - accuracy, accuracy, 1.0, val, test, {})

    def _result(self, config: RunConfig, epochs: int) -> dict[str, Any]:
        accuracies = [self._script.accuracy(config, epoch) for epoch in range(1, epochs + 1)]
        best, final, has_val = max(accuracies), accuracies[-1], bool(config.data.val_size)
        return Result(
            schema=1, experiment=config.name, seed=config.seed, params=1, epochs=epochs, best_test_accuracy=best,
            best_test_epoch=epochs, final_test_accuracy=final, best_train_accuracy=best, final_train_accuracy=final,
            final_test_loss=1 - final, best_val_accuracy=best if has_val else None,
            best_val_epoch=epochs if has_val else None, final_val_accuracy=final if has_val else None,
            target={"met": None}, weights_sha256=_digest("weights", config), config_sha256=config_digest(config),
            data_sha256="0" * 64, seconds=1.0, images_per_second=100.0,
        ).to_json()  # fmt: skip


def learned(config: RunConfig, epoch: int) -> float:
    """An accuracy that rises, a little other for each config."""
    return 0.5 + 0.4 * epoch / (epoch + 1) + int(_digest("accuracy", config)[:6], 16) / 2**24 / 100


def _digest(purpose: str, config: RunConfig) -> str:
    return hashlib.sha256(f"{purpose} {config_digest(config)}".encode()).hexdigest()


def _epochs_done(folder: RunFolder) -> int:
    return len(folder.read_metrics()) if (folder.path / "metrics.csv").exists() else 0


def _fail(folder: RunFolder, way: str) -> str:
    """Leaves what a job leaves that fails so; returns what its process died of."""
    if way == "raise":
        folder.end("failed", "RuntimeError: on purpose", traceback="Traceback (most recent call last): …")
    elif way == "SIGTERM":
        folder.end("interrupted", "Interrupted.")
    elif way == "damage":
        (folder.path / "result.json").write_text("{", encoding="utf-8")
    elif way == "SIGKILL":
        status = folder.read_json("status.json")
        folder.write_json("status.json", {**status, "pid": NO_PROCESS})
        return KILLED
    elif way != "silent":
        raise ValueError(f"unknown way to fail: {way}")
    return ""


def ledger_of(path: Path) -> list[tuple[int, str]]:
    """The number and the state of each line of a ledger."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(line["number"], line["state"]) for line in lines]
