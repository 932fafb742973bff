"""The tables of runs and settings as text for a terminal, Markdown, CSV and a page of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from era_cnn.folders.storage import write_shared
from era_cnn.output import terminal_columns
from era_cnn.reports.columns import columns
from era_cnn.reports.formats import Section, aligned, columns_of, csv_text, markdown_section, plain, wrapped
from era_cnn.reports.page import page
from era_cnn.reports.rows import SEED, Row
from era_cnn.reports.statistics import best, groups
from era_cnn.reports.tables import (
    ACCURACIES,
    groups_table,
    jobs_table,
    keys_of_settings,
    label,
    messages,
    note,
    setting_text,
)


def as_text(rows: Sequence[Row], base: Path, *more: Section) -> str:
    """Both tables for a terminal, no wider than that, and further sections."""
    width, jobs = terminal_columns(), jobs_table(rows, base)
    if width and columns_of(jobs) > width and all(_tells_its_folder(row, base) for row in rows):
        jobs = jobs[0][:-1], [line[:-1] for line in jobs[1]]  # folder: it would be a table of its own below
    labels = 1 if jobs[0][0] == "job" else len(columns(rows))
    said = [aligned(jobs, width, labels), *(wrapped(each, width) for each in messages(rows, base))]
    found, explained = groups(rows), note(rows)
    if any(len(group.rows) > 1 for group in found):
        said += ["", aligned(groups_table(rows), width, len(keys_of_settings(rows))), wrapped(explained, width)]
    elif winners := best(found):
        keys = keys_of_settings(rows)
        settings = [f"{setting_text(keys, group)} ({label(group.rows[0], rows, base)})" for group in winners]
        said += ["", wrapped(f"{plain('Best setting: ' + ', equal to '.join(settings))}. {explained}", width)]
    elif explained:
        said += ["", wrapped(explained, width)]
    for section in more:
        table = [aligned(section.table, width, section.labels)] if section.table else []
        said += ["", *table, *(wrapped(sentence, width) for sentence in section.sentences)]
    return "\n".join(said)


def _tells_its_folder(row: Row, base: Path) -> bool:
    """Whether the folder of a job is its number and a name, within the folder that is shown."""
    return row.outcome.number is not None and str(row.folder(base)).startswith(f"{row.outcome.number}_")


def as_markdown(rows: Sequence[Row], base: Path, title: str, *more: Section) -> str:
    """Both tables as a page, and further sections."""
    first, *others = [*_sections(rows, base, title), *more]
    return "\n".join([markdown_section(first, 1), *(markdown_section(each, 2) for each in others)])


def as_html(rows: Sequence[Row], base: Path, title: str, *more: Section) -> str:
    """As `as_markdown`, in HTML that needs nothing else."""
    return page([*_sections(rows, base, title), *more])


def as_csv(rows: Sequence[Row], base: Path) -> str:
    """A row for each run, with accuracies as fractions."""
    keys = [key for key in columns(rows) if key != SEED]
    numbers = (*ACCURACIES.values(), "best_test_epoch", "final_train_accuracy", "params", "seconds")
    head = ["job", *keys, SEED, "state", *numbers, "folder", "message", "tags", "note"]
    lines = [
        [
            row.outcome.number,
            *row.cells([*keys, SEED]),
            row.outcome.state,
            *(row.result[name] if row.result else None for name in numbers),
            row.folder(base),
            row.outcome.message,
            " ".join(row.notes.tags),
            row.notes.latest,
        ]
        for row in rows
    ]
    return csv_text(head, lines)


def write_results(rows: Sequence[Row], sweep_dir: Path) -> None:
    """Writes sweep.csv and sweep.md.

    Raises:
        StorageError: If they can't be written.
    """
    write_shared(sweep_dir / "sweep.csv", as_csv(rows, sweep_dir).encode())
    write_shared(sweep_dir / "sweep.md", as_markdown(rows, sweep_dir, sweep_dir.name).encode())


def _sections(rows: Sequence[Row], base: Path, title: str) -> list[Section]:
    """The runs, with the messages of those that are not done; and the settings, if one has a result."""
    runs = Section(title, jobs_table(rows, base), tuple(messages(rows, base)), are_listed=True)
    settings = [Section("Settings", groups_table(rows), (note(rows),))] if groups(rows) else []
    return [runs, *settings]
