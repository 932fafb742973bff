"""Writes text and paths for people to standard output."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from era_cnn.errors import OutputError


def say(text: str, *, end: str = "\n") -> None:
    """Prints to standard output and flushes it.

    Raises:
        OutputError: If standard output can no longer be written to.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        raise OutputError(f"Standard output must stay open, got: {error.strerror}. Redirect it to a file.") from error


def shown(folder: Path) -> Path:
    """The shortest path of a folder that works from the current directory."""
    with suppress(OSError, ValueError):  # the current directory was removed, or does not contain it
        return folder.relative_to(Path.cwd())
    return folder
