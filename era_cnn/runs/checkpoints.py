"""Checkpoints on disk: written so that a kill at any instant leaves a whole one, verified before they are used.

The SHA-256 of a file's bytes is part of its name. So nothing else has to be written that could be torn from it, and a
file that was damaged in any way no longer has its name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from era_cnn.errors import RunFolderError

KEPT = 2
"""Of the latest checkpoints: if the newest is damaged, there is the one before."""

_LATEST = re.compile(r"epoch-(\d+)_step-(\d+)_([0-9a-f]{64})\.pt")
_BEST = re.compile(r"best_epoch-(\d+)_([0-9a-f]{64})\.pt")


@dataclass(frozen=True)
class CheckpointFolder:
    """`checkpoints/` of a run: the latest ones, by epoch and steps done in it, and the best."""

    path: Path

    def save(self, content: bytes, *, epoch: int, steps_done: int) -> Path:
        """Writes a latest checkpoint; the older ones go only after it was read back."""
        path = self._write(f"epoch-{epoch:05d}_step-{steps_done:07d}", content)
        for old in self._latest()[KEPT:]:
            if old != path:
                old.unlink()
        return path

    def save_best(self, content: bytes, *, epoch: int) -> Path:
        """Writes the best checkpoint; the one before goes only after it was read back."""
        path = self._write(f"best_epoch-{epoch:05d}", content)
        for old in self._matching(_BEST):
            if old != path:
                old.unlink()
        return path

    def newest(self, complain: Callable[[str], None]) -> bytes | None:
        """The newest whole checkpoint, or None if there never was one. Damaged ones are named to `complain`.

        Raises:
            RunFolderError: If there are checkpoints and none is whole.
        """
        paths = self._latest()
        for path in paths:
            content = path.read_bytes()
            expected, found = path.stem.rpartition("_")[2], hashlib.sha256(content).hexdigest()
            if found == expected:
                return content
            complain(f"{path} must have the SHA-256 {expected}, got {found}. Going back to the checkpoint before it.")
        if paths:
            raise RunFolderError(
                f"{self.path} must hold a whole checkpoint, got {len(paths)} damaged. Start the run anew."
            )
        return None

    def _write(self, name: str, content: bytes) -> Path:
        self.path.mkdir(exist_ok=True)
        sha256 = hashlib.sha256(content).hexdigest()
        path, partial = self.path / f"{name}_{sha256}.pt", self.path / f"{name}.partial"
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(self.path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            path.unlink()
            raise RunFolderError(f"{path} must read back as it was written, got other bytes. Check the disk.")
        return path

    def _latest(self) -> list[Path]:
        """The latest checkpoints, the newest first."""
        return sorted(self._matching(_LATEST), key=lambda path: path.name, reverse=True)

    def _matching(self, pattern: re.Pattern[str]) -> list[Path]:
        if not self.path.is_dir():
            return []
        return [path for path in self.path.iterdir() if pattern.fullmatch(path.name)]


def sync_folder(path: Path) -> None:
    """Makes a rename in a folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
