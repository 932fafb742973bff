"""The folder of a run: each file in it is whole, or does not exist."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import numbered
from era_cnn.config.yamltext import as_yaml, parse_yaml
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.arrays import write_arrays
from era_cnn.folders.checkpoints import CheckpointFolder, Found
from era_cnn.folders.claims import InUseError, locked
from era_cnn.folders.plain import MAX_TEXT_BYTES, check_entries, check_way, read_plain
from era_cnn.folders.result import SCHEMA as RESULT_SCHEMA
from era_cnn.folders.schemas import HydraFile, checked, parse_fingerprints, parse_json, parse_metrics, parse_steps
from era_cnn.folders.storage import PARTIAL, commit, create, prepare, write_atomically

if TYPE_CHECKING:
    from era_cnn.folders.arrays import Arrays
    from era_cnn.training.history import EpochMetrics


T = TypeVar("T")

NOTES, NOTES_LOCK = "notes.md", ".notes.lock"

FILES = (
    "config.yaml", "summary.txt", "summary.json", "run.log", "metrics.csv", "steps.csv", "fingerprints.jsonl",
    "predictions.npz", "samples.npz", "result.json", "provenance.json", "status.json", "report.html", "report.md",
    "profile.txt", "profile.json.gz", NOTES, NOTES_LOCK,
)  # fmt: skip
"""The files of a run that this version reads or writes."""

LR_TEST = "find_lr.json"
"""The file that makes a folder that of a learning-rate range test."""

FOLDERS = (".hydra", "checkpoints", "plots", "tensorboard")

SWEEP_FILES = ("multirun.yaml", "ledger.jsonl")
"""The files that make a folder that of a sweep."""

MARKS_OF_A_RUN = (".hydra", "status.json", "result.json", "provenance.json")
"""A folder with one of these holds a run, even if its config.yaml is lost."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: str | None = None
        self._completed = False

    @property
    def has_begun(self) -> bool:
        """Whether this process has written to it."""
        return self._started is not None

    @property
    def is_complete(self) -> bool:
        """Whether this process has completed the run in it."""
        return self._completed

    @property
    def is_job(self) -> bool:
        """Whether it lies in the folder of a sweep."""
        return any(is_sweep(each) for each in self.path.parents)

    @property
    def has_begun_before(self) -> bool:
        """Whether provenance.json exists: the run has begun, and its config no longer changes."""
        return os.path.lexists(self.path / "provenance.json")

    def check(self) -> None:
        """Checks that everything in it that may be read or written is a plain file or folder; it may not exist yet.

        Raises:
            RunFolderError: If something is not, or if the folder of a job is reached by a link within its sweep.
        """
        check_place(self.path)
        if os.path.lexists(self.path):
            check_entries(self.path, (*FILES, *(f"{name}{PARTIAL}" for name in FILES), ".lock"), FOLDERS)

    def plan(self, config: RunConfig, hydra_files: Mapping[str, str]) -> None:
        """Writes all that a run needs to begin: the files of .hydra (content by name), and config.yaml last.

        After this, the run can be carried out from its folder alone.

        Raises:
            StorageError: If a file can't be written.
        """
        self.check()
        hydra_dir = self.path / ".hydra"
        try:
            hydra_dir.mkdir(parents=True, exist_ok=True)  # a killed process may have left a part
        except OSError as error:
            raise StorageError.of(self.path, error) from error
        for name, text in hydra_files.items():
            create(hydra_dir / name, text.encode())
        self.write_config(config.anchored())

    def begin(self, config: RunConfig) -> None:
        """Writes the config if the run is new, and the state running: after this, the run can be resumed.

        Raises:
            StorageError: If a file can't be written; also raised by the other methods that write.
        """
        self._started = _now()
        if not self.has_begun_before:  # the planned config is replaced: the device and data folder are settled now
            self.write_config(config)
        self.write_json("status.json", self._status("running"))

    def write_config(self, config: RunConfig) -> None:
        """Writes config.yaml.

        Raises:
            StorageError: If it can't be written.
        """
        self.write_text("config.yaml", as_yaml(numbered(config)))

    def end(self, state: str, message: str, **details: str) -> None:
        """Writes the state in which the run ended without a result, failed or interrupted, and why."""
        self.write_json("status.json", self._status(state, ended=_now(), message=message, **details))

    def complete(self, result: dict[str, Any], **details: str) -> None:
        """Writes result.json, the last file of a run: it exists only if all other files could be written.

        Args:
            result: The result of the run.
            details: Further entries of status.json.
        """
        path = self.path / "result.json"
        prepare(path, _as_json(result))
        self.write_json("status.json", self._status("completed", ended=_now(), **details))
        try:
            commit(path)
        except StorageError:
            with suppress(OSError):
                path.unlink()  # it was renamed, but the rename might not survive a power cut
            raise
        self._completed = True

    def _status(self, state: str, **details: str) -> dict[str, Any]:
        return {"state": state, "started": self._started, "host": platform.node(), "pid": os.getpid(), **details}

    def set_state(self, state: str, **details: str) -> None:
        """Writes the state of a run that no process is working on."""
        self.check()
        started = None
        with suppress(RunFolderError):  # status.json is missing or damaged
            started = self.read_json("status.json").get("started")
        self.write_json("status.json", {"state": state, "started": started, "since": _now(), **details})

    def state(self) -> dict[str, Any]:
        """The content of status.json; the state is completed only if there is a result, which is written last."""
        has_status = os.path.lexists(self.path / "status.json")
        status = self.read_json("status.json") if has_status else {"state": "not started"}
        if self.result() is not None:
            return {**status, "state": "completed"}
        return {**status, "state": "interrupted"} if status["state"] == "completed" else status

    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None if the run is not complete.

        Raises:
            RunFolderError: If it exists but does not hold a result.
        """
        path = self.path / "result.json"
        if not os.path.lexists(path):
            return None
        result = self.read_json("result.json")
        if (version := result["schema"]) > RESULT_SCHEMA:
            raise RunFolderError(f"{path} must have a schema up to {RESULT_SCHEMA}, got {version}. Update era_cnn.")
        return result

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file atomically."""
        write_atomically(self.path / name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a binary file atomically."""
        write_atomically(self.path / name, content)

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a JSON file atomically."""
        write_atomically(self.path / name, _as_json(values))

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads status.json, provenance.json or result.json.

        Raises:
            RunFolderError: If it is missing or damaged.
        """
        return self.read(name, lambda text: parse_json(name, text))

    def read_task(self) -> tuple[int | None, tuple[str, ...]]:
        """The number of the run in its sweep, or None, and its overrides, as Hydra recorded them in .hydra/hydra.yaml.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """
        recorded = self.read_hydra()
        number = recorded.hydra.job.num
        return number if isinstance(number, int) else None, recorded.task

    def read_hydra(self) -> HydraFile:
        """What Hydra recorded in .hydra/hydra.yaml: how the config of the run was composed.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """

        def parse(text: str) -> HydraFile:
            values = parse_yaml("hydra.yaml", text)
            found: HydraFile = checked(lambda: HydraFile.model_validate(values))
            return found

        return self.read(".hydra/hydra.yaml", parse)

    def read(self, name: str, parse: Callable[[str], T]) -> T:
        """Reads and parses a text file.

        Raises:
            RunFolderError: If it is missing, is not a plain file, is too large, or `parse` raises a ValueError.
        """
        path = self.path / name
        try:
            return parse(read_plain(path, _MOST_BYTES.get(path.name, MAX_TEXT_BYTES)).decode())
        except RunFolderError:  # already has a message of its own
            raise
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split()).rstrip(".")
            advice = "Start a new run." if name in _NEEDED else "Remove it, and resume the run."
            raise RunFolderError(f"{path} must hold what the run wrote, got: {reason}. {advice}") from error

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The folder of the run's checkpoints."""
        return CheckpointFolder(self.path / "checkpoints")

    def saved(self) -> Found | None:
        """The newest whole checkpoint, or None if there never was one. Changes nothing.

        Raises:
            RunFolderError: If all checkpoints are damaged or missing.
        """
        found = self.checkpoints.newest()
        path = self.path / "fingerprints.jsonl"
        if (
            found is None and os.path.lexists(path) and path.lstat().st_size
        ):  # a checkpoint is written before its epoch is
            raise RunFolderError(
                f"{self.checkpoints.path} must hold a whole checkpoint, since {path.name} has epochs, got none. "
                "Start a new run."
            )
        return found

    def locked(self) -> AbstractContextManager[None]:
        """Locks the run against other processes; see `locked`. Before, the kinds of its files are checked."""
        self.check()
        return locked(self.path)

    def is_in_use(self) -> bool:
        """Whether another process is working on the run; False if unknown, since starting it would then report why."""
        try:
            with self.locked():
                return False
        except RunFolderError as error:
            return isinstance(error, InUseError)

    def last_written(self) -> int:
        """When a file in it, or a checkpoint, was last written, in nanoseconds since 1970."""
        folders = [self.path, self.checkpoints.path]
        return max((each.stat().st_mtime_ns for each in folders if each.exists()), default=0)

    def write_predictions(self, arrays: Arrays) -> None:
        """Writes predictions.npz; each array has an entry for each test image, in the order of the test set.

        Raises:
            StorageError: If it can't be written.
        """
        write_arrays(self.path / "predictions.npz", arrays)

    def write_samples(self, arrays: Arrays) -> None:
        """Writes samples.npz: images and maps for reports.

        Raises:
            StorageError: If it can't be written.
        """
        write_arrays(self.path / "samples.npz", arrays, compress=True)

    def subfolder(self, name: str) -> Path:
        """The path of one of its folders, which is created if it is missing.

        Raises:
            StorageError: If it can't be created.
        """
        path = self.path / name
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError.of(path, error) from error
        return path

    def write_metrics(self, history: Sequence[EpochMetrics], *, with_val: bool, with_ema: bool = False) -> None:
        """Writes metrics.csv with a row for each epoch; evaluations that were not made are empty."""
        splits = ("val", "test") if with_val else ("test",)
        scored = [*splits, *(f"ema_{split}" for split in splits if with_ema)]
        self._write_rows("metrics.csv", [_metrics(metrics, scored) for metrics in history])

    def write_steps(self, history: Sequence[EpochMetrics]) -> None:
        """Writes steps.csv with a row for each window of each epoch."""
        self._write_rows("steps.csv", [row for metrics in history for row in metrics.steps.rows(metrics.epoch)])

    def _write_rows(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.write_text(name, text.getvalue())

    def write_fingerprints(self, history: Sequence[EpochMetrics]) -> None:
        """Writes fingerprints.jsonl with an object for each epoch: `epoch`, then the digest of each tensor."""
        lines = (json.dumps({"epoch": metrics.epoch, **metrics.fingerprint}) + "\n" for metrics in history)
        self.write_text("fingerprints.jsonl", "".join(lines))

    def read_fingerprints(self) -> dict[int, dict[str, str]]:
        """The digest of each tensor by epoch.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """
        return self.read("fingerprints.jsonl", parse_fingerprints)

    def read_metrics(self, *, with_seconds: bool = False) -> list[dict[str, str]]:
        """The rows of metrics.csv as strings, without the seconds unless asked, since they differ between equal runs.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """
        rows = self.read("metrics.csv", parse_metrics)
        return [{key: row[key] for key in row if with_seconds or key != "seconds"} for row in rows]

    def read_steps(self) -> list[dict[str, float]]:
        """The rows of steps.csv.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """
        return self.read("steps.csv", parse_steps)


def reports_about(path: Path) -> list[Path]:
    """The folders whose report.html shows a run or a sweep: its own, and that of the sweep whose job it is."""
    around = [path, *filter(is_sweep, path.parents)]
    return [each for each in around if os.path.lexists(each / "report.html")]


def check_place(path: Path) -> None:
    """Raises a `RunFolderError` if the folder of a job is reached by a link within its sweep."""
    for sweep_dir in [each for each in path.parents if is_sweep(each)][-1:]:
        check_way(path, sweep_dir)


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return any(os.path.lexists(f"{path}{os.sep}{name}") for name in SWEEP_FILES)


_MOST_BYTES = {
    "config.yaml": 2**20, "hydra.yaml": 2**20, "multirun.yaml": 2**20, "status.json": 2**22, "result.json": 2**20,
    "metrics.csv": 2**24, "steps.csv": 2**24,
}  # fmt: skip
"""More than a run writes, by the name of the file: to parse 64 MiB of any of them takes minutes, or gigabytes."""


def is_run(names: Iterable[str]) -> bool:
    """Whether a folder with these names in it is that of a run, damaged or not."""
    return not set(MARKS_OF_A_RUN).isdisjoint(names)


_NEEDED = ("config.yaml", "fingerprints.jsonl", "metrics.csv", "multirun.yaml")
"""The files whose content can't be restored from other files of the folder."""


def _metrics(metrics: EpochMetrics, scored: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {
        "epoch": metrics.epoch,
        "lr": metrics.lr,
        "train_loss": metrics.train_loss,
        "train_accuracy": metrics.train_accuracy,
    }
    for name in scored:
        scores = getattr(metrics, name)
        row[f"{name}_loss"] = scores.loss if scores else ""
        row[f"{name}_accuracy"] = scores.accuracy if scores else ""
    return {**row, "seconds": round(metrics.seconds, 3)}


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
