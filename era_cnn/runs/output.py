"""Standard output."""

from __future__ import annotations

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
