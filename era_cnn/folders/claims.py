"""Folders that one process has for itself: claimed as they are made, and locked while they are worked in."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from era_cnn.errors import RunFolderError
from era_cnn.folders.storage import sync_folder


@dataclass(frozen=True)
class Claim:
    """A folder that nobody else has, and the folders that were made for it, the innermost first."""

    path: Path
    made: tuple[Path, ...]

    def give_back(self) -> None:
        """Removes the folder of a run that never began, and what was made for it, unless others use that by now."""
        shutil.rmtree(self.path, ignore_errors=True)  # a full or broken disk has been complained of already
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
                for each in (path, *made):
                    sync_folder(each.parent)
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


class InUseError(RunFolderError):
    """Another process is at a folder."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from a folder; the lock ends with its process, however that ends.

    Raises:
        InUseError: If another process has it.
        RunFolderError: If it can't be written to, or its file system has no locks.
    """
    lock = FileLock(path / ".lock", timeout=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the lock's way out, which is refused here
            lock.acquire()
    except Timeout:
        raise InUseError(f"{path} must be free, got one in use by another process. Wait for it.") from None
    except OSError as error:
        reason = error.strerror or error
        raise RunFolderError(f"{path} must be a folder to write to, got: {reason}. {ELSEWHERE}") from error
    try:
        if isinstance(lock, SoftFileLock):
            raise RunFolderError(f"{path} must be on a file system that has locks, got none. {ELSEWHERE}")
        yield
    finally:
        lock.release()
