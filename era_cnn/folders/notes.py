"""The notes and tags of a run or a sweep, in notes.md: `era-cnn note` adds to it, and people edit it by hand.

Tags: baseline, to-check

- 2026-11-26 11:31 Overfits from epoch 9 on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from era_cnn.errors import ConfigError, RunFolderError, harmless, problem
from era_cnn.folders.claims import locked
from era_cnn.folders.plain import read_plain
from era_cnn.folders.run import NOTES, NOTES_LOCK, check_place, is_run, is_sweep
from era_cnn.folders.storage import write_atomically
from era_cnn.output import shown

MAX_BYTES = 2**20
MAX_LENGTH = 2_000
"""The most characters of one note."""

WAIT_SECONDS = 10.0
"""How long a note waits for another one that is being written."""

_TAGS_LINE = re.compile(r"tags:(.*)", re.IGNORECASE)
_TAG = re.compile(r"\w[\w./+-]{0,49}")


@dataclass(frozen=True)
class Notes:
    """What people noted about a run or a sweep; what they typed is not checked.

    Attributes:
        lines: The lines of the file that say something, the newest last.
        tags: In the order in which they were given.
        damage: Why the file can't be read; empty if it can, or if there is none.
    """

    lines: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    damage: str = ""

    @property
    def latest(self) -> str:
        """The newest note, or why there is none to be read."""
        return self.damage or next(reversed(self.lines), "")


def read_notes(folder: Path) -> Notes:
    """The notes in a folder. A file that can't be read costs only the notes."""
    try:
        return _parsed(_content(folder))
    except RunFolderError as error:
        return Notes(damage=str(error).removeprefix(f"{folder}{os.sep}"))


def add_note(folder: Path, text: str, tags: Sequence[str] = ()) -> Notes:
    """Adds a note with the date, or tags, or both, to a run or a sweep, which may be running; returns all notes.

    Raises:
        ConfigError: If there is nothing to add, or it can't be written on a line.
        RunFolderError: If the folder holds neither, can't be written to, or has notes that can't be read.
        StorageError: If the notes can't be written; the former ones are unchanged.
    """
    line = " ".join(harmless(" ".join(text.split())).split())
    _check(line, tags)
    _check_folder(folder)
    check_place(folder.absolute())
    with locked(folder, NOTES_LOCK, wait_seconds=WAIT_SECONDS, advice="Check its permissions."):
        content = _with(_content(folder), f"- {datetime.now():%Y-%m-%d %H:%M} {line}" if line else "", tags)
        write_atomically(folder / NOTES, content.encode())
    return _parsed(content)


def _content(folder: Path) -> str:
    path = folder / NOTES
    if not os.path.lexists(path):
        return ""
    try:
        return read_plain(path, MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise RunFolderError(f"{path} must be a text file, got: {reason}. Fix it, or remove it.") from error


def _parsed(content: str) -> Notes:
    lines = [line for line in map(str.strip, content.split("\n")) if line]
    found = [match for line in lines if (match := _TAGS_LINE.fullmatch(line))]
    tags = dict.fromkeys(tag for match in found for tag in re.split(r"[\s,]+", match[1]) if tag)
    notes = (re.sub(r"^[-*] ", "", line) for line in lines if not _TAGS_LINE.fullmatch(line))
    return Notes(tuple(notes), tuple(tags))


def _with(content: str, note: str, tags: Sequence[str]) -> str:
    """The content with a note at the end, and tags in its line of tags, which comes first if there is none yet."""
    lines = content.rstrip().split("\n") if content.strip() else []
    if tags:
        merged = f"Tags: {', '.join(dict.fromkeys([*_parsed(content).tags, *tags]))}"
        place = next((number for number, line in enumerate(lines) if _TAGS_LINE.fullmatch(line.strip())), None)
        if place is None:
            lines = [merged, "", *lines]
        else:
            lines[place] = merged
    return "\n".join([*lines, *([note] if note else [])]).rstrip() + "\n"


def _check(line: str, tags: Sequence[str]) -> None:
    problems = [
        problem("--tag", "be a word of up to 50 letters, digits and . _ - + /", tag, "Repeat --tag for several.")
        for tag in tags
        if not _TAG.fullmatch(tag)
    ]
    if len(line) > MAX_LENGTH:
        rule = f"have at most {MAX_LENGTH:,} characters"
        problems.append(problem("TEXT", rule, len(line), "Write longer notes into notes.md by hand."))
    if not line and not tags:
        problems.append("TEXT must say something, got nothing. Give a note, or a tag with --tag.")
    if problems:
        raise ConfigError(problems)


def _check_folder(folder: Path) -> None:
    try:
        is_either = is_sweep(folder) or is_run(os.listdir(folder))
        reason = "another folder"
    except OSError as error:
        is_either, reason = False, str(error.strerror)
    if not is_either:
        raise RunFolderError(f"{shown(folder)} must be the folder of a run or a sweep, got: {reason}. Check the path.")
