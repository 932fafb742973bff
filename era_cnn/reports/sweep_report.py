"""The report of a sweep; that of several runs has the same sections and more (`side_by_side`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.errors import amount, shortened
from era_cnn.folders.notes import read_notes
from era_cnn.folders.outcome import DONE
from era_cnn.reports import charts, page
from era_cnn.reports.charts import Chart
from era_cnn.reports.columns import columns
from era_cnn.reports.comparisons import compared
from era_cnn.reports.page import Cell, Fact, Grid, text
from era_cnn.reports.rows import SEED, Row
from era_cnn.reports.statistics import best, criterion, groups, lost
from era_cnn.reports.tables import (
    ACCURACIES,
    accuracies_of,
    groups_table,
    keys_of_settings,
    note,
    noted,
    setting_text,
    titles_of_notes,
)
from era_cnn.reports.verdicts import section_of

MOST_VALUES = 12
"""The most values of a key that have a place each on an axis; more are drawn along a scale if they are numbers."""

MOST_BEST = 3
"""The most settings that are named as the best ones, of those that are equally good."""

MOST_OF_A_LABEL = 60
"""The most characters of the label of an axis: more of them would not fit into a chart."""

MOST_SETTINGS = 24
"""The most settings whose spread over seeds is drawn."""


def sweep_page(rows: Sequence[Row], path: Path) -> str:
    """The page of a sweep.

    Args:
        rows: The jobs; those without a result are listed with their reasons.
        path: The folder of the sweep.
    """
    title, notes = text(path.name or str(path)), page.notes(read_notes(path))
    return page.render("sweep.html", title=title, kind="sweep", notes=notes, **sections_of(rows, path))


def sections_of(rows: Sequence[Row], base: Path) -> dict[str, Any]:
    """What the template needs of any runs; their folders are shown relative to `base`."""
    done = [row for row in rows if row.result]
    return {
        "path": text(base),
        "headline": _headline(rows),
        "facts": list(_facts(rows, done)),
        "failed": [text(each) for each in _failures(rows, base)],
        "charts": [page.figure(chart) for chart in sweep_charts(rows)],
        "settings": _settings(rows) if len([*groups(rows), *lost(rows)]) > 1 else None,
        "note": note(rows),
        "comparison": _comparison(rows),
        "runs": _runs(rows, base),
    }


def _headline(rows: Sequence[Row]) -> str:
    finished = sum(row.outcome.state in DONE for row in rows)
    rest = len(rows) - finished
    said = f"{finished} of {amount(len(rows), 'run')} done" + (f", {rest} failed or interrupted." if rest else ".")
    if winners := best(groups(rows)):
        names = [text(setting_text(keys_of_settings(rows), each)) for each in winners[:MOST_BEST]]
        more = f", and {len(winners) - MOST_BEST} more" if len(winners) > MOST_BEST else ""
        said += f" Best setting{'s' if len(winners) > 1 else ''}: {'; '.join(names)}{more}."
    return said


def _facts(rows: Sequence[Row], done: Sequence[Row]) -> Iterator[Fact]:
    yield Fact("Runs", f"{len(done)}", f"of {len(rows)} have a result")
    found = groups(rows)
    yield Fact("Settings", str(len(found) + len(lost(rows))), amount(len({row.seed for row in done}), "seed"))
    name = criterion(found)
    if winners := best(found):
        title = next(key for key, value in ACCURACIES.items() if value == name)
        yield Fact(
            "Best setting",
            f"{winners[0].spread(name)}%",
            f"{'mean ' if len(winners[0].rows) > 1 else ''}{title} accuracy, n = {winners[0].n}",
        )
    if seconds := sum(row.result["seconds"] for row in done if row.result):
        shown = f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
        yield Fact("Training time", shown, "of all runs, without evaluations")


def _failures(rows: Sequence[Row], path: Path) -> Iterator[str]:
    for row in rows:
        if row.outcome.state not in DONE:
            place = row.folder(path)
            yield f"{place}: {row.outcome.state}" + (f" – {row.outcome.message}" if row.outcome.message else "")


def sweep_charts(rows: Sequence[Row]) -> Iterator[Chart]:
    """A chart for each key that varies, a heatmap for two of them, the spread over seeds, and accuracy by size."""
    done = [row for row in rows if row.result]
    if len(done) < 2:
        return
    measure = _Measure(criterion(groups(done)))
    keys = [key for key in _keys(rows) if len(_known_values(rows, key)) > 1]
    for number, key in enumerate(keys):
        yield _by_key(f"key_{number}", key, rows, measure)
    if len(keys) == 2:
        yield _by_two_keys(keys[0], keys[1], rows, measure)
    found = [group for group in groups(done) if len(group.rows) > 1]
    is_shown_by_key = len(keys) == 1 and len(_known_values(rows, keys[0])) <= MOST_VALUES
    if not is_shown_by_key and 1 <= len(found) <= MOST_SETTINGS:
        series = {
            ", ".join(group.rows[0].cells(keys)) or "all": [measure.of(row) for row in group.rows] for group in found
        }
        alt = f"{measure.title.capitalize()} of the runs of each setting; the line is their mean."
        x = shortened(", ".join(keys), MOST_OF_A_LABEL)
        yield charts.categories("seeds", alt, series, x=x, y=measure.title)
    if len({row.result["params"] for row in done if row.result}) > 1:
        sizes = [(float(row.result["params"]), measure.of(row)) for row in done if row.result]
        alt = "Accuracy against the number of parameters."
        yield charts.points("params", alt, {"runs": sizes}, x="parameters", y=measure.title, log=True)


def _known_values(rows: Sequence[Row], key: str) -> set[str]:
    """The values of a key; that of a run without a result may not be known."""
    return {value for row in rows if (value := row.values.get(key, "")) or row.result}


@dataclass(frozen=True)
class _Measure:
    """The accuracy that the charts show."""

    name: str

    @property
    def title(self) -> str:
        return next(title for title, name in ACCURACIES.items() if name == self.name) + " accuracy"

    def of(self, row: Row) -> float:
        assert row.result is not None, "only rows with a result are drawn"
        return float(row.result[self.name])


def _by_key(name: str, key: str, rows: Sequence[Row], measure: _Measure) -> Chart:
    """The runs by the value of a key. A value without any result is named, too: it may be the one that diverges."""
    values = {value: list[float]() for value in _known_values(rows, key)}
    for row in rows:
        if row.result:
            values[row.values.get(key, "")].append(measure.of(row))
    numbers = {value: _number(value) for value in values}
    ordered = sorted(values, key=lambda value: (numbers[value] is None, numbers[value] or 0.0, value))
    alt = f"{measure.title.capitalize()} by {key}."
    if len(values) > MOST_VALUES and all(number is not None for number in numbers.values()):
        pairs = [(number, each) for value, number in numbers.items() if number is not None for each in values[value]]
        lowest, highest = min(pairs)[0], max(pairs)[0]
        if missing := [value for value in ordered if not values[value]]:
            key = shortened(f"{key} (no result: {', '.join(missing)})", MOST_OF_A_LABEL)
        return charts.points(name, alt, {key: pairs}, x=key, y=measure.title, log=lowest > 0 and highest / lowest > 20)
    alt = f"{measure.title.capitalize()} by {key}; the line is the mean of the runs."
    series = {value if values[value] else f"{value}\n(no result)": values[value] for value in ordered}
    return charts.categories(name, alt, series, x=key, y=measure.title)


def _by_two_keys(one: str, other: str, rows: Sequence[Row], measure: _Measure) -> Chart:
    means = {group.rows[0].cells([one, other]): group.mean(measure.name) for group in groups(rows)}
    down, across = (
        sorted(_known_values(rows, key), key=lambda value: (_number(value) or 0.0, value)) for key in (one, other)
    )
    cells = [[means.get((row, column)) for column in across] for row in down]
    alt = f"Mean {measure.title} by {one} (rows) and {other} (columns); an empty cell has no result."
    return charts.heatmap("heatmap", alt, down, across, cells)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _keys(rows: Sequence[Row]) -> list[str]:
    return [key for key in columns(rows) if key != SEED]


def _settings(rows: Sequence[Row]) -> Grid:
    head, lines = groups_table(rows)
    titles = [title or "choice" for title in head]
    return page.grid(titles, [[_sortable(cell) for cell in line] for line in lines], [*accuracies_of(rows), "params"])


def _comparison(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Each setting beside the first one, with the test of their difference and what it means."""
    found = groups(rows)
    if len(found) < 2:
        return None
    how = "the first setting; choose another with era-cnn compare … --baseline KEY=VALUE"
    section = section_of(compared(found, found[0]), keys_of_settings(rows), how)
    sentences = [text(sentence) for sentence in section.sentences if sentence]
    return {"grid": page.grid(*section.table) if section.table else None, "sentences": sentences}


def _runs(rows: Sequence[Row], base: Path) -> Grid:
    keys, accuracies, titles = columns(rows), accuracies_of(rows), titles_of_notes(rows)
    job = ["job"] if any(row.outcome.number is not None for row in rows) else []
    lines: list[list[object]] = []
    for row in rows:
        result = row.result or {}
        percents = [_percent(result.get(name)) for name in accuracies.values()]
        seconds = Cell(f"{result['seconds']:.1f}", str(result["seconds"])) if result else ""
        number = [row.outcome.number] if job else []
        said = [noted(row, title) for title in titles]
        where = str(row.folder(base))
        lines.append([*number, *map(_sortable, row.cells(keys)), row.outcome.state, *percents, seconds, *said, where])
    head = [*job, *keys, "state", *accuracies, "seconds", *titles, "folder"]
    return page.grid(head, lines, ["job", *accuracies, "seconds"])


def _percent(value: Any) -> Cell:
    return Cell("") if value is None else Cell(f"{100 * value:.2f}", str(value))


def _sortable(value: str) -> Cell:
    """A cell that is sorted by its number, by the mean of mean ± sd, or by the lower end of an interval."""
    found = re.fullmatch(r"\[?(-?[\d.,]*\d)( ± .*|, .*\])?", value)
    return Cell(text(value), found[1].replace(",", "") if found else None)
