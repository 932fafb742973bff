"""Standard output: text that people read, and paths as they read them best."""

from __future__ import annotations

from pathlib import Path

from era_cnn.errors import OutputError


def say(text: str, *, end: str = "\n") -> None:
    """To standard output.

    Raises:
        OutputError: If nothing can be written there any more.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        raise OutputError(
            f"Standard output must stay open, got: {error.strerror}. Send it where it is read."
        ) from error


def shown(folder: Path) -> Path:
    """A folder as short as it can be pasted from here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
