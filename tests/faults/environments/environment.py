"""What makes an environment odd, and what the tables of them have in common."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SOMEBODY = 12345
"""A user without an entry in /etc/passwd."""

MODULE = ("-m", "era_cnn")
SCRIPT = ("PLACE/bin/era-cnn",)
"""The installed command: unlike with `-m`, no module is imported from the working folder."""

Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Environment:
    """What is odd. `prepare` is given the folder of the trial, and makes what the rest speaks of.

    In `variables`, `words`, `where`, `python` and `wrapper`, PLACE is the folder of the trial; a variable that is None is removed.
    """

    variables: dict[str, str | None] = field(default_factory=dict)
    words: Sequence[str] = ()
    where: str = "PLACE"
    prepare: Prepare = lambda place: None
    set_up: Callable[[], object] = lambda: None
    closed: Sequence[int] = ()
    commands: Sequence[str] = ()
    """Only these; otherwise a run, and for every tenth environment one of the others in turn."""
    python: Sequence[str] = MODULE
    """What the interpreter is given before the command's words."""
    wrapper: Sequence[str] = ()
    """The program that starts the interpreter."""
    terminal: tuple[int, int] | None = None
    """The columns and rows of the terminal in which it runs."""
    is_loud: bool = False
    """Whether the interpreter or a library writes to the streams because of what is odd."""
    is_checkout: bool = False
    """Whether the package lies in a checkout, so that provenance must have it, or the reason why not."""


def variables(commands: Sequence[str] = (), /, **values: str | None) -> Environment:
    """Only variables are odd."""
    return Environment(dict(values), commands=commands)


def loud(**values: str | None) -> Environment:
    """Variables that make a library or the interpreter talk."""
    return Environment(dict(values), is_loud=True)


def with_file(commands: Sequence[str] = (), content: bytes = b"", /, **values: str | None) -> Environment:
    """Variables that name PLACE/file."""
    return Environment(dict(values), prepare=lambda place: write(place / "file", content), commands=commands)


def write(path: Path, content: bytes) -> None:
    """Writes a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def move_to(place: Path, folder: str) -> Path:
    """Makes a folder in the place, and moves the earlier runs there."""
    path = place / folder
    path.mkdir(parents=True)
    shutil.move(place / "earlier", path)
    return path


def without_privileges() -> None:
    """Lets permissions hold for root as well, from the start of the command on."""
    prctl, drop = ctypes.CDLL(None, use_errno=True).prctl, 24  # PR_CAPBSET_DROP
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if prctl(drop, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "privileges can't be dropped")


def shut(path: Path, mode: int = 0, owner: int = -1) -> None:
    """Gives a folder a mode and an owner; makes it if it is missing."""
    path.mkdir(exist_ok=True)
    os.chown(path, owner, owner)
    path.chmod(mode)
