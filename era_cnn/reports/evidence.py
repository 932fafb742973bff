"""`era-cnn record`: writes records of runs and their pages, writes the pages again, and checks that they are current.

A record is a folder such as experiments/model_4: record.json, and README.md and curves.svg, which are made of it.
The page of its parent folder, if it has the marks of `overview`, shows all records side by side.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from era_cnn.errors import ConfigError, RunFolderError, amount, problem, shortened
from era_cnn.folders.claims import check_length, claim, locked_itself
from era_cnn.folders.plain import names_of
from era_cnn.folders.record import RECORD, Record, read_record
from era_cnn.folders.run import is_run, is_sweep
from era_cnn.folders.storage import write_atomically
from era_cnn.output import complain, say, shown
from era_cnn.reports import record_charts
from era_cnn.reports.charts import Chart
from era_cnn.reports.collecting import Compose, LacksFilesError, check_same, collected, merged, why_superseded
from era_cnn.reports.marked import blocks_in, check_blocks, read_page, replaced
from era_cnn.reports.overview import ANYWHERE, on_mnist, overview
from era_cnn.reports.record_page import NOT_WRITTEN, record_page
from era_cnn.reports.recorded import counted, public_runs

PAGE = "README.md"
ELSEWHERE = "Give another folder with --to."
LEFT_ALONE = "Until then, pages that show all records are left as they are."
MAX_WAIT_SECONDS = 60.0
"""How long to wait for another process that writes records."""

Files = dict[Path, bytes]
"""The content of files by their paths."""


def record_runs(paths: Sequence[Path], to: Path, compose: Compose) -> int:
    """Records runs and the jobs of sweeps in a folder, or adds them to the record there; returns 0.

    Everything is read and drawn before anything is written. A damaged record beside it is reported, and the page of all
    records is then left as it is.

    Raises:
        ConfigError: If the runs, or those of the record, have different settings.
        RunFolderError: If a run is incomplete, was limited or is damaged, the folder holds something else, or files of
            one's own that the runs used are not given.
        StorageError: If a file can't be written.
    """
    to = to.absolute()
    if is_sweep(to.parent) or (to.parent.is_dir() and is_run(os.listdir(to.parent))):
        rule = "lie outside the folders of runs, which it is to outlast"
        raise ConfigError([problem("--to", rule, str(shown(to)), "Give another folder.")])
    record = collected(paths, compose)
    with _alone_in([to.parent]):
        is_there = os.path.lexists(to / RECORD)
        if is_there:
            record = _added(read_record(to), record, to, compose)
        elif os.path.lexists(to):
            _check_free(to)
        else:
            check_length(to, advice=ELSEWHERE)
        files = _files_of(to, record)
        try:
            files |= _files_beside(to.parent, dict(sorted({**dict(_records_in(to.parent)), to.name: record}.items())))
        except RunFolderError as error:
            complain(f"{error} {LEFT_ALONE}")
        if not os.path.lexists(to):
            _make(to)
        _write(files)
    said = "added to" if is_there else "written to"
    say(f"Record: {amount(len(counted(record)), 'seed')} in {shown(to)}, {said} {RECORD}.")
    say(*_unwritten(to))
    return 0


def update(paths: Sequence[Path], compose: Compose) -> int:
    """Writes all that is generated from records again where it differs; returns 0.

    A damaged record is reported and does not stop the others; but then no page that shows all records is written. Of a
    record whose runs used files of one's own that are not given, it stays open whether it is superseded. After either,
    4 is returned.

    Args:
        paths: Records, folders of records, and pages in Markdown with marks.
        compose: Says whether a record is superseded.

    Raises:
        RunFolderError: If a page of several records is damaged.
        StorageError: If a file can't be written.
    """
    with _alone_in(_parents(paths)):
        files, damaged = _generated(paths, compose)
        changed = _differing(files)
        _write(changed)
    if changed:
        say(*(f"Written: {shown(path)}" for path in changed))
    elif not damaged:
        say("Nothing to write: all pages are current.")
    return _reported(damaged)


def check(paths: Sequence[Path], compose: Compose) -> int:
    """Says which generated files differ from their records, and which analyses nobody has written.

    Args:
        paths: As for `update`.
        compose: As for `update`.

    Returns:
        4 if a record is damaged, or files of one's own that its runs used are not given; 1 if files differ; else 0.

    Raises:
        RunFolderError: If a page of several records is damaged.
    """
    files, damaged = _generated(paths, compose)
    changed = [path for path, content in _differing(files).items() if not _shows_the_same(path, content)]
    say(*(f"Not current: {shown(path)}" for path in changed))
    say(*(line for path in files if path.name == RECORD for line in _unwritten(path.parent)))
    if changed:
        say("To write them again: era-cnn record --update, with the same paths.")
    if changed or damaged:
        return _reported(damaged) or 1
    say(f"{amount(len([path for path in files if path.name == RECORD]), 'record')}: all pages are current.")
    return 0


def record_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of records among these paths, and in them.

    Raises:
        ConfigError: If there is none.
    """
    folders = [path.absolute() for path in paths if path.is_dir()]
    found = [each for folder in folders for each in ([folder] if _is_record(folder) else _below(folder))]
    if not folders:
        got = ", ".join(map(str, paths))
        advice = "Give a folder such as experiments."
        raise ConfigError([problem("FOLDER", "be a record, or a folder of records", got, advice)])
    return list(dict.fromkeys(found))


def _added(before: Record, record: Record, to: Path, compose: Compose) -> Record:
    """The record in its folder with the runs of a new one, and with its command if its own no longer composes them.

    Where a seed has several runs, those that were there come first.
    """
    check_same(before.effective, record.effective, f"{shown(to)} and the runs")
    is_current = why_superseded(before, compose) is None
    kept = replace(before, superseded=None) if is_current else replace(record, runs=before.runs)
    return merged(kept, record.runs)


def _check_free(to: Path) -> None:
    """Raises a `RunFolderError` if a folder without a record holds anything but a page that waits for one."""
    if to.is_dir() and (not any(to.iterdir()) or blocks_in(read_page(to / PAGE) if PAGE in names_of(to) else "")):
        return
    rule = "must be a record, or a new or empty folder"
    raise RunFolderError(f"{to} {rule}, got something else. {ELSEWHERE}")


def _make(to: Path) -> None:
    claimed = claim(to, advice=ELSEWHERE)
    if claimed.path != to:
        claimed.give_back()
        raise RunFolderError(f"{to} must be a new folder, got one that another process has just made. {ELSEWHERE}")


def _reported(damaged: Sequence[RunFolderError]) -> int:
    """Reports what is damaged; returns the exit code."""
    for error in damaged:
        complain(str(error))
    return damaged[0].exit_code if damaged else 0


def _generated(paths: Sequence[Path], compose: Compose) -> tuple[Files, list[RunFolderError]]:
    """All files that are generated for these paths, with their content; and what is damaged or can't be checked.

    Raises:
        RunFolderError: If a page of several records is damaged.
    """
    files: Files = {}
    every: dict[Path, Record] = {}
    damaged: list[RunFolderError] = []
    unchecked: list[RunFolderError] = []
    folders, parents = record_folders(paths), _parents(paths)
    for folder in dict.fromkeys([*folders, *(each for parent in parents for each in _below(parent))]):
        try:
            every[folder], problems = _with_state(folder, compose)
            unchecked += problems
            files |= _files_of(folder, every[folder]) if folder in folders else {}
        except RunFolderError as error:
            damaged.append(error)
    if damaged:
        return files, [*damaged, *unchecked]  # a page of all records would lack some
    for parent in parents:
        files |= _files_beside(parent, {each.name: every[each] for each in _below(parent)})
    for page in [path.absolute() for path in paths if not path.is_dir()]:
        files |= _file_elsewhere(page, {folder.name: record for folder, record in every.items()})
    return files, unchecked


def _file_elsewhere(page: Path, records: Mapping[str, Record]) -> Files:
    text = read_page(page)
    if not blocks_in(text):
        raise RunFolderError(f"{page} must have the marks of a generated part, got none. Leave it out.")
    check_blocks(page, text, ANYWHERE)
    return {page: replaced(text, overview(records)).encode()}


def _parents(paths: Sequence[Path]) -> list[Path]:
    """The folders of records: those that are named, and those of the records that are named."""
    folders = [path.absolute() for path in paths if path.is_dir()]
    return list(dict.fromkeys(folder.parent if _is_record(folder) else folder for folder in folders))


@contextmanager
def _alone_in(folders: Sequence[Path]) -> Iterator[None]:
    """Locks these folders, if they exist: of two processes that add seeds, each must read what the other has written.

    Raises:
        InUseError: If another process keeps one locked.
    """
    with ExitStack() as stack:
        for folder in sorted(folders):  # in one order, so that two processes can't wait for each other
            if folder.is_dir():
                stack.enter_context(
                    locked_itself(folder, wait_seconds=MAX_WAIT_SECONDS, advice="Check its permissions.")
                )
        yield


def _with_state(folder: Path, compose: Compose) -> tuple[Record, list[RunFolderError]]:
    """The record in a folder, which says whether it is superseded, and why; and what keeps that from being told.

    Raises:
        RunFolderError: If the record is damaged.
    """
    record = read_record(folder)
    try:
        why = why_superseded(record, compose)
    except LacksFilesError as error:
        return record, [RunFolderError(f"{shown(folder)}: {error}")]
    return replace(record, superseded=why and shortened(why, 1_000)), []


def _files_of(folder: Path, record: Record) -> Files:
    page = folder / PAGE
    before = read_page(page) if os.path.lexists(page) else None
    return {
        folder / RECORD: record.to_text().encode(),
        page: record_page(record, page, before).encode(),
        folder / "curves.svg": _signed(record_charts.curves(record)),
    }


def _signed(chart: Chart) -> bytes:
    """A chart as SVG that says in its last line what it shows."""
    sha256 = hashlib.sha256(repr(chart.shows).encode()).hexdigest()
    return chart.svg_on_white().rstrip() + f"\n<!-- SHA-256 of what it shows: {sha256} -->\n".encode()


def _shows_the_same(path: Path, content: bytes) -> bool:
    """Whether a file that differs is a picture of the same figures, drawn on another machine."""
    if path.suffix != ".svg" or not path.is_file():
        return False
    here, wanted = path.read_bytes().splitlines(), content.splitlines()
    return len(here) > 1 and here[-1] == wanted[-1]


def _files_beside(folder: Path, records: Mapping[str, Record]) -> Files:
    """The page of a folder of records, and its chart, if it has their marks."""
    page = folder / PAGE
    text = read_page(page) if folder.is_dir() and PAGE in names_of(folder) else ""
    if not blocks_in(text):
        return {}
    texts = overview(records)
    check_blocks(page, text, texts)
    files = {page: replaced(text, texts).encode()}
    if "frontier" in blocks_in(text):
        files[folder / "frontier.svg"] = _signed(record_charts.frontier(on_mnist(records), public_runs()))
    return files


def _records_in(folder: Path) -> Iterator[tuple[str, Record]]:
    for each in _below(folder):
        yield each.name, read_record(each)


def _below(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if _is_record(each)) if folder.is_dir() else []


def _is_record(folder: Path) -> bool:
    return os.path.lexists(folder / RECORD)


def _differing(files: Mapping[Path, bytes]) -> Files:
    return {path: content for path, content in files.items() if not path.is_file() or path.read_bytes() != content}


def _write(files: Mapping[Path, bytes]) -> None:
    for path, content in files.items():
        write_atomically(path, content)


def _unwritten(folder: Path) -> list[str]:
    """A line if the page of a record is there and nobody has written its analysis."""
    is_open = os.path.lexists(folder / PAGE) and f"\n{NOT_WRITTEN}\n" in read_page(folder / PAGE)
    return [f"To be written: the analysis in {shown(folder / PAGE)}."] if is_open else []
