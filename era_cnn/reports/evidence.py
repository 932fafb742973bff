"""`era-cnn record`: writes records of runs and their pages, writes the pages again, and checks that they are current.

A record is a folder such as experiments/model_4: record.json, and README.md and curves.svg, which are made of it.
The page of its parent folder, if it has the marks of `overview`, shows all records side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from era_cnn.errors import ConfigError, RunFolderError, amount, shortened
from era_cnn.folders.claims import claim, locked_itself
from era_cnn.folders.record import RECORD, Record, read_record
from era_cnn.folders.storage import write_atomically
from era_cnn.output import complain, say, shown
from era_cnn.reports import record_charts
from era_cnn.reports.collecting import Compose, LacksFilesError, check_same, collected, merged, why_superseded
from era_cnn.reports.marked import blocks_in, check_blocks, read_page, replaced
from era_cnn.reports.overview import ANYWHERE, on_mnist, overview
from era_cnn.reports.record_charts import shows_the_same, signed
from era_cnn.reports.record_page import NOT_WRITTEN, record_page
from era_cnn.reports.record_places import (
    ELSEWHERE,
    PAGE,
    Places,
    check_place,
    check_readable,
    places_of,
    records_below,
    shows_records,
    whole_path,
)
from era_cnn.reports.recorded import counted, public_runs

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
        ConfigError: If the runs, or those of the record, have different settings, or the folder lies within a run or
            another record.
        RunFolderError: If a run is incomplete, was limited or is damaged, the folder holds something else, or files of
            one's own that the runs used are not given.
        StorageError: If a file can't be written.
    """
    to = whole_path(to)
    record = collected(paths, compose)
    with _alone_in([to.parent]):
        check_place(to)  # here, since another process may just have written something there
        before = read_record(to) if os.path.lexists(to / RECORD) else None
        if before is not None:
            record = _added(before, record, to, compose)
        files = _files_of(to, record)
        try:
            beside = {each.name: read_record(each) for each in records_below(to.parent) if each != to}
            files |= _page_beside(to.parent, dict(sorted({**beside, to.name: record}.items())))
        except RunFolderError as error:
            complain(f"{error} {LEFT_ALONE}")
        if not os.path.lexists(to):
            _make(to)
        _write(files)
    say(f"Record: {amount(len(counted(record)), 'seed')} in {shown(to)}, {_what_was_new(before, record)}.")
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
        ConfigError: If paths lead to no record, or records that are to stand on a page have one name.
        RunFolderError: If a page of several records is damaged.
        StorageError: If a file can't be written.
    """
    places = places_of(paths)
    with _alone_in(places.parents):
        made = _generated(places, compose)
        changed = _differing(made.files)
        _write(changed)
    say(*(f"Written: {shown(path)}" for path in changed), *made.superseded)
    if not changed and not made.problems:
        say("Nothing to write: all pages are current.")
    return _reported(made.problems)


def check(paths: Sequence[Path], compose: Compose) -> int:
    """Says which generated files differ from their records, and which analyses nobody has written.

    Args:
        paths: As for `update`.
        compose: As for `update`.

    Returns:
        4 if a record is damaged, or files of one's own that its runs used are not given; 1 if files differ; else 0.

    Raises:
        ConfigError: As `update`.
        RunFolderError: If a page of several records is damaged.
    """
    made = _generated(places_of(paths), compose)
    changed = [path for path, content in _differing(made.files).items() if not _is_same_picture(path, content)]
    say(*(f"Not current: {shown(path)}" for path in changed), *made.superseded)
    say(*(line for path in made.files if path.name == RECORD for line in _unwritten(path.parent)))
    if changed:
        say("To write them again: era-cnn record --update, with the same paths.")
    if changed or made.problems:
        return _reported(made.problems) or 1
    count = len([path for path in made.files if path.name == RECORD])
    say(f"{amount(count, 'record')}: all pages are current.")
    return 0


def _added(before: Record, record: Record, to: Path, compose: Compose) -> Record:
    """The record in its folder with the runs of a new one, and with its command if its own no longer composes them.

    Where a seed has several runs, those that were there come first.
    """
    check_same(before.effective, record.effective, f"{shown(to)} and the runs")
    is_current = why_superseded(before, compose) is None
    kept = replace(before, superseded=None) if is_current else replace(record, runs=before.runs)
    return merged(kept, record.runs)


def _what_was_new(before: Record | None, record: Record) -> str:
    if before is None:
        return f"written to {RECORD}"
    new = len(record.runs) - len(before.runs)
    return f"{amount(new, 'run')} added to {RECORD}" if new else f"no run added to {RECORD}: all were there already"


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


@dataclass
class _Generated:
    """What is generated for the places that a command names."""

    files: Files = field(default_factory=dict)
    """All files, with their content."""

    superseded: list[str] = field(default_factory=list)
    """A line for each record whose command no longer trains its runs."""

    problems: list[RunFolderError] = field(default_factory=list)
    """What is damaged or can't be checked."""


def _generated(places: Places, compose: Compose) -> _Generated:
    """Generates the files of records, and the pages of several of them if no record is damaged: they would lack some.

    Raises:
        ConfigError: If records that are to stand on a page have one name.
        RunFolderError: If a page of several records is damaged.
    """
    made = _Generated()
    records: dict[Path, Record] = {}
    unchecked: list[RunFolderError] = []
    for folder in dict.fromkeys(
        [*places.records, *(each for parent in places.parents for each in records_below(parent))]
    ):
        try:
            record, problems = _with_state(folder, compose)
            records[folder] = record
            unchecked += problems
            made.files |= _files_of(folder, record) if folder in places.records else {}
            made.superseded += [f"{shown(folder)}: superseded: {record.superseded}."] if record.superseded else []
        except RunFolderError as error:
            made.problems.append(error)
    if not made.problems:
        made.files |= _pages(places, records)
    made.problems += unchecked
    return made


def _pages(places: Places, records: Mapping[Path, Record]) -> Files:
    """The pages that show several records: those beside them, and those elsewhere."""
    files: Files = {}
    for parent in places.parents:
        files |= _page_beside(parent, {each.name: records[each] for each in records_below(parent)})
    if places.pages:
        named = _by_name(records)
        files |= {page: _page_elsewhere(page, named) for page in places.pages}
    return files


def _by_name(records: Mapping[Path, Record]) -> dict[str, Record]:
    """Records by the names of their folders.

    Raises:
        ConfigError: If two have the same.
    """
    folders: dict[str, Path] = {}
    for folder in records:
        if (other := folders.setdefault(folder.name, folder)) != folder:
            rule, got = "hold records of different names, which pages show", f"{shown(other)} and {shown(folder)}"
            raise ConfigError([f"FOLDER must {rule}, got {got}. Update the pages with one of the folders."])
    return {name: records[folder] for name, folder in folders.items()}


def _page_elsewhere(page: Path, records: Mapping[str, Record]) -> bytes:
    text = read_page(page)
    if not blocks_in(text):
        raise RunFolderError(f"{page} must have the marks of a generated part, got none. Leave it out.")
    check_blocks(page, text, ANYWHERE)
    return replaced(text, overview(records)).encode()


@contextmanager
def _alone_in(folders: Sequence[Path]) -> Iterator[None]:
    """Locks these folders, if they exist: of two processes that add seeds, each must read what the other has written.

    Raises:
        InUseError: If another process keeps one locked.
    """
    with ExitStack() as stack:
        # In one order, so that two processes can't wait for each other, and once, so that none waits for itself
        for folder in sorted(dict.fromkeys(Path(os.path.realpath(each)) for each in folders)):
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
        folder / "curves.svg": signed(record_charts.curves(record)),
    }


def _is_same_picture(path: Path, content: bytes) -> bool:
    """Whether a file that differs is a picture of the same figures, drawn on another machine."""
    return path.suffix == ".svg" and path.is_file() and shows_the_same(path.read_bytes(), content)


def _page_beside(folder: Path, records: Mapping[str, Record]) -> Files:
    """The page of a folder of records, and its chart, if it has their marks."""
    if not (folder.is_dir() and shows_records(folder)):
        return {}
    check_readable(folder)
    page = folder / PAGE
    text = read_page(page)
    texts = overview(records)
    check_blocks(page, text, texts)
    files = {page: replaced(text, texts).encode()}
    if "frontier" in blocks_in(text):
        files[folder / "frontier.svg"] = signed(record_charts.frontier(on_mnist(records), public_runs()))
    return files


def _differing(files: Mapping[Path, bytes]) -> Files:
    return {path: content for path, content in files.items() if not path.is_file() or path.read_bytes() != content}


def _write(files: Mapping[Path, bytes]) -> None:
    for path, content in files.items():
        write_atomically(path, content)


def _unwritten(folder: Path) -> list[str]:
    """A line if the page of a record is there and nobody has written its analysis."""
    is_open = os.path.lexists(folder / PAGE) and f"\n{NOT_WRITTEN}\n" in read_page(folder / PAGE)
    return [f"To be written: the analysis in {shown(folder / PAGE)}."] if is_open else []
