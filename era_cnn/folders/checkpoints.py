"""Checkpoints on disk: written so that a kill at any instant leaves a whole one, verified before they are used.

The SHA-256 of a file's bytes is part of its name. So nothing else has to be written that could be torn from it, and a
file that was damaged in any way no longer has its name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.storage import PARTIAL, sync_folder, write_atomically

KEPT = 2
"""Of the latest checkpoints: if the newest is damaged, there is the one before."""

_LATEST = re.compile(r"epoch-(\d+)_step-(\d+)_([0-9a-f]{64})\.pt")
_BEST = re.compile(r"best_epoch-(\d+)_([0-9a-f]{64})\.pt")


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint, and what is wrong with each damaged one that came later, or was the best."""

    content: bytes
    damaged: dict[Path, str]


@dataclass(frozen=True)
class CheckpointFolder:
    """`checkpoints/` of a run: the latest ones, by epoch and steps done in it, and the best."""

    path: Path

    def save(self, content: bytes, *, epoch: int, steps_done: int) -> Path:
        """Writes a latest checkpoint; the older ones go only after it was read back.

        Raises:
            StorageError: If it can't be written; the ones before are still there.
        """
        path = self._write(f"epoch-{epoch:05d}_step-{steps_done:07d}", content)
        latest = [path, *(old for old in self._latest() if old != path)]
        self._prune([*latest[KEPT:], *self.path.glob(f"*{PARTIAL}")])
        return path

    def save_best(self, content: bytes, *, epoch: int) -> Path:
        """Writes the best checkpoint; the one before goes only after it was read back.

        Raises:
            StorageError: If it can't be written; the one before is still there.
        """
        path = self._write(f"best_epoch-{epoch:05d}", content)
        self._prune(old for old in self._matching(_BEST) if old != path)
        return path

    def newest(self) -> Found | None:
        """The newest whole checkpoint, or None if there never was one. Nothing is touched.

        Raises:
            RunFolderError: If there are checkpoints and none is whole.
        """
        damaged: dict[Path, str] = {}
        for path in self._latest():
            content, complaint = _read_whole(path)
            if content is not None:
                damaged |= {best: said for best in self._matching(_BEST) if (said := _read_whole(best)[1])}
                return Found(content, damaged)
            damaged[path] = complaint
        if damaged:
            got = f"{len(damaged)} damaged: {', '.join(path.name for path in damaged)}"
            raise RunFolderError(f"{self.path} must hold a whole checkpoint, got {got}. Start the run anew.")
        return None

    def best(self, *, epoch: int | None = None) -> bytes | None:
        """The best checkpoint; None if it is not there, is not whole, or is not that of `epoch`. Nothing is touched."""
        found = {int(match[1]): path for path in self._matching(_BEST) if (match := _BEST.fullmatch(path.name))}
        wanted = max(found, default=None) if epoch is None else epoch
        return _read_whole(found[wanted])[0] if wanted in found else None

    def set_aside(self, paths: Iterable[Path]) -> None:
        """Renames damaged checkpoints, so that they do not count as kept.

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
            if not self.path.is_dir():
                self.path.mkdir()
                sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError.of(self.path, error) from error
        write_atomically(path, content)
        if complaint := _read_whole(path)[1]:
            with suppress(OSError):  # what can't be removed is not used either: its digest is wrong
                path.unlink()
            raise StorageError(f"{complaint} It was written a moment ago: check the disk.")
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
        if not self.path.is_dir():
            return []
        return [path for path in self.path.iterdir() if pattern.fullmatch(path.name)]


def _position(path: Path) -> tuple[int, int]:
    match = _LATEST.fullmatch(path.name)
    assert match is not None, "only latest checkpoints have one"
    return int(match[1]), int(match[2])


def _read_whole(path: Path) -> tuple[bytes | None, str]:
    """The content of a checkpoint and no complaint, or, if it is not what was written, none and what is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return None, f"{path} must be readable, got: {error.strerror}."
    expected, found = path.stem.rpartition("_")[2], hashlib.sha256(content).hexdigest()
    if found != expected:
        return None, f"{path} must have the SHA-256 {expected}, got {found}."
    return content, ""
