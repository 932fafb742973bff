"""The folder of a run: each file in it is whole, or does not exist."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import numbered
from era_cnn.config.yamltext import as_yaml
from era_cnn.errors import ConfigError, RunFolderError, StorageError, show
from era_cnn.folders.checkpoints import CheckpointFolder, Found
from era_cnn.folders.claims import InUseError, locked
from era_cnn.folders.result import RESULT_KEYS
from era_cnn.folders.result import SCHEMA as RESULT_SCHEMA
from era_cnn.folders.storage import commit, prepare, write_atomically

if TYPE_CHECKING:
    import numpy as np

    from era_cnn.training.history import EpochMetrics


T = TypeVar("T")


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
    def has_begun_before(self) -> bool:
        """Whether provenance.json exists: the run has begun, and its config no longer changes."""
        return (self.path / "provenance.json").exists()

    def plan(self, config: RunConfig, hydra_files: Mapping[str, str]) -> None:
        """Writes all that a run needs to begin: the files of .hydra (content by name), and config.yaml last.

        After this, the run can be carried out from its folder alone.

        Raises:
            StorageError: If a file can't be written.
        """
        hydra_dir = self.path / ".hydra"
        try:
            hydra_dir.mkdir(parents=True, exist_ok=True)  # a killed process may have left a part
            for name, text in hydra_files.items():
                (hydra_dir / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError.of(self.path, error) from error
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
        started = None
        with suppress(RunFolderError):  # status.json is missing or damaged
            started = self.read_json("status.json").get("started")
        self.write_json("status.json", {"state": state, "started": started, "since": _now(), **details})

    def state(self) -> dict[str, Any]:
        """The content of status.json; the state is completed only if there is a result, which is written last."""
        status = self.read_json("status.json") if (self.path / "status.json").exists() else {"state": "not started"}
        if self.result() is not None:
            return {**status, "state": "completed"}
        return {**status, "state": "interrupted"} if status["state"] == "completed" else status

    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None if the run is not complete.

        Raises:
            RunFolderError: If it exists but does not hold a result.
        """
        if not (self.path / "result.json").exists():
            return None
        result = self.read_json("result.json")
        if isinstance(version := result.get("schema"), int) and version > RESULT_SCHEMA:
            path = self.path / "result.json"
            raise RunFolderError(f"{path} must have a schema up to {RESULT_SCHEMA}, got {version}. Update era_cnn.")
        if any(key not in result for key in RESULT_KEYS):
            path = self.path / "result.json"
            raise RunFolderError(f"{path} must hold a result, got {show(list(result))}. Remove it, and resume the run.")
        return result

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file atomically."""
        write_atomically(self.path / name, text.encode())

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a JSON file atomically."""
        write_atomically(self.path / name, _as_json(values))

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file.

        Raises:
            RunFolderError: If it is missing or damaged.
        """

        def parse(text: str) -> dict[str, Any]:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("not an object")
            return values

        return self.read(name, parse)

    def read(self, name: str, parse: Callable[[str], T]) -> T:
        """Reads and parses a text file.

        Raises:
            RunFolderError: If it is missing, or `parse` raises a ValueError.
        """
        path = self.path / name
        try:
            return parse(path.read_text(encoding="utf-8"))
        except ConfigError:  # already has a message of its own
            raise
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
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
        if found is None and path.exists() and path.stat().st_size:  # a checkpoint is written before its epoch is
            raise RunFolderError(
                f"{self.checkpoints.path} must hold a whole checkpoint, since {path.name} has epochs, got none. "
                "Start a new run."
            )
        return found

    def locked(self) -> AbstractContextManager[None]:
        """Locks the run against other processes; see `locked`."""
        return locked(self.path)

    def is_in_use(self) -> bool:
        """Whether another process is working on the run; False if unknown, since starting it would then report why."""
        try:
            with self.locked():
                return False
        except RunFolderError as error:
            return isinstance(error, InUseError)

    def write_predictions(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Writes predictions.npz; each array has an entry for each test image, in the order of the test set.

        Raises:
            StorageError: If it can't be written.
        """
        import numpy as np

        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_atomically(self.path / "predictions.npz", content.getvalue())

    def write_metrics(self, history: Sequence[EpochMetrics], *, with_val: bool) -> None:
        """Writes metrics.csv with a row for each epoch; evaluations that were not made are empty."""
        text = io.StringIO()
        if history:
            rows = [_metrics(metrics, with_val=with_val) for metrics in history]
            writer = csv.DictWriter(text, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.write_text("metrics.csv", text.getvalue())

    def write_fingerprints(self, history: Sequence[EpochMetrics]) -> None:
        """Writes fingerprints.jsonl with an object for each epoch: `epoch`, then the digest of each tensor."""
        lines = (json.dumps({"epoch": metrics.epoch, **metrics.fingerprint}) + "\n" for metrics in history)
        self.write_text("fingerprints.jsonl", "".join(lines))

    def read_fingerprints(self) -> dict[int, dict[str, str]]:
        """The digest of each tensor by epoch.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """

        def parse(text: str) -> dict[int, dict[str, str]]:
            lines = [json.loads(line) for line in text.splitlines()]
            for epoch, line in enumerate(lines, start=1):
                if not isinstance(line, dict) or line.pop("epoch", None) != epoch:
                    raise ValueError(f"a line {epoch} that is not for epoch {epoch}")
            return dict(enumerate(lines, start=1))

        return self.read("fingerprints.jsonl", parse)

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv as strings, without the seconds, which differ between equal runs.

        Raises:
            RunFolderError: If the file is missing.
        """

        def parse(text: str) -> list[dict[str, str]]:
            return [{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(io.StringIO(text))]

        return self.read("metrics.csv", parse)


_NEEDED = ("config.yaml", "fingerprints.jsonl", "metrics.csv", "multirun.yaml")
"""The files whose content can't be restored from other files of the folder."""


def _metrics(metrics: EpochMetrics, *, with_val: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "epoch": metrics.epoch,
        "lr": metrics.lr,
        "train_loss": metrics.train_loss,
        "train_accuracy": metrics.train_accuracy,
    }
    for name in ("val", "test") if with_val else ("test",):
        scores = getattr(metrics, name)
        row[f"{name}_loss"] = scores.loss if scores else ""
        row[f"{name}_accuracy"] = scores.accuracy if scores else ""
    return {**row, "seconds": round(metrics.seconds, 3)}


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
