"""Opens only plain files, and lists what else lies in a folder that came from someone else.

Such a folder may hold links to other places, pipes on which a read never ends, devices, and files of any size. Nothing
here follows a link, and every read is bounded. How a folder itself is reached is up to its user: the path to it may
contain links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from era_cnn.errors import RunFolderError

MAX_TEXT_BYTES = 64 * 2**20
"""The most bytes in a text file; fingerprints.jsonl needs about 2 KiB an epoch."""

_FLAGS = (os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags for opening a file of unknown kind: fail on a link, and do not wait for the other end of a pipe."""


def read_plain(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a plain file.

    Raises:
        OSError: If it is missing, is not a plain file, or is larger than `most_bytes`.
    """
    with open(path, "rb", opener=_opener) as file:
        _check_size(path, _checked(path, os.fstat(file.fileno())), most_bytes)
        return file.read(most_bytes)


def check_plain(path: Path, most_bytes: int) -> None:
    """Checks a file without opening it, for those who open it themselves.

    Raises:
        OSError: If it is missing, is not a plain file, or is larger than `most_bytes`.
    """
    _check_size(path, _checked(path, path.lstat()), most_bytes)


def open_to_append(path: Path, mode: str = "a", **options: Any) -> IO[Any]:
    """Opens a plain file to append to it; creates it if it is missing.

    Args:
        path: The file.
        mode: Begins with `a`, as for `open`.
        options: Further arguments of `open`.

    Raises:
        OSError: If it can't be created, is not a plain file, or has a second name, which may be elsewhere.
    """
    file = open(path, mode, opener=_opener, **options)  # noqa: SIM115 - the caller closes it
    try:
        if _checked(path, os.fstat(file.fileno())).st_nlink > 1:
            raise OSError(errno.EMLINK, "a file with a second name", str(path))
    except BaseException:
        file.close()
        raise
    return file


def check_entries(path: Path, files: Collection[str], folders: Collection[str] = (), *, deep: bool = True) -> None:
    """Checks the kinds of the entries that may be read or written in a folder; others, and missing ones, are ignored.

    Args:
        path: The folder.
        files: The names of its plain files.
        folders: The names of its folders.
        deep: Whether those hold only plain files.

    Raises:
        RunFolderError: If one of them is of another kind, or the folder can't be read.
    """
    try:
        for entry in _entries(path):
            if entry.name in folders:
                _check_kind(entry, stat.S_IFDIR, "a folder")
                for inner in _entries(Path(entry.path)) if deep else ():
                    _check_kind(inner, stat.S_IFREG, "a plain file")
            elif entry.name in files:
                _check_kind(entry, stat.S_IFREG, "a plain file")
    except OSError as error:
        raise RunFolderError(
            f"{path} must be a folder that can be read, got: {error.strerror}. Check its permissions."
        ) from error


def check_way(path: Path, within: Path) -> None:
    """Raises a `RunFolderError` if one of the folders from `within` down to `path` is a link or no folder."""
    place = within
    for part in path.relative_to(within).parts:
        place /= part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunFolderError(f"{place} must be a folder, got: {error.strerror}. {_ADVICE}") from error
        if not stat.S_ISDIR(mode):
            raise RunFolderError(f"{place} must be a folder, got {_kind(mode)}. {_ADVICE}")


def walk(top: Path, most_levels: int = 20) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, but not without end: it recurses for each level until Python 3.12, and fails at a thousand."""
    for name, subfolders, files in os.walk(top):
        path = Path(name)
        yield path, subfolders, files
        if len(path.relative_to(top).parts) >= most_levels:
            subfolders.clear()


def names_of(path: Path) -> Iterator[str]:
    """The names of the plain files in a folder; none if there is no such folder."""
    try:
        yield from (entry.name for entry in _entries(path) if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return


_ADVICE = "Remove it, or get the folder again from where it came from."


def _entries(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return list(entries)


def _opener(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | _FLAGS, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # the latter on BSD
            raise OSError(error.errno, "a link", path) from error
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "a pipe or a socket", path) from error
        raise


def _checked(path: Path, status: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _kind(status.st_mode), str(path))
    return status


def _check_size(path: Path, status: os.stat_result, most_bytes: int) -> None:
    if status.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, more than the {most_bytes:,} that are read", str(path))


def _check_kind(entry: os.DirEntry[str], kind: int, rule: str) -> None:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_IFMT(mode) != kind:
        raise RunFolderError(f"{entry.path} must be {rule}, got {_kind(mode)}. {_ADVICE}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a plain file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
