"""Gives a folder to one process alone: claims it when it is created, and locks it while it is in use."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from era_cnn.errors import RunFolderError, shortened
from era_cnn.folders.plain import check_entries
from era_cnn.folders.storage import sync_folder
from era_cnn.paths import current_folder

ELSEWHERE = "Choose another folder: hydra.run.dir=… (for a sweep: hydra.sweep.dir=…)."


@dataclass(frozen=True)
class Claim:
    """A folder that belongs to this process, and the parent folders that were created for it, innermost first."""

    path: Path
    made: tuple[Path, ...]

    def give_back(self) -> None:
        """Removes the folder of a run that never began, and its new parent folders unless others use them now."""
        shutil.rmtree(self.path, ignore_errors=True)  # a full or broken disk was reported already
        _remove_empty(self.made)


def claim(wanted: Path, *, advice: str = ELSEWHERE) -> Claim:
    """Creates a new folder: `wanted`, or, if that exists, its name followed by the first free number.

    The file system decides which process is first, so any number of processes may claim at the same time.

    Args:
        wanted: The folder.
        advice: What to do if it can't be created.

    Raises:
        RunFolderError: If no folder can be created there.
    """
    here = current_folder()
    wanted = Path(os.path.abspath(wanted))
    if wanted == here or wanted in here.parents:
        raise RunFolderError(f"{wanted} must be a new folder, got one that contains the current directory. {advice}")
    check_length(wanted, advice=advice)
    numbered = (wanted.with_name(f"{wanted.name}_{number}") for number in range(2, MAX_NUMBER))
    made = tuple(parent for parent in wanted.parents if not os.path.lexists(parent))
    for path in itertools.chain([wanted], numbered):
        try:
            if _made_by_us(path):
                return _synced(Claim(path, made))
        except OSError as error:
            _remove_empty(made)
            rule = "must be a folder that can be created"
            raise RunFolderError(f"{path} {rule}, got {_reason(path, error)}. {advice}") from error
    raise RunFolderError(f"{wanted} must have a free number, got {MAX_NUMBER:,} folders of that name. {advice}")


def check_length(path: Path, *, advice: str = ELSEWHERE) -> None:
    """Checks that a folder and the files in it can have their names; creates nothing.

    Raises:
        RunFolderError: If the path, or a name in it, is too long for the system.
    """
    is_long = len(os.fsencode(path)) + LONGEST_WITHIN > os.pathconf("/", "PC_PATH_MAX")
    if is_long or any(len(os.fsencode(name)) > os.pathconf("/", "PC_NAME_MAX") for name in path.parts):
        rule = "must be short enough for the file system"
        raise RunFolderError(f"{shortened(str(path), 200)} {rule}, got {len(str(path)):,} characters. {advice}")


LONGEST_WITHIN = 150
"""More bytes than the path of any file has within the folder of a run."""

MAX_NUMBER = 100_000
MAX_RACES = 100
"""How often other processes may have removed the parent of a folder just before it is created."""


def _made_by_us(path: Path, races: int = MAX_RACES) -> bool:
    """Creates a folder and its parents; False if it existed."""
    try:
        os.makedirs(path.parent, exist_ok=True)
        path.mkdir()
        return True
    except (FileNotFoundError, FileExistsError):
        if os.path.lexists(path):
            return False
        if not races:
            raise
    return _made_by_us(path, races - 1)  # another process has just removed the parent


def _synced(claimed: Claim) -> Claim:
    try:
        for each in (claimed.path, *claimed.made):
            sync_folder(each.parent)
    except OSError:
        claimed.give_back()
        raise
    return claimed


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # others use it now, or it was not created
            folder.rmdir()


def _reason(path: Path, error: OSError) -> str:
    """Why a folder can't be created; names the parent that is no folder."""
    for parent in reversed(path.parents):
        if os.path.lexists(parent) and not os.path.isdir(parent):
            what = "a link to nothing" if os.path.islink(parent) else "not a folder"
            return f"{os.strerror(errno.ENOTDIR)}: {parent} is {what}"
    return error.strerror or str(error)


class InUseError(RunFolderError):
    """Another process is using a folder."""


@contextmanager
def locked(path: Path, name: str = ".lock", *, wait_seconds: float = 0, advice: str = ELSEWHERE) -> Iterator[None]:
    """Locks a folder against other processes; the lock ends with this process, however that ends.

    Args:
        path: The folder.
        name: The file of the lock; a lock of another name is another lock.
        wait_seconds: How long to wait for another process.
        advice: What to do if the folder can't be locked.

    Raises:
        InUseError: If another process has locked it.
        RunFolderError: If it can't be written to, or its file system does not support locks.
    """
    check_entries(path, [name])
    # Whatever the umask: others who may write here can lock it.
    lock = FileLock(path / name, timeout=wait_seconds, mode=0o666)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a fallback to SoftFileLock, refused below
            lock.acquire()
    except Timeout:
        raise _in_use(path) from None
    except OSError as error:
        raise _not_writable(path, error.strerror or error, advice) from error
    try:
        if isinstance(lock, SoftFileLock):
            raise RunFolderError(f"{path} must be on a file system that supports locks, got none. {advice}")
        yield
    finally:
        lock.release()


@contextmanager
def locked_itself(path: Path, *, wait_seconds: float = 0, advice: str = ELSEWHERE) -> Iterator[None]:
    """Locks a folder that is not ours, such as that of a person's records: as `locked`, but leaves no file in it.

    The lock is on the folder itself. Where the system can't lock folders (NFS, Windows), a file has to do.

    Raises:
        InUseError: If another process has locked it.
        RunFolderError: If it can't be written to.
    """
    if not os.access(path, os.W_OK | os.X_OK):
        raise _not_writable(path, os.strerror(errno.EACCES), advice)
    with ExitStack() as stack:
        if not _locks_folder(path, wait_seconds, stack):
            stack.enter_context(locked(path, wait_seconds=wait_seconds, advice=advice))
        yield


def _locks_folder(path: Path, wait_seconds: float, stack: ExitStack) -> bool:
    """Locks a folder until the stack is left; False where the system can't."""
    try:
        import fcntl  # not on Windows

        descriptor = os.open(path, os.O_RDONLY)
    except (ImportError, OSError):
        return False
    stack.callback(os.close, descriptor)  # and with it the lock
    end = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                raise _in_use(path) from None
            time.sleep(POLL_SECONDS)
        except OSError:
            return False


POLL_SECONDS = 0.1


def _in_use(path: Path) -> InUseError:
    return InUseError(f"{path} must be free, got one in use by another process. Wait for it.")


def _not_writable(path: Path, reason: object, advice: str) -> RunFolderError:
    return RunFolderError(f"{path} must be a folder to write to, got: {reason}. {advice}")
