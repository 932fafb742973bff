"""Writes files that exist whole or not at all, even if the process is killed or the power fails."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from era_cnn.errors import StorageError


def write_shared(path: Path, content: bytes) -> None:
    """As `write_atomically`, for a file that several processes may write at the same time.

    Raises:
        StorageError: If it can't be written.
    """
    own = path.with_name(f".{path.name}.{os.getpid()}")
    write_atomically(own, content)
    with _failure_names(path):
        os.replace(own, path)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that exists whole or not at all, even if power fails.

    Raises:
        StorageError: If the disk is full, read-only or broken; an existing file of that name is unchanged.
    """
    prepare(path, content)
    commit(path)


def prepare(path: Path, content: bytes) -> None:
    """Writes the content to disk under a temporary name, so that `commit` needs no further space.

    Raises:
        StorageError: If it can't be written.
    """
    with _failure_names(path):
        try:
            with _new_file(_partial(path)) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # the partial file takes up space that is needed
                _partial(path).unlink()
            raise


def commit(path: Path) -> None:
    """Renames the prepared file to its final name, durably.

    Raises:
        StorageError: If it can't be renamed.
    """
    with _failure_names(path):
        os.replace(_partial(path), path)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes a rename in a folder survive a power cut, as far as the file system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


_CANNOT_SYNC = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOTSUP)
"""The errors of folders that can't be opened or synchronised at all. PostgreSQL's fsync_fname ignores them too."""


def files_sha256(folder: Path, pattern: str) -> str:
    """The digest over the names and contents of the files in a folder, at any depth, that match a pattern.

    Links to nowhere, such as the locks of editors, are skipped.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def create(path: Path, content: bytes) -> None:
    """Writes a file that may be torn by a kill; whatever has its name is replaced, and not followed if it is a link.

    Raises:
        StorageError: If it can't be written.
    """
    with _failure_names(path), _new_file(path) as file:
        file.write(content)


def _new_file(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:  # left by a killed process; or a link or a pipe, from someone else
        path.unlink()
        return path.open("xb")


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


PARTIAL = ".partial"
"""The suffix of a file that is not whole yet."""


@contextmanager
def _failure_names(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError.of(path, error) from error
