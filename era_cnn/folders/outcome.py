"""The outcomes of a sweep's jobs, read from their folders, which are authoritative."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.errors import RunFolderError
from era_cnn.folders.run import RunFolder

DONE = ("completed", "reused", "pruned")
"""The states after which nothing is left to do."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job, or of a run outside a sweep, as read from its folder.

    `state` is one of planned, queued (handed over to a launcher), running, completed, reused (taken from an equal run),
    pruned, interrupted, failed, and damaged (a file can't be read; `message` says which).
    """

    number: int | None
    overrides: dict[str, str]
    """As they were typed: maps each key to its value."""

    state: str
    message: str
    result: dict[str, Any] | None
    folder: Path
    started: str = ""
    """When it was started or resumed, in ISO 8601 as far as that is known."""


def read_outcome(path: Path, number: int | None, overrides: tuple[str, ...]) -> Outcome:
    """The outcome of the job in a folder."""
    values = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    folder = RunFolder(path)
    try:
        folder.check()
        status, result = folder.state(), folder.result()
    except RunFolderError as error:
        return Outcome(number, values, "damaged", str(error), None, path)
    started = str(status.get("started") or status.get("since") or "")
    return Outcome(number, values, _state(status), status.get("message", ""), result, path, started)


def _state(status: dict[str, Any]) -> str:
    state = str(status["state"])
    if state == "completed" and "reused_from" in status:
        return "reused"
    if state == "not started":
        return "planned"
    if state == "running" and not _is_alive(status):
        return "interrupted"  # it was killed
    return state


def _is_alive(status: dict[str, Any]) -> bool:
    """Whether the process that wrote a status is running; on another machine, it is assumed to be."""
    if status.get("host", platform.node()) != platform.node():
        return True
    if "pid" not in status:
        return False
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Progress:
    """The progress of a job: completed epochs, and the latest accuracy in [0, 1], on validation images if any."""

    epochs: int
    accuracy: float | None


def read_progress(path: Path) -> Progress:
    """The progress of the job in a folder."""
    try:
        rows = RunFolder(path).read_metrics()
    except RunFolderError:
        return Progress(0, None)
    return Progress(len(rows), next(_accuracies(rows), None))


def read_curve(path: Path, metric: str) -> dict[int, float]:
    """An accuracy of the job in a folder, by epoch; epochs without an evaluation are left out."""
    try:
        rows = RunFolder(path).read_metrics()
    except RunFolderError:
        return {}
    return {int(row["epoch"]): float(row[metric]) for row in rows if row.get(metric)}


def _accuracies(rows: list[dict[str, str]]) -> Iterator[float]:
    for row in reversed(rows):
        for name in ("val_accuracy", "test_accuracy"):
            if row.get(name):
                yield float(row[name])
