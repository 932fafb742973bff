"""Writes text and paths for people to the standard streams: each argument is one line, whatever it contains."""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import shutil
import stat
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

from era_cnn.errors import ClosedOutputError, OutputError, harmless

T = TypeVar("T")

PATIENCE_SECONDS, REFRESH_SECONDS = 2.0, 0.1
"""How long work goes on before it is counted, and the time between two lines."""


INDENT = "  "
"""What the lines of a wrapped sentence begin with, except the first."""


def say(*lines: str) -> None:
    """Prints lines to standard output and flushes it. Control characters in them are escaped, line breaks too.

    In a terminal, sentences are wrapped between words.

    Raises:
        OutputError: If standard output can no longer be written to.
    """
    draw("".join(f"{_fitted(harmless(line), sys.stdout)}\n" for line in lines))


def complain(*lines: str) -> None:
    """Prints lines to standard error; if it is closed or full, does nothing, since the exit code still tells."""
    try:
        text = "\n".join(_fitted(harmless(line), sys.stderr) for line in lines)
        print(_encodable(text, sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        drop_complaints()


def drop_complaints() -> None:
    """Drops what standard error has not been able to write: the interpreter would fail when it flushes it at exit."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        descriptor = sys.stderr.fileno()
        kept = os.dup(descriptor)
        try:
            os.dup2(nowhere.fileno(), descriptor)
            sys.stderr.flush()
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)


def draw(text: str) -> None:
    """Writes text of our own, which may move the cursor, to standard output as it is.

    Raises:
        OutputError: If standard output can no longer be written to. A terminal that was closed is no error: SIGHUP
            stops the command, or is ignored on purpose.
    """
    try:
        print(_encodable(text, sys.stdout), end="", flush=True)
    except OSError as error:
        if error.errno != errno.EIO or not _is_device(sys.stdout):
            rule = "Standard output must stay open"
            kind = ClosedOutputError if error.errno == errno.EPIPE else OutputError
            raise kind(f"{rule}, got: {error.strerror}. Redirect it to a file.") from error
        discard_output()


def discard_output() -> None:
    """Sends the rest of standard output nowhere, or the interpreter would fail when it flushes it at exit."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def accept_all_characters() -> None:
    """Lets libraries, too, print characters that the encoding of a standard stream does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)


@contextmanager
def counted(items: Sequence[T], what: str) -> Iterator[Iterator[T]]:
    """The items one by one; in a terminal, a line counts them if they take long, such as `what 12 of 200`."""
    started, is_terminal, is_shown = time.monotonic(), sys.stdout.isatty(), False

    def each() -> Iterator[T]:
        nonlocal is_shown
        shown_at = started + PATIENCE_SECONDS - REFRESH_SECONDS
        for number, item in enumerate(items, start=1):
            if is_terminal and (now := time.monotonic()) - shown_at >= REFRESH_SECONDS:
                draw(f"\r{what} {number:,} of {len(items):,}\033[K")
                shown_at, is_shown = now, True
            yield item

    try:
        yield each()
    finally:
        if is_shown:
            draw("\r\033[K")


def terminal_columns() -> int | None:
    """The width of the terminal, or that of the environment variable COLUMNS; None if output goes elsewhere."""
    return shutil.get_terminal_size((0, 0)).columns or None


def can_show(text: str) -> bool:
    """Whether the encoding of standard output has all of these characters."""
    return _encodable(text, sys.stdout) == text


def shown(folder: Path) -> Path:
    """The shortest path of a folder that works from the current directory."""
    with suppress(OSError, ValueError):  # the current directory was removed, or does not contain it
        return folder.relative_to(Path.cwd())
    return folder


READABLE = "era_cnn.readable"
"""The error handler of encodings: writes something similar, or else the escaped character."""

_SIMILAR = {"±": "+/-", "→": "->", "…": "...", "×": "x", "·": "*", "–": "-"}


def _readable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_SIMILAR.get(char) or ascii(char)[1:-1] for char in missing), error.end


codecs.register_error(READABLE, _readable)


def _encodable(text: str, stream: object) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"  # a notebook's stream, or none
    return text.encode(encoding, READABLE).decode(encoding)


def wrapped(text: str, width: int, indent: str = "") -> str:
    """A sentence on lines of at most `width` characters, broken between words; all but the first are indented.

    A longer word keeps its line. A command with its first two words is not broken, so that it can be copied.
    """
    whole = re.sub(r"era-cnn \S+( \S+)?", lambda match: match[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _fitted(line: str, stream: TextIO) -> str:
    """A line as a stream should show it: in a terminal, a sentence is wrapped; what is aligned by spaces is not.

    The indentation tells what continues a line from a line of ours, whatever the text says.
    """
    columns = _columns_of(stream)
    is_sentence = "  " not in line and not line.startswith(" ")
    return wrapped(line, columns, INDENT) if columns and len(line) > columns and is_sentence else line


def _columns_of(stream: TextIO) -> int | None:
    """The width of the terminal that a stream goes to; None if it goes elsewhere. Standard output may go elsewhere."""
    if not stream.isatty():
        return None
    with suppress(OSError, ValueError):  # a stream without a descriptor, in a program that has replaced it
        return terminal_columns() or os.get_terminal_size(stream.fileno()).columns or None
    return None


def _is_device(stream: TextIO) -> bool:
    """Whether a stream is a device; once a terminal is closed, isatty no longer knows it."""
    return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
