"""Downloads files: bounded in time and size, and by one process at a time where others would do the same."""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import secrets
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from era_cnn.errors import DataError, EraCnnError

SILENCE_SECONDS = 30.0
"""How long a server or a proxy may send nothing."""

MOST_SECONDS = 1_800.0
"""How long one file may take in all."""

WAIT_SECONDS = 600.0
"""How long to wait for another process that downloads the same."""


def fetch(url: str, most_bytes: int) -> bytes:
    """Downloads a file, and reports its progress to standard error.

    Raises:
        OSError: If the server can't be reached, sends nothing for a while, or sends too much or too slowly.
    """
    _report(f"Downloading {url} (gives up after {SILENCE_SECONDS:.0f} seconds without an answer)")
    content, shown_at, began = bytearray(), time.monotonic(), time.monotonic()
    try:
        opener = urllib.request.build_opener()  # unlike urlopen's, it reads the environment's proxies each time
        with opener.open(url, timeout=SILENCE_SECONDS) as response:
            while part := response.read1(65_536):
                content += part
                if len(content) > most_bytes:
                    raise OSError(f"more than {most_bytes:,} bytes")
                if (now := time.monotonic()) - began > MOST_SECONDS:
                    raise TimeoutError(f"only {len(content):,} bytes in {MOST_SECONDS:.0f} seconds")
                if now - shown_at > PROGRESS_SECONDS:
                    _report(f"Downloading {url}: {len(content):,} bytes")
                    shown_at = now
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return bytes(content)


PROGRESS_SECONDS = 5.0


@contextmanager
def one_at_a_time(
    folder: Path,
    what: str,
    doing: str = "downloads",
    wait_seconds: float | None = None,
    *,
    wanted: str = "The data",
    error: type[EraCnnError] = DataError,
) -> Iterator[bool]:
    """Waits while another process does the same in a folder, such as a download to it; it need not exist yet.

    Yields whether nobody else does the same now, as far as the file system can tell.

    The lock is on the folder itself, or on the nearest parent that exists. So it leaves nothing behind, and no user
    locks out another. It only saves double work, since files are replaced as a whole: some file systems have no locks.

    Raises:
        EraCnnError: If the other process does not end; an `error`, which says that `wanted` is not there.
        OSError: If nothing can be written there.
    """
    place = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "The folder can't be written to", str(place))
    descriptor = os.open(place, os.O_RDONLY)
    try:
        is_held = _lock(
            descriptor,
            f"{doing} {what} to {folder}",
            WAIT_SECONDS if wait_seconds is None else wait_seconds,
            wanted,
            error,
        )
        yield is_held
    finally:
        os.close(descriptor)  # and with it the lock


def _lock(descriptor: int, doing: str, wait_seconds: float, wanted: str, kind: type[EraCnnError]) -> bool:
    end, is_reported = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                got = f"another process that {doing}, after {wait_seconds:.0f} seconds"
                raise kind(f"{wanted} must become available, got {got}. End it, or try again.") from None
        except OSError:  # the file system has no locks
            return False
        if not is_reported:
            _report(f"Waiting for another process that {doing} (for at most {wait_seconds:.0f} seconds)")
            is_reported = True
        time.sleep(POLL_SECONDS)


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


def _report(text: str) -> None:
    with suppress(OSError):  # standard error is closed
        print(text, file=sys.stderr, flush=True)
