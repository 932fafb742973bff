"""Where records lie: which of them a command names, and where a new one may be."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.folders.claims import check_length
from era_cnn.folders.plain import names_of
from era_cnn.folders.record import RECORD
from era_cnn.folders.run import MARKS_OF_A_RUN, is_sweep
from era_cnn.output import shown
from era_cnn.reports.marked import blocks_in, read_page
from era_cnn.reports.overview import ONLY_BESIDE
from era_cnn.reports.record_page import PARTS

PAGE = "README.md"
ELSEWHERE = "Give another folder with --to."


@dataclass(frozen=True)
class Places:
    """What a command names."""

    records: tuple[Path, ...]
    """The records that are named, and those in the folders that are."""

    parents: tuple[Path, ...]
    """The folders of records that are named, and those of the records that are."""

    pages: tuple[Path, ...]
    """All else, except for the pages of these parents."""


def places_of(paths: Sequence[Path]) -> Places:
    """What these paths are; each stands there once, under the first name that was given.

    Raises:
        ConfigError: If none is a folder, or one has nothing to do with records.
        RunFolderError: If the page of a folder can't be read.
    """
    every: dict[str, Path] = {}
    for path in map(whole_path, paths):
        every.setdefault(os.path.realpath(path), path)
    folders = [path for path in every.values() if path.is_dir()]
    if others := [each for each in folders if not (is_record(each) or records_below(each) or shows_records(each))]:
        refuse_place(*others)
    if not folders:
        refuse_place(*paths)
    records = [each for folder in folders for each in ([folder] if is_record(folder) else records_below(folder))]
    parents = [folder.parent if is_record(folder) else folder for folder in folders]
    beside = {os.path.realpath(parent / PAGE) for parent in parents if shows_records(parent)}
    pages = [path for whole, path in every.items() if path not in folders and whole not in beside]
    return Places(*(tuple(dict.fromkeys(each)) for each in (records, parents, pages)))


def refuse_place(*paths: Path) -> NoReturn:
    """Raises a `ConfigError` about paths that should lead to records."""
    got = ", ".join(str(shown(path)) for path in paths)
    raise ConfigError([problem("FOLDER", "be a record, or a folder of records", got, "Give one such as experiments.")])


def check_place(to: Path) -> None:
    """Checks that a record may be in a folder, which may exist.

    Raises:
        ConfigError: If it lies within a run, a sweep or another record.
        RunFolderError: If it exists and holds something else, or its path is too long.
    """
    for parent in dict.fromkeys([*to.parents, *Path(os.path.realpath(to)).parents]):
        if is_sweep(parent) or _is_run(parent):
            rule = "lie outside the folders of runs, which it is to outlast"
            raise ConfigError([problem("--to", rule, str(shown(to)), "Give another folder.")])
        if is_record(parent):
            advice = f"Give {shown(parent)} to add seeds to it, or a folder beside it."
            raise ConfigError([problem("--to", "lie outside other records", str(shown(to)), advice)])
    if not os.path.lexists(to):
        check_length(to, advice=ELSEWHERE)
    elif not is_record(to):
        _check_free(to)


def whole_path(path: Path) -> Path:
    """The path from the root, without `..`. A link that is named last keeps its name."""
    if ".." not in path.parts:
        return path.absolute()
    return Path(os.path.realpath(path) if path.name == ".." else os.path.join(os.path.realpath(path.parent), path.name))


def records_below(folder: Path) -> list[Path]:
    """The records directly in a folder, by name."""
    return sorted(each for each in folder.iterdir() if is_record(each)) if folder.is_dir() else []


def is_record(folder: Path) -> bool:
    """Whether a folder holds a record, damaged or not."""
    return os.path.lexists(folder / RECORD)


def check_readable(folder: Path) -> None:
    """Checks that no record in a folder is hidden: a page that shows all of them would leave it out silently.

    Raises:
        RunFolderError: If a folder in it can't be read.
    """
    for each in sorted(folder.iterdir()):
        try:
            os.lstat(each / RECORD)
        except OSError as error:
            if error.errno == errno.EACCES:
                rule = "be readable, since it may hold a record that belongs on the page beside it"
                got = f"{error.strerror}. Check its permissions."
                raise RunFolderError(f"{shown(each)} must {rule}, got: {got}") from error


def shows_records(folder: Path) -> bool:
    """Whether the page of a folder shows the records in it; another page has to be named to be written."""
    return not set(ONLY_BESIDE).isdisjoint(_marks_in(folder))


def _is_run(folder: Path) -> bool:
    """Whether a folder holds a run; one file that is called like one of a run does not make it one."""
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder)
    return len(set(MARKS_OF_A_RUN).intersection(names)) > 1


def _marks_in(folder: Path) -> Iterator[str]:
    if PAGE in names_of(folder):
        yield from blocks_in(read_page(folder / PAGE))


def _check_free(to: Path) -> None:
    """Raises a `RunFolderError` if a folder without a record holds anything but a page that waits for one."""
    if to.is_dir() and (not any(to.iterdir()) or not set(PARTS).isdisjoint(_marks_in(to))):
        return
    got, advice = "something else", ELSEWHERE
    if to.is_dir() and (records_below(to) or shows_records(to)):
        got, advice = "a folder of records", f"Give {shown(to)}/NAME."
    raise RunFolderError(f"{shown(to)} must be a record, or a new or empty folder, got {got}. {advice}")
