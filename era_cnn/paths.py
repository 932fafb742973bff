"""Paths as people type them, and the files that they lead to."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from era_cnn.errors import ConfigError, RunFolderError, problem

_UNEXPANDED = re.compile(r"""(?:^|/)~(?=/|$)|^~|^["'“‘].*["'”’]|^"|"$|^[a-z][a-z0-9+.-]*://|\$[A-Za-z_{(]|`""")
"""A ~, a $NAME or quotes that no shell has replaced, or a URL."""


def expanded(path: str) -> str:
    """A path with a leading ~ or ~user replaced by the home folder, if there is one."""
    return os.path.expanduser(path) if os.path.isabs(os.environ.get("HOME", os.sep)) else path


def typed_path(key: str, text: str) -> str:
    """The path of a folder that may have to be created, with a leading ~ expanded.

    Raises:
        ConfigError: If it is no path, or would create a folder with a name such as ~ or $HOME.
    """
    path = expanded(text)
    if not path.strip() or not path.isprintable():
        raise ConfigError([problem(key, "be a path without line breaks and the like", text, "Give a path.")])
    ends = (path.find("/", found.end()) for found in _UNEXPANDED.finditer(path))
    if not all(os.path.lexists(path if end < 0 else path[:end]) for end in ends):
        rule = "be a path without quotes, variables and the like"
        raise ConfigError([problem(key, rule, text, "Write the whole path: only a leading ~ is replaced.")])
    return path


def current_folder() -> Path:
    """The current directory.

    Raises:
        RunFolderError: If it was removed.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise RunFolderError(
            f"The current directory must exist, got: {error.strerror}. Change to another one with cd."
        ) from error


def cache_dir() -> Path:
    """The cache folder of the user; nothing can be written there if neither XDG_CACHE_HOME nor HOME names a folder."""
    for place in (os.environ.get("XDG_CACHE_HOME", ""), os.path.join(expanded("~"), ".cache")):
        if os.path.isabs(place):  # by the XDG specification, others are to be ignored
            return Path(place, "era_cnn")
    return Path(os.devnull)


def open_plain(path: str | Path) -> BinaryIO:
    """Opens a plain file, or a link to one: a pipe or a device might never end.

    Raises:
        OSError: If it is missing, can't be read, or is something else.
    """
    file = open(path, "rb", opener=without_waiting)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a pipe or a device", str(path))
    return file


def without_waiting(path: str, flags: int) -> int:
    """Opens a file; a pipe is then read as an empty file."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has none
