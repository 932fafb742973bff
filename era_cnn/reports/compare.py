"""`era-cnn compare`: prints the tables of any runs and sweeps, including running ones, and compares their settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from era_cnn.errors import ConfigError, EraCnnError, RunFolderError, StorageError
from era_cnn.folders.outcome import Outcome, read_outcome
from era_cnn.folders.run import is_run, is_sweep
from era_cnn.folders.stored import open_folder
from era_cnn.folders.sweep import SweepFolder
from era_cnn.output import complain, say
from era_cnn.reports.comparisons import compared
from era_cnn.reports.conditions import Condition, conditions
from era_cnn.reports.formats import Section
from era_cnn.reports.found import found_below
from era_cnn.reports.rows import SEED, Row, read_rows
from era_cnn.reports.statistics import Group, groups
from era_cnn.reports.tables import keys_of_settings, setting_text
from era_cnn.reports.values import as_json
from era_cnn.reports.verdicts import one_run_section, section_of
from era_cnn.reports.views import as_csv, as_html, as_markdown, as_text, write_results


def compare(paths: Sequence[Path], *, output_format: str = "table", baseline: Sequence[str] = ()) -> int:
    """Prints the tables of runs, of the jobs of sweeps, and of all runs in other folders; returns 0.

    It also writes the tables of each sweep that is named. What is missing or damaged does not keep the rest from being
    shown.

    Args:
        paths: The folders.
        output_format: table, csv, md, json or html.
        baseline: Conditions `key=value`, which one setting meets: the others are compared with it. If there are none,
            it is the first setting.

    Raises:
        ConfigError: If the conditions are met by no setting, or by several.
        RunFolderError: If a folder is missing, holds no run, or is damaged itself; raised after the others are printed.
    """
    typed = conditions("--baseline", baseline)
    if typed and output_format == "csv":
        raise ConfigError(["--baseline must go with a format that has comparisons, got --format csv. Choose another."])
    paths = [path.absolute() for path in paths]
    rows, problems = _read(paths)
    if rows:
        base = paths[0] if len(paths) == 1 else Path.cwd()
        title = paths[0].name if len(paths) == 1 else "Comparison"
        say(*_shown(rows, base, title, output_format, typed).rstrip("\n").split("\n"))
    refuse(problems)
    return 0


def refuse(problems: Sequence[str]) -> None:
    """Ends a command that handled all other folders: each problem gets a line, and the last one is raised."""
    if problems:
        *others, last = dict.fromkeys(problems)
        if others:
            complain(*others)
        raise RunFolderError(last)


def _read(paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """The rows of all folders, and what is wrong with those that were named."""
    rows: list[Row] = []
    problems = []
    for path in paths:
        try:
            rows += rows_of(path)
        except (ConfigError, RunFolderError) as error:  # ConfigError: a learning-rate test
            problems.append(str(error))
    is_named_and_damaged = (row.outcome.folder in paths and row.outcome.state == "damaged" for row in rows)
    problems += [row.outcome.message for row, is_one in zip(rows, is_named_and_damaged, strict=True) if is_one]
    return rows, problems


def _shown(rows: Sequence[Row], base: Path, title: str, output_format: str, typed: Sequence[Condition]) -> str:
    found = groups(rows)
    chosen = _baseline(found, rows, typed)
    comparisons = compared(found, chosen) if chosen else []
    how = "chosen with --baseline" if typed else "the first setting; choose another with --baseline KEY=VALUE"
    more: list[Section] = []
    if comparisons:
        more = [section_of(comparisons, keys_of_settings(rows), how)]
    elif len(found) == 1 and len(found[0].rows) == 1:
        more = one_run_section(found[0])
    if output_format == "csv":
        return as_csv(rows, base)
    if output_format == "json":
        return as_json(rows, base, comparisons, more)
    if output_format == "table":
        return as_text(rows, base, *more)
    return (as_html if output_format == "html" else as_markdown)(rows, base, title, *more)


def _baseline(found: Sequence[Group], rows: Sequence[Row], typed: Sequence[Condition]) -> Group | None:
    """The setting that meets the conditions; the first one if there are none."""
    fitting = [group for group in found if all(_fits(group, condition) for condition in typed)]
    if typed and len(fitting) != 1:
        keys = keys_of_settings(rows)
        known = "; ".join(setting_text(keys, group) for group in found) or "there is only one"
        raise ConfigError([
            f"--baseline must choose one of the settings, got {' '.join(map(str, typed))}, which fits "
            f"{len(fitting) or 'none'} of them. The settings: {known}."
        ])  # fmt: skip
    return fitting[0] if fitting else None


def _fits(group: Group, condition: Condition) -> bool:
    values = group.example.values
    return condition.key in values and condition.key != SEED and condition.holds([values[condition.key]])


def rows_of(path: Path) -> list[Row]:
    """The rows of one folder.

    Raises:
        RunFolderError: If there is no such folder, or it holds no run.
    """
    if is_sweep(path):
        rows = read_rows(list(_jobs(path)))
        if not any(row.outcome.folder == path for row in rows):  # the sweep itself is not damaged
            _write(rows, path)
        return rows
    folder = open_folder(path)
    names = os.listdir(path)
    if is_run(names) or "config.yaml" in names:
        return read_rows([read_outcome(folder.path, None, ())])
    if rows := read_rows(list(_outcomes_below(path))):
        return rows
    raise RunFolderError(f"{path} must hold runs or sweeps, got none. Give their folder, or one that contains them.")


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
        outcomes = list(_outcomes_below(path))
    yield from outcomes


def _outcomes_below(folder: Path) -> Iterator[Outcome]:
    for path in found_below(folder):
        if is_sweep(path):
            yield from _jobs(path)
        else:
            yield read_outcome(path, None, ())
