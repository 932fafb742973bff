"""`era-cnn compare`: prints the tables of any runs and sweeps, including running ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from era_cnn.errors import EraCnnError, RunFolderError, StorageError
from era_cnn.folders.outcome import Outcome, read_outcome
from era_cnn.folders.run import is_sweep
from era_cnn.folders.stored import run_folder
from era_cnn.folders.sweep import SweepFolder
from era_cnn.output import complain, say
from era_cnn.reports.rows import Row, read_rows
from era_cnn.reports.tables import as_text, write_results

MOST_LEVELS = 6
"""How far below a folder runs are searched for; `outputs` has them on the second level, `multirun` on the third."""

MARKS_OF_A_RUN = (".hydra", "status.json", "result.json", "provenance.json")
"""A folder with one of these holds a run, even if its config.yaml is lost."""


def compare(paths: Sequence[Path]) -> int:
    """Prints the tables of runs, of the jobs of sweeps, and of all runs in other folders; returns 0.

    It also writes the tables of each sweep that is named. What is damaged does not keep the rest from being shown.

    Raises:
        RunFolderError: If one is missing, holds no run, or is damaged itself; raised after the others are printed.
    """
    paths = [path.absolute() for path in paths]
    rows = [row for path in paths for row in _rows(path)]
    say(*as_text(rows, paths[0] if len(paths) == 1 else Path.cwd()).split("\n"))
    if damaged := [
        row.outcome.message for row in rows if row.outcome.folder in paths and row.outcome.state == "damaged"
    ]:
        raise RunFolderError(" ".join(dict.fromkeys(damaged)))  # an error is one line
    return 0


def _rows(path: Path) -> list[Row]:
    """The rows of one folder.

    Raises:
        ConfigError: If there is no such folder.
        RunFolderError: If it holds no run.
    """
    if is_sweep(path):
        rows = read_rows(list(_jobs(path)))
        if not any(row.outcome.folder == path for row in rows):  # the sweep itself is not damaged
            _write(rows, path)
        return rows
    folder = run_folder(path)
    names = os.listdir(path)
    if not _is_run(names) and "config.yaml" not in names:
        if rows := read_rows(list(_found_below(path))):
            return rows
        raise RunFolderError(
            f"{path} must hold runs or sweeps, got none. Give their folder, or one that contains them."
        )
    return read_rows([read_outcome(folder.path, None, ())])


def _write(rows: Sequence[Row], sweep_dir: Path) -> None:
    try:
        write_results(rows, sweep_dir)
    except StorageError as error:  # the folder may be read-only; the tables are shown anyway
        complain(str(error))


def _jobs(path: Path) -> Iterator[Outcome]:
    """The outcomes of a sweep; if it is damaged, one that says so, and those of all runs in its folder."""
    sweep = SweepFolder(path)
    try:
        sweep.read_request()
        outcomes = sweep.outcomes(sweep.jobs(on_damage=lambda error: complain(str(error))))
    except EraCnnError as error:
        yield Outcome(None, {}, "damaged", str(error), None, path)
        outcomes = list(_found_below(path))
    yield from outcomes


def _found_below(folder: Path) -> Iterator[Outcome]:
    """The outcomes of all runs and sweeps in a folder, in the order of their names; links are not followed."""
    for name, subfolders, files in os.walk(folder, onerror=_report):
        path = Path(name)
        is_at_top = path == folder
        if not is_at_top and is_sweep(path):
            yield from _jobs(path)
        elif not is_at_top and _is_run([*subfolders, *files]):
            yield read_outcome(path, None, ())
        elif len(path.relative_to(folder).parts) < MOST_LEVELS:
            subfolders.sort()
            continue
        subfolders.clear()


def _report(error: OSError) -> None:
    complain(f"{error.filename} must be readable, got: {error.strerror}. Its runs are left out.")


def _is_run(names: Iterable[str]) -> bool:
    return not set(MARKS_OF_A_RUN).isdisjoint(names)
