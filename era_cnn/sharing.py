"""Folders that several processes write to: one does the work and the others wait, and files are replaced as a whole."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from era_cnn.errors import EraCnnError
from era_cnn.output import complain


@contextmanager
def one_at_a_time(
    folder: Path, doing: str, *, wait_seconds: float, wanted: str, error: type[EraCnnError]
) -> Iterator[bool]:
    """Waits while another process does the same in a folder, such as a download to it; it need not exist yet.

    Yields whether nobody else does the same now, as far as the file system can tell.

    The lock is on the folder itself, or on the nearest parent that exists. So it leaves nothing behind, and no user
    locks out another. It only saves double work, since files are replaced as a whole: some file systems have no locks.

    Args:
        folder: Where it is done.
        doing: What the other process does, such as "downloads mnist to", in front of the folder.
        wait_seconds: How long to wait for it.
        wanted: What is missing until then, such as "The data".
        error: What is raised if it takes longer.

    Raises:
        EraCnnError: If the other process does not end; an `error`.
        OSError: If nothing can be written there.
    """
    place = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "The folder can't be written to", str(place))
    descriptor = os.open(place, os.O_RDONLY)
    try:
        holder = f"another process that {doing} {folder}"
        end, is_reported = time.monotonic() + wait_seconds, False
        while (is_alone := _lock(descriptor)) is None:
            if time.monotonic() > end:
                got = f"{holder}, after {wait_seconds:.0f} seconds"
                raise error(f"{wanted} must become available, got {got}. End it, or try again.")
            if not is_reported:
                complain(f"Waiting for {holder} (for at most {wait_seconds:.0f} seconds)")
                is_reported = True
            time.sleep(POLL_SECONDS)
        yield is_alone
    finally:
        os.close(descriptor)  # and with it the lock


def _lock(descriptor: int) -> bool | None:
    """Locks an open folder; None while another process holds it, False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


POLL_SECONDS = 0.2


def store(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, and removes what killed processes have left of it.

    Raises:
        OSError: If it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        with suppress(OSError):  # it is another user's, or has just been removed
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


STALE_SECONDS = 3_600.0
"""The age of a partial file that nobody writes any more: writing takes less than a second."""
