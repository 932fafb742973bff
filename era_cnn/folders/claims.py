"""Gives a folder to one process alone: claims it when it is created, and locks it while it is in use."""

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
from era_cnn.folders.plain import check_entries
from era_cnn.folders.storage import sync_folder


@dataclass(frozen=True)
class Claim:
    """A folder that belongs to this process, and the parent folders that were created for it, innermost first."""

    path: Path
    made: tuple[Path, ...]

    def give_back(self) -> None:
        """Removes the folder of a run that never began, and its new parent folders unless others use them now."""
        shutil.rmtree(self.path, ignore_errors=True)  # a full or broken disk was reported already
        for parent in self.made:
            try:
                parent.rmdir()
            except OSError:
                return


def claim(wanted: Path) -> Claim:
    """Creates a new folder: `wanted`, or, if that exists, its name followed by the first free number.

    The file system decides which process is first, so any number of processes may claim at the same time.

    Raises:
        RunFolderError: If no folder can be created there.
    """
    wanted = Path(os.path.abspath(wanted))
    here = Path.cwd()
    if wanted == here or wanted in here.parents:
        raise RunFolderError(f"{wanted} must be a new folder, got one that contains the current directory. {ELSEWHERE}")
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
    """Creates a folder and its parents; False if it existed."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileNotFoundError:  # another process has just removed the parent
            continue
        except FileExistsError:
            if path.parent.exists() and not path.parent.is_dir():
                raise
            return False
        return True


ELSEWHERE = "Choose another folder: hydra.run.dir=… (for a sweep: hydra.sweep.dir=…)."


class InUseError(RunFolderError):
    """Another process is using a folder."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a folder against other processes; the lock ends with this process, however that ends.

    Raises:
        InUseError: If another process has locked it.
        RunFolderError: If it can't be written to, or its file system does not support locks.
    """
    check_entries(path, [".lock"])
    lock = FileLock(path / ".lock", timeout=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a fallback to SoftFileLock, refused below
            lock.acquire()
    except Timeout:
        raise InUseError(f"{path} must be free, got one in use by another process. Wait for it.") from None
    except OSError as error:
        reason = error.strerror or error
        raise RunFolderError(f"{path} must be a folder to write to, got: {reason}. {ELSEWHERE}") from error
    try:
        if isinstance(lock, SoftFileLock):
            raise RunFolderError(f"{path} must be on a file system that supports locks, got none. {ELSEWHERE}")
        yield
    finally:
        lock.release()
