"""What all records say together, as the parts of any page that has their marks."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from era_cnn.folders.record import Record
from era_cnn.reports.formats import markdown, markdown_table
from era_cnn.reports.record_charts import MOST_PARAMETERS
from era_cnn.reports.record_page import commands_of
from era_cnn.reports.recorded import counted, gained_by_choosing, is_met, points, public_runs, reference_of, spread
from era_cnn.reports.run_report import percent

NONE_YET = "No records yet."

ONLY_BESIDE = ("table", "frontier")
"""The parts that only the page of the folder of the records may hold, since their links lead from there."""

ANYWHERE = ("selection", "networks")
"""The parts that pages elsewhere may hold as well."""

FRONTIER = "![Final test accuracy against parameters](frontier.svg)"


def overview(records: Mapping[str, Record]) -> dict[str, str]:
    """The generated parts by name: `table`, `frontier` and `selection` for the page of the records, `networks` for any.

    Args:
        records: The records by the names of their folders.
    """
    current = {name: record for name, record in records.items() if not record.superseded}
    return {
        "table": _table(records),
        "frontier": "\n\n".join([FRONTIER, *_left_out(on_mnist(records)), _public_table()]),
        "selection": _selection(current),
        "networks": _networks(current),
    }


def on_mnist(records: Mapping[str, Record]) -> dict[str, Record]:
    """The records that may be compared with public runs on MNIST."""
    return {
        name: each for name, each in records.items() if each.parsed.data.name == "mnist" and not each.superseded
    }  # fmt: skip


def _left_out(records: Mapping[str, Record]) -> Iterator[str]:
    """Which records are too large for the picture."""
    large = [
        f"{markdown(name)} ({record.network.params:,}; {_shown(record, 'final_test_accuracy')})"
        for name, record in records.items()
        if record.network.params > MOST_PARAMETERS
    ]
    if large:
        yield f"Not in the picture, with more than {MOST_PARAMETERS:,} parameters: {', '.join(large)}."


def _table(records: Mapping[str, Record]) -> str:
    if not records:
        return NONE_YET
    lines = ["| record | parameters | epochs | n | best test | final test | target | command |", "|" + "---|" * 8]
    for name, record in records.items():
        label = markdown(name) + (" (superseded)" if record.superseded else "")
        cells = [f"[{label}]({quote(name)}/README.md)", f"{record.network.params:,}", str(record.parsed.trainer.epochs)]
        cells += [
            str(len(counted(record))),
            _shown(record, "best_test_accuracy"),
            _shown(record, "final_test_accuracy"),
        ]
        commands = "<br>".join(f"`{_in_cell(command)}`" for command in commands_of(record))
        lines.append(f"| {' | '.join([*cells, _target(record), commands])} |")
    return "\n".join(lines)


def _in_cell(command: str) -> str:
    """A command within backquotes, in a cell of a table."""
    return command.replace("`", "'").replace("|", "\\|")


def _networks(records: Mapping[str, Record]) -> str:
    if not records:
        return NONE_YET
    rows = [
        [
            name,
            f"{record.network.params:,}",
            str(record.parsed.trainer.epochs),
            str(len(counted(record))),
            _shown(record, "best_test_accuracy"),
            _shown(record, "final_test_accuracy"),
            percent(max(row["test_accuracy"] for row in reference)) if (reference := reference_of(record)) else "",
        ]
        for name, record in records.items()
    ]
    head = ["network", "parameters", "epochs", "n", "best test", "final test", "reference's best"]
    return markdown_table((head, rows))


def _public_table() -> str:
    rows = [
        [f"{run.params:,}", percent(run.best_test_accuracy), percent(run.final_test_accuracy), str(run.n), run.what]
        for run in public_runs()
    ]
    return markdown_table((["parameters", "best test", "final test", "n", "published by others"], rows))


def _selection(records: Mapping[str, Record]) -> str:
    gains = {name: found for name, record in records.items() if (found := gained_by_choosing(record))}
    if not gains:
        return NONE_YET
    rows = [[name, str(len(each)), points(each), f"{100 * max(each):.3f}"] for name, each in gains.items()]
    means = sorted(100 * statistics.fmean(each) for each in gains.values())
    most = 100 * max(gain for each in gains.values() for gain in each)
    table = markdown_table((["record", "n", "best minus final test accuracy, percentage points", "at most"], rows))
    from_to = f"{means[0]:.3f}" if len(means) == 1 else f"from {means[0]:.3f} to {means[-1]:.3f}"
    whole = f"{from_to} percentage points on average, and up to {most:.3f} in a single run"
    left_out = "records that are superseded, and those whose test set was looked at once, or watched by the training"
    said = f"Mean ± sample standard deviation over n runs. Choosing is worth {whole}. Left out are {left_out}."
    return f"{table}\n\n{said}"


def _shown(record: Record, name: str) -> str:
    found = spread(record, name)
    watched = ", watched" if record.watches_test and name == "final_test_accuracy" else ""
    return "not chosen" if found is None else f"{found}{watched}"


def _target(record: Record) -> str:
    met, wanted = is_met(record), record.parsed.target.test_accuracy
    return "none" if met is None or wanted is None else f"{percent(wanted)}: {'met' if met else 'missed'}"
