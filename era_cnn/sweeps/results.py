"""The tables of a sweep, or of any runs: a row a job, and a row a setting with mean ± sd over its seeds."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from era_cnn.runs.storage import write_shared
from era_cnn.sweeps.records import DONE, Record

SEED = "seed"

Table = tuple[list[str], list[list[str]]]
"""The head, and the rows."""


def varied_keys(records: Sequence[Record]) -> list[str]:
    """The keys that tell the records apart, in the order in which they were typed; of a single record, all."""
    keys = list(dict.fromkeys(key for record in records for key in record.overrides))
    keys = [key for key in keys if key.partition(".")[0] != "sweep"]  # of the sweep, not of its jobs
    if len(records) == 1:
        return keys
    return [key for key in keys if len({record.overrides.get(key) for record in records}) > 1]


def jobs_table(records: Sequence[Record], base: Path) -> Table:
    """A row a job: what was varied, how it ended, accuracies in percent, and its folder as seen from `base`."""
    keys = varied_keys(records)
    with_val = _have_val(records)
    head = ["job", *keys, "state", *(["best val", "final val"] if with_val else []), "best test", "final test"]
    rows = []
    for record in records:
        accuracies = [_percent(record, name) for name in _accuracies(with_val=with_val)]
        seconds = f"{record.result['seconds']:.1f}" if record.result else ""
        number = "" if record.number is None else str(record.number)
        varied = [record.overrides.get(key, "") for key in keys]
        rows.append([number, *varied, record.state, *accuracies, seconds, str(_relative(record.folder, base))])
    return [*head, "seconds", "folder"], rows


@dataclass(frozen=True)
class Group:
    """The runs of a setting that have a result, apart from each other in their seeds only."""

    settings: tuple[str, ...]
    records: tuple[Record, ...]

    def mean(self, name: str) -> float:
        """Of a number of their results."""
        return statistics.fmean(self._values(name))

    def spread(self, name: str) -> str:
        """Mean ± sample standard deviation in percent; of a single run, its accuracy alone."""
        values = [100 * value for value in self._values(name)]
        sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{sd}"

    def _values(self, name: str) -> list[float]:
        return [record.result[name] for record in self.records if record.result]


def groups(records: Sequence[Record]) -> tuple[list[str], list[Group]]:
    """The keys that settings differ in, and each setting that has a result."""
    keys = [key for key in varied_keys(records) if key != SEED]
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.result is not None:
            found.setdefault(tuple(record.overrides.get(key, "") for key in keys), []).append(record)
    return keys, [Group(settings, tuple(members)) for settings, members in found.items()]


def criterion(records: Sequence[Record]) -> str:
    """The accuracy by which the best setting is chosen: of the validation images, where there are any."""
    return "final_val_accuracy" if _have_val(records) else "final_test_accuracy"


def groups_table(records: Sequence[Record]) -> Table:
    """A row a setting: n, mean ± sd of the accuracies in percent, parameters; the best one is marked."""
    keys, found = groups(records)
    with_val, by = _have_val(records), criterion(records)
    best = max((group.mean(by) for group in found), default=None)
    head = [*keys, "n", *(["best val", "final val"] if with_val else []), "best test", "final test", "params", ""]
    rows = [
        [
            *group.settings,
            str(len(group.records)),
            *(group.spread(name) for name in _accuracies(with_val=with_val)),
            f"{group.mean('params'):,.0f}",
            "best" if len(found) > 1 and group.mean(by) == best else "",
        ]
        for group in found
    ]
    return head, rows


def note(records: Sequence[Record]) -> str:
    """How the figures are to be read."""
    spread = "Accuracies in percent, mean ± sample standard deviation over seeds."
    if len(groups(records)[1]) < 2:
        return spread
    if _have_val(records):
        return f"{spread} The best setting is the one of the highest mean final accuracy on the validation images."
    return (
        f"{spread} The best setting is the one of the highest mean final test accuracy: chosen on the test set, and so "
        "too high by the luck of the choice. data.val_size=5000 chooses on validation images."
    )


def as_text(records: Sequence[Record], base: Path) -> str:
    """Both tables for a terminal."""
    said = [_aligned(jobs_table(records, base)), *_messages(records)]
    keys, found = groups(records)
    if any(len(group.records) > 1 for group in found):
        said += ["", _aligned(groups_table(records)), note(records)]
    elif len(found) > 1:
        best = max(found, key=lambda group: group.mean(criterion(records)))
        setting = " ".join(f"{key}={value}" for key, value in zip(keys, best.settings, strict=True))
        said += ["", f"Best setting: {setting} (job {best.records[0].number}). {note(records)}"]
    return "\n".join(said)


def as_markdown(records: Sequence[Record], base: Path, title: str) -> str:
    """Both tables as a page."""
    said = [f"# {title}", "", _markdown(jobs_table(records, base))]
    if messages := _messages(records):
        said += ["", *(f"- {message}" for message in messages)]
    if groups(records)[1]:
        said += ["", "## Settings", "", _markdown(groups_table(records)), "", note(records)]
    return "\n".join(said) + "\n"


def as_csv(records: Sequence[Record], base: Path) -> str:
    """A row a job, accuracies as fractions."""
    keys = [key for key in varied_keys(records) if key != SEED]
    columns: dict[str, Callable[[Record], object]] = {
        "job": lambda record: record.number,
        **{key: lambda record, key=key: record.overrides.get(key) for key in keys},  # type: ignore[misc]
        SEED: lambda record: record.result[SEED] if record.result else record.overrides.get(SEED),
        "state": lambda record: record.state,
        **{
            name: lambda record, name=name: record.result[name] if record.result else None  # type: ignore[misc]
            for name in (*_accuracies(with_val=True), "best_test_epoch", "final_train_accuracy", "params", "seconds")
        },
        "folder": lambda record: _relative(record.folder, base),
        "message": lambda record: record.message,
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        ["" if (value := cell(record)) is None else value for cell in columns.values()] for record in records
    )
    return text.getvalue()


def write_results(records: Sequence[Record], sweep_dir: Path) -> None:
    """Writes sweep.csv and sweep.md.

    Raises:
        StorageError: If they can't be written.
    """
    write_shared(sweep_dir / "sweep.csv", as_csv(records, sweep_dir).encode())
    write_shared(sweep_dir / "sweep.md", as_markdown(records, sweep_dir, sweep_dir.name).encode())


def _messages(records: Sequence[Record]) -> list[str]:
    """What became of each job that is not done."""
    return [
        f"job {record.number}: {record.message}" for record in records if record.state not in DONE and record.message
    ]


def _have_val(records: Sequence[Record]) -> bool:
    results = [record.result for record in records if record.result]
    return bool(results) and all(result.get("final_val_accuracy") is not None for result in results)


def _accuracies(*, with_val: bool) -> list[str]:
    val = ["best_val_accuracy", "final_val_accuracy"] if with_val else []
    return [*val, "best_test_accuracy", "final_test_accuracy"]


def _percent(record: Record, name: str) -> str:
    return f"{100 * record.result[name]:.2f}%" if record.result else ""


def _relative(folder: Path, base: Path) -> Path:
    return folder.relative_to(base) if folder.is_relative_to(base) else folder


def _aligned(table: Table) -> str:
    head, rows = table
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _markdown(table: Table) -> str:
    head, rows = table
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
