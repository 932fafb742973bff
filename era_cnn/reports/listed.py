"""What `era-cnn list` lists: a run, or a sweep with its jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from era_cnn.errors import EraCnnError, RunFolderError
from era_cnn.folders.notes import Notes, read_notes
from era_cnn.folders.outcome import DONE, Outcome, read_outcome
from era_cnn.folders.run import is_run, is_sweep
from era_cnn.folders.sweep import SweepFolder
from era_cnn.output import shown
from era_cnn.reports.found import found_below
from era_cnn.reports.rows import SEED, Row, read_rows
from era_cnn.reports.statistics import FINAL

DEFAULT_FOLDERS = ("outputs", "multirun")

STATES = ("running", "damaged", "failed", "interrupted", "queued", "planned")
"""The states of jobs that are also that of their sweep, the first one that occurs; if none does, it is completed."""

OWN_KEYS = ("folder", "experiment", "state", "when", "best", "final", "tag", "note")
"""What can be asked of every run and sweep, besides the keys of results and configs."""


@dataclass(frozen=True)
class Listed:
    """A run, or a sweep with the rows of its jobs, which are damaged where `compare` calls them so."""

    folder: Path
    rows: tuple[Row, ...]
    is_sweep: bool
    damage: str = ""
    """Why a sweep can't be read."""

    @cached_property
    def notes(self) -> Notes:
        """What people noted about it."""
        return read_notes(self.folder)

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcome of the run, or of each job."""
        return [row.outcome for row in self.rows]

    @property
    def state(self) -> str:
        """Its state; that of a sweep follows from those of its jobs."""
        if self.damage or not self.is_sweep:
            return "damaged" if self.damage else self.outcomes[0].state
        states = {outcome.state for outcome in self.outcomes}
        return next(filter(states.__contains__, STATES), "completed")

    @property
    def done(self) -> int:
        """The number of jobs that are done."""
        return sum(outcome.state in DONE for outcome in self.outcomes)

    @property
    def started(self) -> datetime | None:
        """When it was started, in the time of this place; None if that is not known."""
        times = [time for outcome in self.outcomes if (time := _time(outcome.started))]
        return min(times, default=None)

    @cached_property
    def result(self) -> dict[str, Any]:
        """Its result; of a sweep, that of its best job, on validation images if there are any. Empty without one."""
        results = [outcome.result for outcome in self.outcomes if outcome.result]
        return max(results, key=_quality, default={})

    @property
    def message(self) -> str:
        """Why it has no result, or is damaged; of a sweep, only the latter."""
        said = [outcome.message for outcome in self.outcomes if outcome.state == "damaged" or not self.is_sweep]
        return self.damage or next(iter(said), "")

    @cached_property
    def experiment(self) -> str:
        """The name of its experiment, or their names."""
        names = {outcome.result["experiment"] for outcome in self.outcomes if outcome.result}
        names = names or {name for config in self.configs[:1] if (name := config.get("experiment"))}
        return ", ".join(sorted(names))

    @cached_property
    def configs(self) -> list[dict[str, str]]:
        """The config of each run, as far as it can be read, by keys as they are typed."""
        settings = [row.setting for row in self.rows if row.setting]
        return [{**each.labels, **each.values, SEED: str(each.seed)} for each in settings]

    def values(self, key: str) -> list[str]:
        """The values of a key; a sweep may have several, one without it has none."""
        if key in OWN_KEYS:
            return [value for value in self._own_values(key) if value]
        if key in self.result:
            return [str(self.result[key])]
        return list(dict.fromkeys(config[key] for config in self.configs if key in config))

    def _own_values(self, key: str) -> Sequence[str]:
        if key in ("tag", "note"):
            return self.notes.tags if key == "tag" else self.notes.lines
        if key in ("best", "final"):
            return [str(self.result.get(f"{key}_test_accuracy", ""))]
        own = {"folder": str(self.folder), "experiment": self.experiment, "state": self.state}
        return [own[key] if key in own else self.started.isoformat() if self.started else ""]


def listed_in(folder: Path | None) -> Iterator[Listed]:
    """The runs and sweeps in a folder, in the order of their names; the jobs of a sweep; or a run itself.

    Args:
        folder: The folder; None for `outputs` and `multirun` in the current one, if they exist.

    Raises:
        RunFolderError: If it can't be read, or is that of a damaged sweep.
    """
    if folder is None:
        places = [place for name in DEFAULT_FOLDERS if (place := Path.cwd() / name).is_dir()]
        for place in places:
            yield from map(_listed, found_below(place))
    elif is_sweep(folder):
        yield from (Listed(row.outcome.folder, (row,), is_sweep=False) for row in _sweep(folder).rows)
    elif is_run(_names(folder)):
        yield _listed(folder)
    else:
        yield from map(_listed, found_below(folder))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        rule = f"must be a folder to read, got: {error.strerror}. Check the path."
        raise RunFolderError(f"{shown(folder)} {rule}") from error


def _listed(path: Path) -> Listed:
    if not is_sweep(path):
        return Listed(path, tuple(read_rows([read_outcome(path, None, ())])), is_sweep=False)
    try:
        return _sweep(path)
    except EraCnnError as error:
        return Listed(path, (), is_sweep=True, damage=str(error))


def _sweep(path: Path) -> Listed:
    """A sweep with its jobs.

    Raises:
        EraCnnError: If it is damaged.
    """
    sweep = SweepFolder(path)
    sweep.read_request()
    return Listed(path, tuple(read_rows(sweep.outcomes(sweep.jobs(on_damage=lambda error: None)))), is_sweep=True)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None


def _quality(result: dict[str, Any]) -> float:
    accuracy = result["final_val_accuracy"]
    return float(result[FINAL] if accuracy is None else accuracy)
