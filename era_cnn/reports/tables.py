"""The tables of a sweep or of any runs: a row for each run, and for each setting the mean ± sd over its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from era_cnn.folders.outcome import DONE
from era_cnn.folders.storage import write_shared
from era_cnn.reports.columns import columns
from era_cnn.reports.formats import Table, aligned, csv_text, markdown, markdown_table, plain
from era_cnn.reports.rows import SEED, Row
from era_cnn.reports.statistics import Group, best, criterion, groups, repeats, why_no_best

ACCURACIES = {
    "best val": "best_val_accuracy",
    "final val": "final_val_accuracy",
    "best test": "best_test_accuracy",
    "final test": "final_test_accuracy",
}
"""The accuracies of a result by their titles."""


def jobs_table(rows: Sequence[Row], base: Path) -> Table:
    """A row for each run: the keys that differ, the state, accuracies in percent, and the folder relative to `base`."""
    keys, accuracies = columns(rows), _accuracies(rows)
    is_numbered = any(row.outcome.number is not None for row in rows)
    head = [*(["job"] if is_numbered else []), *keys, "state", *accuracies, "seconds", "folder"]
    lines = []
    for row in rows:
        job = [_shown(row.outcome.number)] if is_numbered else []
        percents = [_percent(row, name) for name in accuracies.values()]
        seconds = f"{row.result['seconds']:.1f}" if row.result else ""
        lines.append([*job, *row.cells(keys), row.outcome.state, *percents, seconds, str(row.folder(base))])
    return head, lines


def groups_table(rows: Sequence[Row]) -> Table:
    """A row for each setting: n, mean ± sd of the accuracies in percent, parameters; the best one is marked."""
    found, accuracies = groups(rows), _accuracies(rows)
    keys, winners = _keys_of_settings(rows, found), best(found)
    lines = [
        [
            *group.rows[0].cells(keys),
            group.n,
            *(group.spread(name) for name in accuracies.values()),
            f"{group.mean('params'):,.0f}",
            "best" if group in winners else "",
        ]
        for group in found
    ]
    return [*keys, "n", *accuracies, "params", ""], lines


def note(rows: Sequence[Row]) -> str:
    """The note that explains the numbers: what n counts, what was left out, and how the best setting was chosen."""
    return " ".join([*_what_is_counted(rows), *_how_the_best_is_chosen(groups(rows))])


def _what_is_counted(rows: Sequence[Row]) -> Iterator[str]:
    found = groups(rows)
    over = "runs" if any(group.seeds < len(group.rows) for group in found) else "seeds"
    if any(len(group.rows) > 1 for group in found):
        yield f"Accuracies in percent, mean ± sample standard deviation over {over}."
    if over == "runs":
        yield "n counts runs and not seeds: runs of the same setting and seed have different results."
    if count := repeats(rows):
        yield (
            "1 row repeats a result and counts once." if count == 1 else f"{count} rows repeat a result and count once."
        )


def _how_the_best_is_chosen(found: Sequence[Group]) -> Iterator[str]:
    if len(found) < 2:
        return
    if reasons := list(why_no_best(found)):
        yield f"No best setting is chosen: {'; '.join(reasons)}."
    elif criterion(found) == "final_val_accuracy":
        yield "The best setting has the highest mean final accuracy on the validation images."
    else:
        yield (
            "The best setting has the highest mean final test accuracy: it was chosen on the test set, so that "
            "accuracy is too optimistic. To choose on validation images, set data.val_size."
        )


def as_text(rows: Sequence[Row], base: Path) -> str:
    """Both tables for a terminal."""
    said = [aligned(jobs_table(rows, base)), *map(plain, _messages(rows, base))]
    found, explained = groups(rows), plain(note(rows))
    if any(len(group.rows) > 1 for group in found):
        said += ["", aligned(groups_table(rows)), explained]
    elif winners := best(found):
        keys = _keys_of_settings(rows, found)
        settings = [f"{_setting(keys, group)} ({_label(group.rows[0], rows, base)})" for group in winners]
        said += ["", f"{plain('Best setting: ' + ', equal to '.join(settings))}. {explained}"]
    elif explained:
        said += ["", explained]
    return "\n".join(said)


def as_markdown(rows: Sequence[Row], base: Path, title: str) -> str:
    """Both tables as a page."""
    said = [f"# {markdown(title)}", "", markdown_table(jobs_table(rows, base))]
    if messages := _messages(rows, base):
        said += ["", *(f"- {markdown(message)}" for message in messages)]
    if groups(rows):
        said += ["", "## Settings", "", markdown_table(groups_table(rows)), "", markdown(note(rows))]
    return "\n".join(said).rstrip() + "\n"


def as_csv(rows: Sequence[Row], base: Path) -> str:
    """A row for each run, with accuracies as fractions."""
    keys = [key for key in columns(rows) if key != SEED]
    numbers = (*ACCURACIES.values(), "best_test_epoch", "final_train_accuracy", "params", "seconds")
    head = ["job", *keys, SEED, "state", *numbers, "folder", "message"]
    lines = [
        [
            row.outcome.number,
            *row.cells([*keys, SEED]),
            row.outcome.state,
            *(row.result[name] if row.result else None for name in numbers),
            row.folder(base),
            row.outcome.message,
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


def _keys_of_settings(rows: Sequence[Row], found: Sequence[Group]) -> list[str]:
    """The columns that have one value for each setting: not the seed, nor what changes no result."""
    return [
        key
        for key in columns(rows)
        if key != SEED and all(len({row.cells([key]) for row in group.rows}) == 1 for group in found)
    ]


def _setting(keys: Sequence[str], group: Group) -> str:
    return " ".join(map("=".join, zip(keys, group.rows[0].cells(keys), strict=True)))


def _label(row: Row, rows: Sequence[Row], base: Path) -> str:
    """How a message names a run: by the number of the job if no other run has it, else by the folder."""
    number = row.outcome.number
    is_unique = [each.outcome.number for each in rows].count(number) == 1
    return f"job {number}" if number is not None and is_unique else f"run {row.folder(base)}"


def _messages(rows: Sequence[Row], base: Path) -> list[str]:
    """The message of each run that is not done."""
    return [
        f"{_label(row, rows, base)}: {row.outcome.message}"
        for row in rows
        if row.outcome.state not in DONE and row.outcome.message
    ]


def _accuracies(rows: Sequence[Row]) -> dict[str, str]:
    """The accuracies that are shown: those on validation images only if there are any."""
    has_val = any(row.result and row.result["final_val_accuracy"] is not None for row in rows)
    return {title: name for title, name in ACCURACIES.items() if has_val or "val" not in title.split()}


def _percent(row: Row, name: str) -> str:
    return f"{100 * row.result[name]:.2f}%" if row.result and row.result[name] is not None else ""


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)
