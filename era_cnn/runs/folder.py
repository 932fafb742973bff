"""A run's folder: claimed by one run alone, each file in it whole or not there."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from era_cnn.config import RunConfig
from era_cnn.errors import RunFolderError
from era_cnn.runs.checkpoints import CheckpointFolder, sync_folder

if TYPE_CHECKING:
    from era_cnn.training.loop import EpochRecord


@dataclass(frozen=True)
class Claim:
    """A folder that nobody else has, and the folders that were made for it, the innermost first."""

    path: Path
    made: tuple[Path, ...]

    def give_back(self) -> None:
        """Removes the folder of a run that never began, and what was made for it, unless others use that by now."""
        shutil.rmtree(self.path)
        for parent in self.made:
            try:
                parent.rmdir()
            except OSError:
                return


def claim(wanted: Path) -> Claim:
    """Creates a folder that nobody else has: `wanted`, or with the first free number behind its name.

    The file system decides who is first, so any number of processes may claim at once.

    Raises:
        RunFolderError: If nothing can be created there.
    """
    wanted = Path(os.path.abspath(wanted))
    here = Path.cwd()
    if wanted == here or wanted in here.parents:
        raise RunFolderError(f"{wanted} must be a folder of its own, got one that you stand in. {ELSEWHERE}")
    numbered = (wanted.with_name(f"{wanted.name}_{number}") for number in itertools.count(2))
    made = tuple(parent for parent in wanted.parents if not parent.exists())
    for path in itertools.chain([wanted], numbered):
        try:
            if _made_by_us(path):
                return Claim(path, made)
        except OSError as error:
            rule = "must be a folder that can be created"
            raise RunFolderError(f"{path} {rule}, got {error.strerror}. {ELSEWHERE}") from error
    raise AssertionError("there is always a next number")


def _made_by_us(path: Path) -> bool:
    """Creates a folder and those above it; False if it was there."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileNotFoundError:  # another process gave the parent back just now
            continue
        except FileExistsError:
            if path.parent.exists() and not path.parent.is_dir():
                raise
            return False
        return True


ELSEWHERE = "Choose another place: hydra.run.dir=… (of a sweep: hydra.sweep.dir=…)."


def shown(folder: Path) -> Path:
    """A folder as short as it can be pasted from here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file that exists whole or not at all, even if power fails."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_config(self, config: RunConfig) -> None:
        """The resolved config, as it was validated."""
        write_atomically(self.path / "config.yaml", yaml.safe_dump(config.model_dump(), sort_keys=False))

    def write_text(self, name: str, text: str) -> None:
        """Any text, whole."""
        write_atomically(self.path / name, text)

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Any values, whole."""
        write_atomically(self.path / name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Values that were written.

        Raises:
            RunFolderError: If they are not there or damaged.
        """
        path = self.path / name
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RunFolderError(f"{path} must hold what the run wrote, got: {reason}. Start the run anew.") from error
        return values

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Where the run is saved."""
        return CheckpointFolder(self.path / "checkpoints")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from the folder; the lock ends with its process, however that ends.

        Raises:
            RunFolderError: If another process has it.
        """
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise RunFolderError(f"{self.path} must be free, got one in use by another process. Wait for it.") from None

    def rewrite_metrics(self, records: Sequence[EpochRecord], *, with_val: bool) -> None:
        """metrics.csv with just these epochs, whatever an interrupted run had written beyond them."""
        path = self.path / "metrics.csv"
        path.unlink(missing_ok=True)
        for record in records:
            self.append_metrics(record, with_val=with_val)

    def append_metrics(self, record: EpochRecord, *, with_val: bool) -> None:
        """A row of metrics.csv; evaluations that were not made stay empty."""
        row: dict[str, object] = {
            "epoch": record.epoch,
            "lr": record.lr,
            "train_loss": record.train_loss,
            "train_accuracy": record.train_accuracy,
        }
        for name in ("val", "test") if with_val else ("test",):
            evaluation = getattr(record, name)
            row[f"{name}_loss"] = evaluation.loss if evaluation else ""
            row[f"{name}_accuracy"] = evaluation.accuracy if evaluation else ""
        row["seconds"] = round(record.seconds, 3)
        path = self.path / "metrics.csv"
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
