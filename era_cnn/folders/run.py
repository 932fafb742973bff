"""A run's folder: each file in it is whole, or not there."""

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
        """Whether it holds what a run began with: its config is then settled for good."""
        return (self.path / "provenance.json").exists()

    def plan(self, config: RunConfig, hydra_files: Mapping[str, str]) -> None:
        """Writes all that a run begins from: .hydra, text by name of the file, and config.yaml last.

        From here on the run can be carried out from its folder alone.

        Raises:
            StorageError: If something can't be written.
        """
        hydra_dir = self.path / ".hydra"
        try:
            hydra_dir.mkdir(parents=True, exist_ok=True)  # a kill may have left a part of it
            for name, text in hydra_files.items():
                (hydra_dir / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError.of(self.path, error) from error
        self.write_config(config.anchored())

    def begin(self, config: RunConfig) -> None:
        """Writes the config, if it is not there yet, and that a run is under way: from here on it can be resumed.

        Raises:
            StorageError: If it can't; so do all that write.
        """
        self._started = _now()
        if not self.has_begun_before:  # one that was planned is written anew: device and data are settled by now
            self.write_config(config)
        self.write_json("status.json", self._status("running"))

    def write_config(self, config: RunConfig) -> None:
        """Writes config.yaml.

        Raises:
            StorageError: If it can't.
        """
        self.write_text("config.yaml", as_yaml(numbered(config)))

    def end(self, state: str, message: str, **details: str) -> None:
        """Writes that the run failed or was interrupted, and why."""
        self.write_json("status.json", self._status(state, ended=_now(), message=message, **details))

    def complete(self, result: dict[str, Any], **details: str) -> None:
        """Writes result.json, the very last of a run's files: it exists only if all else could be written.

        Args:
            result: What came out.
            details: More to say in status.json.
        """
        path = self.path / "result.json"
        prepare(path, _as_json(result))
        self.write_json("status.json", self._status("completed", ended=_now(), **details))
        try:
            commit(path)
        except StorageError:
            with suppress(OSError):
                path.unlink()  # it may have its name, but not for good
            raise
        self._completed = True

    def _status(self, state: str, **details: str) -> dict[str, Any]:
        return {"state": state, "started": self._started, "host": platform.node(), "pid": os.getpid(), **details}

    def set_state(self, state: str, **details: str) -> None:
        """Writes how it stands with a run that no process is at."""
        started = None
        with suppress(RunFolderError):  # there is none yet, or it is damaged
            started = self.read_json("status.json").get("started")
        self.write_json("status.json", {"state": state, "started": started, "since": _now(), **details})

    def state(self) -> dict[str, Any]:
        """What status.json says; but completed is only what has a result, which comes last."""
        status = self.read_json("status.json") if (self.path / "status.json").exists() else {"state": "not started"}
        if self.result() is not None:
            return {**status, "state": "completed"}
        return {**status, "state": "interrupted"} if status["state"] == "completed" else status

    def result(self) -> dict[str, Any] | None:
        """What result.json holds; None if the run is not complete.

        Raises:
            RunFolderError: If it is there, and is not what a run writes.
        """
        if not (self.path / "result.json").exists():
            return None
        result = self.read_json("result.json")
        if any(key not in result for key in RESULT_KEYS):
            path = self.path / "result.json"
            raise RunFolderError(f"{path} must hold a result, got {show(list(result))}. Remove it, and resume the run.")
        return result

    def write_text(self, name: str, text: str) -> None:
        """Any text, whole."""
        write_atomically(self.path / name, text.encode())

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Any values, whole."""
        write_atomically(self.path / name, _as_json(values))

    def read_json(self, name: str) -> dict[str, Any]:
        """Values that were written.

        Raises:
            RunFolderError: If they are not there or damaged.
        """

        def parse(text: str) -> dict[str, Any]:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("not an object")
            return values

        return self.read(name, parse)

    def read(self, name: str, parse: Callable[[str], T]) -> T:
        """What `parse` makes of a text that was written.

        Raises:
            RunFolderError: If it is not there, or `parse` raises a ValueError.
        """
        path = self.path / name
        try:
            return parse(path.read_text(encoding="utf-8"))
        except ConfigError:  # a ValueError that says it already
            raise
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
            advice = "Start the run anew." if name in _NEEDED else "Remove it, and resume the run."
            raise RunFolderError(f"{path} must hold what the run wrote, got: {reason}. {advice}") from error

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Where the run is saved."""
        return CheckpointFolder(self.path / "checkpoints")

    def saved(self) -> Found | None:
        """The newest whole checkpoint, or None if there never was one. Nothing is touched.

        Raises:
            RunFolderError: If none is whole, or all are gone.
        """
        found = self.checkpoints.newest()
        path = self.path / "fingerprints.jsonl"
        if found is None and path.exists() and path.stat().st_size:  # an epoch is saved before it is recorded
            raise RunFolderError(
                f"{self.checkpoints.path} must hold a whole checkpoint, since {path.name} has epochs, got none. "
                "Start the run anew."
            )
        return found

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from the run; see `locked`."""
        return locked(self.path)

    def is_in_use(self) -> bool:
        """Whether another process is at the run; not, if it can't be found out: whoever begins it will see."""
        try:
            with self.locked():
                return False
        except RunFolderError as error:
            return isinstance(error, InUseError)

    def write_predictions(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """predictions.npz with these arrays, all of the length of the test set and in its order.

        Raises:
            StorageError: If it can't be written.
        """
        import numpy as np

        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_atomically(self.path / "predictions.npz", content.getvalue())

    def write_metrics(self, history: Sequence[EpochMetrics], *, with_val: bool) -> None:
        """metrics.csv with these epochs, a row each; evaluations that were not made stay empty."""
        text = io.StringIO()
        if history:
            rows = [_metrics(metrics, with_val=with_val) for metrics in history]
            writer = csv.DictWriter(text, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.write_text("metrics.csv", text.getvalue())

    def write_fingerprints(self, history: Sequence[EpochMetrics]) -> None:
        """fingerprints.jsonl with these epochs, an object each: `epoch`, then the digest of each tensor."""
        lines = (json.dumps({"epoch": metrics.epoch, **metrics.fingerprint}) + "\n" for metrics in history)
        self.write_text("fingerprints.jsonl", "".join(lines))

    def read_fingerprints(self) -> dict[int, dict[str, str]]:
        """The digest of each tensor by epoch.

        Raises:
            RunFolderError: If they are not there or damaged.
        """

        def parse(text: str) -> dict[int, dict[str, str]]:
            lines = [json.loads(line) for line in text.splitlines()]
            for epoch, line in enumerate(lines, start=1):
                if not isinstance(line, dict) or line.pop("epoch", None) != epoch:
                    raise ValueError(f"a line {epoch} that is not that of epoch {epoch}")
            return dict(enumerate(lines, start=1))

        return self.read("fingerprints.jsonl", parse)

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv as texts, without the seconds, in which equal runs differ.

        Raises:
            RunFolderError: If they are not there.
        """

        def parse(text: str) -> list[dict[str, str]]:
            return [{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(io.StringIO(text))]

        return self.read("metrics.csv", parse)


_NEEDED = ("config.yaml", "fingerprints.jsonl", "metrics.csv", "multirun.yaml")
"""The files whose content is nowhere else in a run's folder."""


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
