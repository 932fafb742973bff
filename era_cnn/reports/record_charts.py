"""The charts of evidence: the curves of a record, and accuracy against parameters over all records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from era_cnn.errors import amount
from era_cnn.folders.record import Record, RecordedRun
from era_cnn.reports.charts import LIGHT, Chart, in_percent, plain_numbers, whole_numbers
from era_cnn.reports.labels import Label, write_beside
from era_cnn.reports.recorded import PublicRun, counted, mean_curve, reference_of, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PARAMETERS = 100_000
"""The most parameters of a network in the frontier: one of millions would squeeze the others together."""

SHOWN = {"training": "train_accuracy", "test": "test_accuracy"}


def curves(record: Record) -> Chart:
    """The training and test accuracy of each seed, thin, with their means, and those of the reference run behind."""
    runs, reference = counted(record), reference_of(record)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (label, key), colour in zip(SHOWN.items(), LIGHT.series, strict=False):
            if reference:
                behind = [(row["epoch"], row[key]) for row in reference]
                axes.plot(*_columns(behind), "--", color=colour, linewidth=1, alpha=0.7, label=f"{label}, reference")
            for run in runs if len(runs) > 1 else ():
                axes.plot(*_columns(mean_curve([run], key)), color=colour, linewidth=0.6, alpha=0.4)
            mean = mean_curve(runs, key)
            name = f"{label}, mean of {len(runs)}" if len(runs) > 1 else label
            marker = "o" if len(mean) < 3 else ""
            axes.plot(*_columns(mean), color=colour, linewidth=2, marker=marker, markersize=4, label=name)
        axes.set(xlabel="epoch", ylabel="accuracy")
        axes.set_ylim(bottom=_floor(runs, reference))
        axes.xaxis.set_major_locator(whole_numbers())
        in_percent(axes)
        axes.legend(loc="lower right")

    shows = [[run.curves[key] for run in runs for key in SHOWN.values()], reference]
    return Chart("curves", f"Training and test accuracy of {amount(len(runs), 'seed')} by epoch.", draw, shows=shows)


def frontier(records: Mapping[str, Record], public: Sequence[PublicRun]) -> Chart:
    """The final test accuracy of each record, mean and standard deviation, against its parameters; and others' runs.

    Records of more than `MOST_PARAMETERS` are left out.
    """
    shown = {name: record for name, record in records.items() if record.network.params <= MOST_PARAMETERS}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        labels: list[Label] = []
        for number, (name, record) in enumerate(shown.items()):
            found, label = spread(record, "final_test_accuracy"), None if number else "here, mean ± sd"
            assert found is not None, "each run has it"
            place, half = (record.network.params, found.mean), found.sd or 0.0
            axes.errorbar(*place, yerr=half, fmt="o", color=LIGHT.series[0], capsize=3, label=label)
            labels.append(Label(name, *place, half, LIGHT.text))
        places = [(each.params, each.final_test_accuracy) for each in public]
        axes.plot(*_columns(places), "D", color=LIGHT.muted, fillstyle="none", markersize=5, label="others, published")
        labels += [
            Label(f"{each.params:,}, n = {each.n}", *at, 0.0, LIGHT.muted)
            for each, at in zip(public, places, strict=True)
        ]
        axes.set(xlabel="parameters", ylabel="final test accuracy", xscale="log")
        axes.margins(0.08, 0.1)
        plain_numbers(axes.xaxis)
        in_percent(axes)
        axes.legend(loc="lower right")
        write_beside(axes, labels)

    ours = [(name, each.network.params, spread(each, "final_test_accuracy")) for name, each in shown.items()]
    return Chart("frontier", "Final test accuracy on MNIST against parameters.", draw, 8.0, 4.5, [ours, *public])


def _floor(runs: Sequence[RecordedRun], reference: Sequence[Mapping[str, float]]) -> float | None:
    """A little below all accuracies but those of the first epoch, which would flatten the others."""
    values = [*_later_values(runs), *(row[key] for row in reference[1:] for key in SHOWN.values())]
    return min(values) - 0.05 * (max(values) - min(values)) if len(values) > 2 and min(values) < max(values) else None


def _later_values(runs: Sequence[RecordedRun]) -> Iterator[float]:
    for run in runs:
        for key in SHOWN.values():
            yield from (value for value in run.curves[key][1:] if value is not None)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


_SIGNATURE = "<!-- SHA-256 of what it shows: {}; of the lines above: {} -->"


def signed(chart: Chart) -> bytes:
    """A chart as SVG that says in its last line what it shows, and what it is as a file."""
    picture = chart.svg_on_white().rstrip() + b"\n"
    return picture + f"{_SIGNATURE.format(_sha256(repr(chart.shows).encode()), _sha256(picture))}\n".encode()


def shows_the_same(one: bytes, other: bytes) -> bool:
    """Whether two signed pictures show the same figures, though different machines may have drawn them."""
    found = _what_it_shows(one)
    return found is not None and found == _what_it_shows(other)


def _what_it_shows(content: bytes) -> bytes | None:
    """The digest of what a picture shows; None if it is not as it was drawn."""
    picture, end, signature = content.replace(b"\r\n", b"\n").rstrip().rpartition(b"\n")
    found = re.fullmatch(_SIGNATURE.format(r"(\w{64})", r"(\w{64})").encode(), signature)
    return found[1] if found and found[2].decode() == _sha256(picture + end) else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
