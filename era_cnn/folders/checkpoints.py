"""Checkpoints on disk: a kill at any moment leaves a whole one, and each is verified before it is used.

The SHA-256 of a file's bytes is part of its name. So there is no separate digest file that could get lost, and the name
of a damaged file no longer matches its content.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.plain import names_of, read_plain
from era_cnn.folders.storage import PARTIAL, sync_folder, write_atomically

KEPT = 2
"""The number of latest checkpoints to keep: if the newest one is damaged, the one before it is used."""

MAX_BYTES = 2**31
"""The most bytes in a checkpoint: the weights and both moments of 170 million parameters."""

_LATEST = re.compile(r"epoch-(\d+)_step-(\d+)_([0-9a-f]{64})\.pt")
_BEST = re.compile(r"best_epoch-(\d+)_([0-9a-f]{64})\.pt")


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint, and what is wrong with each damaged one that is newer, or is the best one."""

    content: bytes
    damaged: dict[Path, str]


@dataclass(frozen=True)
class CheckpointFolder:
    """The `checkpoints/` of a run: the latest ones, by epoch and steps done in it, and the best one."""

    path: Path

    def save(self, content: bytes, *, epoch: int, steps_done: int) -> Path:
        """Writes a latest checkpoint, reads it back, and only then removes older ones.

        Raises:
            StorageError: If it can't be written; the earlier ones are still there.
        """
        path = self._write(f"epoch-{epoch:05d}_step-{steps_done:07d}", content)
        latest = [path, *(old for old in self._latest() if old != path)]
        self._prune([*latest[KEPT:], *(self.path / name for name in names_of(self.path) if name.endswith(PARTIAL))])
        return path

    def save_best(self, content: bytes, *, epoch: int) -> Path:
        """Writes the best checkpoint, reads it back, and only then removes the earlier one.

        Raises:
            StorageError: If it can't be written; the earlier one is still there.
        """
        path = self._write(f"best_epoch-{epoch:05d}", content)
        self._prune(old for old in self._matching(_BEST) if old != path)
        return path

    def newest(self) -> Found | None:
        """The newest whole checkpoint, or None if there never was one. Changes nothing.

        Raises:
            RunFolderError: If there are checkpoints but all are damaged.
        """
        damaged: dict[Path, str] = {}
        for path in self._latest():
            content, problem = _read_whole(path)
            if content is not None:
                damaged |= {best: problem for best in self._matching(_BEST) if (problem := _read_whole(best)[1])}
                return Found(content, damaged)
            damaged[path] = problem
        if damaged:
            got = f"{len(damaged)} damaged: {', '.join(path.name for path in damaged)}"
            raise RunFolderError(f"{self.path} must hold a whole checkpoint, got {got}. Start a new run.")
        return None

    def best(self, *, epoch: int | None = None) -> bytes | None:
        """The best checkpoint; None if it is missing or damaged, or is not that of `epoch`. Changes nothing."""
        found = {int(match[1]): path for path in self._matching(_BEST) if (match := _BEST.fullmatch(path.name))}
        wanted = max(found, default=None) if epoch is None else epoch
        return _read_whole(found[wanted])[0] if wanted in found else None

    def set_aside(self, paths: Iterable[Path]) -> None:
        """Renames damaged checkpoints, so that they no longer count.

        Raises:
            StorageError: If they can't be renamed.
        """
        for path in paths:
            try:
                path.rename(path.with_name(path.name + ".damaged"))
            except OSError as error:
                raise StorageError.of(path, error) from error

    def _write(self, name: str, content: bytes) -> Path:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.path / f"{name}_{sha256}.pt"
        try:
            if not os.path.lexists(self.path):
                self.path.mkdir()
                sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError.of(self.path, error) from error
        write_atomically(path, content)
        if problem := _read_whole(path)[1]:
            with suppress(OSError):  # if it can't be removed, its wrong digest keeps it from being used
                path.unlink()
            raise StorageError(f"{problem} It was written a moment ago. Check the disk.")
        return path

    def _prune(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink()
            except OSError as error:
                raise StorageError.of(path, error) from error

    def _latest(self) -> list[Path]:
        """The latest checkpoints, the newest first."""
        return sorted(self._matching(_LATEST), key=_position, reverse=True)

    def _matching(self, pattern: re.Pattern[str]) -> list[Path]:
        return [self.path / name for name in names_of(self.path) if pattern.fullmatch(name)]


def _position(path: Path) -> tuple[int, int]:
    match = _LATEST.fullmatch(path.name)
    assert match is not None, "only latest checkpoints have a position"
    return int(match[1]), int(match[2])


def _read_whole(path: Path) -> tuple[bytes | None, str]:
    """The content of a checkpoint and an empty string; if it is damaged, None and what is wrong."""
    try:
        content = read_plain(path, MAX_BYTES)
    except OSError as error:
        return None, f"{path} must be readable, got: {error.strerror}."
    expected, found = path.stem.rpartition("_")[2], hashlib.sha256(content).hexdigest()
    if found != expected:
        return None, f"{path} must have the SHA-256 {expected}, got {found}."
    return content, ""
