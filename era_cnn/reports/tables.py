"""The tables of a sweep or of any runs: a row for each job, and for each setting the mean ± sd over its seeds."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from era_cnn.folders.outcome import DONE, Outcome
from era_cnn.folders.storage import write_shared

SEED = "seed"

Table = tuple[list[str], list[list[str]]]
"""The header and the rows."""


def varied_keys(outcomes: Sequence[Outcome]) -> list[str]:
    """The keys whose values differ between outcomes, in the order in which they were typed; all for one outcome."""
    keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome.overrides))
    keys = [key for key in keys if key.partition(".")[0] != "sweep"]  # options of the sweep, not of its jobs
    if len(outcomes) == 1:
        return keys
    return [key for key in keys if len({outcome.overrides.get(key) for outcome in outcomes}) > 1]


def jobs_table(outcomes: Sequence[Outcome], base: Path) -> Table:
    """A row for each job: the varied keys, the state, accuracies in percent, and the folder relative to `base`."""
    keys = varied_keys(outcomes)
    with_val = _have_val(outcomes)
    head = ["job", *keys, "state", *(["best val", "final val"] if with_val else []), "best test", "final test"]
    rows = []
    for outcome in outcomes:
        accuracies = [_percent(outcome, name) for name in _accuracies(with_val=with_val)]
        seconds = f"{outcome.result['seconds']:.1f}" if outcome.result else ""
        number = "" if outcome.number is None else str(outcome.number)
        varied = [outcome.overrides.get(key, "") for key in keys]
        rows.append([number, *varied, outcome.state, *accuracies, seconds, str(_relative(outcome.folder, base))])
    return [*head, "seconds", "folder"], rows


@dataclass(frozen=True)
class Group:
    """The runs of one setting that have a result; they differ only in their seeds."""

    settings: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    def mean(self, name: str) -> float:
        """The mean of a number in the results."""
        return statistics.fmean(self._values(name))

    def spread(self, name: str) -> str:
        """Mean ± sample standard deviation in percent; for a single run, only its accuracy."""
        values = [100 * value for value in self._values(name)]
        sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{sd}"

    def _values(self, name: str) -> list[float]:
        return [outcome.result[name] for outcome in self.outcomes if outcome.result]


def groups(outcomes: Sequence[Outcome]) -> tuple[list[str], list[Group]]:
    """The keys that settings differ in, and each setting that has a result."""
    keys = [key for key in varied_keys(outcomes) if key != SEED]
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.result is not None:
            found.setdefault(tuple(outcome.overrides.get(key, "") for key in keys), []).append(outcome)
    return keys, [Group(settings, tuple(members)) for settings, members in found.items()]


def criterion(outcomes: Sequence[Outcome]) -> str:
    """The accuracy by which the best setting is chosen: on the validation images, if there are any."""
    return "final_val_accuracy" if _have_val(outcomes) else "final_test_accuracy"


def groups_table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each setting: n, mean ± sd of the accuracies in percent, parameters; the best one is marked."""
    keys, found = groups(outcomes)
    with_val, by = _have_val(outcomes), criterion(outcomes)
    best = max((group.mean(by) for group in found), default=None)
    head = [*keys, "n", *(["best val", "final val"] if with_val else []), "best test", "final test", "params", ""]
    rows = [
        [
            *group.settings,
            str(len(group.outcomes)),
            *(group.spread(name) for name in _accuracies(with_val=with_val)),
            f"{group.mean('params'):,.0f}",
            "best" if len(found) > 1 and group.mean(by) == best else "",
        ]
        for group in found
    ]
    return head, rows


def note(outcomes: Sequence[Outcome]) -> str:
    """The note that explains the numbers of the table."""
    spread = "Accuracies in percent, mean ± sample standard deviation over seeds."
    if len(groups(outcomes)[1]) < 2:
        return spread
    if _have_val(outcomes):
        return f"{spread} The best setting has the highest mean final accuracy on the validation images."
    return (
        f"{spread} The best setting has the highest mean final test accuracy: it was chosen on the test set, so that "
        "accuracy is too optimistic. To choose on validation images, set data.val_size."
    )


def as_text(outcomes: Sequence[Outcome], base: Path) -> str:
    """Both tables for a terminal."""
    said = [_aligned(jobs_table(outcomes, base)), *_messages(outcomes)]
    keys, found = groups(outcomes)
    if any(len(group.outcomes) > 1 for group in found):
        said += ["", _aligned(groups_table(outcomes)), note(outcomes)]
    elif len(found) > 1:
        best = max(found, key=lambda group: group.mean(criterion(outcomes)))
        setting = " ".join(f"{key}={value}" for key, value in zip(keys, best.settings, strict=True))
        said += ["", f"Best setting: {setting} (job {best.outcomes[0].number}). {note(outcomes)}"]
    return "\n".join(said)


def as_markdown(outcomes: Sequence[Outcome], base: Path, title: str) -> str:
    """Both tables as a page."""
    said = [f"# {title}", "", _markdown(jobs_table(outcomes, base))]
    if messages := _messages(outcomes):
        said += ["", *(f"- {message}" for message in messages)]
    if groups(outcomes)[1]:
        said += ["", "## Settings", "", _markdown(groups_table(outcomes)), "", note(outcomes)]
    return "\n".join(said) + "\n"


def as_csv(outcomes: Sequence[Outcome], base: Path) -> str:
    """A row for each job, with accuracies as fractions."""
    keys = [key for key in varied_keys(outcomes) if key != SEED]
    columns: dict[str, Callable[[Outcome], object]] = {
        "job": lambda outcome: outcome.number,
        **{key: lambda outcome, key=key: outcome.overrides.get(key) for key in keys},  # type: ignore[misc]
        SEED: lambda outcome: outcome.result[SEED] if outcome.result else outcome.overrides.get(SEED),
        "state": lambda outcome: outcome.state,
        **{
            name: lambda outcome, name=name: outcome.result[name] if outcome.result else None  # type: ignore[misc]
            for name in (*_accuracies(with_val=True), "best_test_epoch", "final_train_accuracy", "params", "seconds")
        },
        "folder": lambda outcome: _relative(outcome.folder, base),
        "message": lambda outcome: outcome.message,
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        ["" if (value := cell(outcome)) is None else value for cell in columns.values()] for outcome in outcomes
    )
    return text.getvalue()


def write_results(outcomes: Sequence[Outcome], sweep_dir: Path) -> None:
    """Writes sweep.csv and sweep.md.

    Raises:
        StorageError: If they can't be written.
    """
    write_shared(sweep_dir / "sweep.csv", as_csv(outcomes, sweep_dir).encode())
    write_shared(sweep_dir / "sweep.md", as_markdown(outcomes, sweep_dir, sweep_dir.name).encode())


def _messages(outcomes: Sequence[Outcome]) -> list[str]:
    """The message of each job that is not done."""
    return [
        f"job {outcome.number}: {outcome.message}"
        for outcome in outcomes
        if outcome.state not in DONE and outcome.message
    ]


def _have_val(outcomes: Sequence[Outcome]) -> bool:
    results = [outcome.result for outcome in outcomes if outcome.result]
    return bool(results) and all(result.get("final_val_accuracy") is not None for result in results)


def _accuracies(*, with_val: bool) -> list[str]:
    val = ["best_val_accuracy", "final_val_accuracy"] if with_val else []
    return [*val, "best_test_accuracy", "final_test_accuracy"]


def _percent(outcome: Outcome, name: str) -> str:
    return f"{100 * outcome.result[name]:.2f}%" if outcome.result else ""


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
