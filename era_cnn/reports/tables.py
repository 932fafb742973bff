"""The tables of a sweep or of any runs: a row for each run, and for each setting the mean ± sd over its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from era_cnn.errors import shortened
from era_cnn.folders.notes import read_notes
from era_cnn.folders.outcome import DONE
from era_cnn.folders.run import is_sweep
from era_cnn.reports.columns import columns
from era_cnn.reports.formats import Table, interval_text
from era_cnn.reports.rows import SEED, Row, relative
from era_cnn.reports.statistics import FINAL, Group, best, criterion, groups, lost, repeats, why_no_best

ACCURACIES = {
    "best val": "best_val_accuracy",
    "final val": "final_val_accuracy",
    "best test": "best_test_accuracy",
    "final test": "final_test_accuracy",
}
"""The accuracies of a result by their titles."""

MOST_OF_A_NOTE = 60
"""The most characters of a note in a table."""


def jobs_table(rows: Sequence[Row], base: Path) -> Table:
    """A row for each run: the keys that differ, the state, accuracies in percent, and the folder relative to `base`."""
    keys, accuracies = columns(rows), accuracies_of(rows)
    is_numbered = any(row.outcome.number is not None for row in rows)
    titles = titles_of_notes(rows)
    head = [*(["job"] if is_numbered else []), *keys, "state", *accuracies, "seconds", *titles, "folder"]
    lines = []
    for row in rows:
        job = [_shown(row.outcome.number)] if is_numbered else []
        percents = [_percent(row, name) for name in accuracies.values()]
        seconds = f"{row.result['seconds']:.1f}" if row.result else ""
        said = [noted(row, title) for title in titles]
        lines.append([*job, *row.cells(keys), row.outcome.state, *percents, seconds, *said, str(row.folder(base))])
    return head, lines


def groups_table(rows: Sequence[Row]) -> Table:
    """A row for each setting: n, mean ± sd of the accuracies in percent, parameters; the best one is marked.

    Seeds without a result are counted, also those of settings that have no result at all.
    """
    found, accuracies = groups(rows), accuracies_of(rows)
    settings, winners = [*found, *lost(rows)], best(found)
    keys = keys_of_settings(rows)
    columns_of = {
        "without result": [_counted(group.why_missing) for group in settings],
        **{title: [group.spread(name) for group in settings] for title, name in accuracies.items()},
        "final test 95%": [interval_text(group.interval(FINAL)) for group in settings],
    }
    shown = {title: cells for title, cells in columns_of.items() if title in accuracies or any(cells)}
    lines = [
        [
            *group.example.cells(keys),
            group.n,
            *(cells[number] for cells in shown.values()),
            f"{group.mean('params'):,.0f}" if group.rows else "",
            "best" if group in winners else "",
        ]
        for number, group in enumerate(settings)
    ]
    return [*keys, "n", *shown, "params", ""], lines


def note(rows: Sequence[Row]) -> str:
    """The note that explains the numbers: what n counts, what was left out, and how the best setting was chosen."""
    return " ".join([*_what_is_counted(rows), *_how_the_best_is_chosen(groups(rows))])


def _what_is_counted(rows: Sequence[Row]) -> Iterator[str]:
    found = groups(rows)
    over = "runs" if any(group.seeds < len(group.rows) for group in found) else "seeds"
    if any(len(group.rows) > 1 for group in found):
        yield f"Accuracies in percent, mean ± sample standard deviation over {over}."
        yield f"95%: t interval of the mean over {over}."
        if "best test" in accuracies_of(rows):
            yield "The best test accuracy is chosen on the test set, so it is too optimistic."
    if any(group.why_missing.get("failed") for group in [*found, *lost(rows)]):
        yield "Seeds that failed have no accuracy, so the means without them may be too high."
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


def keys_of_settings(rows: Sequence[Row]) -> list[str]:
    """The columns that have one value for each setting: not the seed, nor what changes no result."""
    settings = [*groups(rows), *lost(rows)]

    def has_one_value(key: str) -> bool:
        return all(len({row.cells([key]) for row in group.rows or group.missing}) == 1 for group in settings)

    return [key for key in columns(rows) if key != SEED and has_one_value(key)]


def setting_text(keys: Sequence[str], group: Group) -> str:
    """The keys of a setting, as they are typed."""
    return " ".join(map("=".join, zip(keys, group.example.cells(keys), strict=True)))


def label(row: Row, rows: Sequence[Row], base: Path) -> str:
    """How a message names a run: by the number of the job if no other run has it, else by the folder."""
    number = row.outcome.number
    is_unique = [each.outcome.number for each in rows].count(number) == 1
    return f"job {number}" if number is not None and is_unique else f"run {row.folder(base)}"


def messages(rows: Sequence[Row], base: Path) -> list[str]:
    """The notes of sweeps, and the message of each run that is not done."""
    return [
        *notes_of_sweeps(rows, base),
        *(
            f"{label(row, rows, base)}: {row.outcome.message}"
            for row in rows
            if row.outcome.state not in DONE and row.outcome.message
        ),
    ]


def notes_of_sweeps(rows: Sequence[Row], base: Path) -> Iterator[str]:
    """The tags and the latest note of each sweep that these runs are jobs of."""
    parents = dict.fromkeys(parent for row in rows for parent in row.outcome.folder.parents)
    for folder in filter(is_sweep, parents):
        notes = read_notes(folder)
        if said := " ".join([*(f"[{tag}]" for tag in notes.tags), notes.latest]).strip():
            yield f"sweep {relative(folder, base)}: {said}"


def accuracies_of(rows: Sequence[Row]) -> dict[str, str]:
    """The accuracies that are shown: those on validation images only if there are any."""
    has_val = any(row.result and row.result["final_val_accuracy"] is not None for row in rows)
    return {title: name for title, name in ACCURACIES.items() if has_val or "val" not in title.split()}


def titles_of_notes(rows: Sequence[Row]) -> list[str]:
    """The columns for what people noted: `tags` and `note`, if some run has any."""
    return [title for title in ("tags", "note") if any(noted(row, title) for row in rows)]


def noted(row: Row, title: str) -> str:
    """What people noted about a run, as the cell of such a column."""
    return ", ".join(row.notes.tags) if title == "tags" else shortened(row.notes.latest, MOST_OF_A_NOTE)


def _counted(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _percent(row: Row, name: str) -> str:
    return f"{100 * row.result[name]:.2f}%" if row.result and row.result[name] is not None else ""


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)
