"""The charts of evidence: the curves of a record, and accuracy against parameters over all records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from era_cnn.errors import amount
from era_cnn.folders.record import Record, RecordedRun
from era_cnn.reports.charts import LIGHT, Chart, in_percent, plain_numbers, whole_numbers
from era_cnn.reports.recorded import PublicRun, counted, mean_curve, reference_of, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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

    return Chart("curves", f"Training and test accuracy of {amount(len(runs), 'seed')} by epoch.", draw)


def frontier(records: Mapping[str, Record], public: Sequence[PublicRun]) -> Chart:
    """The final test accuracy of each record, mean and standard deviation, against its parameters; and others' runs."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = [(each.params, each.final_test_accuracy) for each in public]
        axes.plot(*_columns(places), "D", color=LIGHT.muted, fillstyle="none", markersize=5, label="others, published")
        for each in public:
            place = each.params, each.final_test_accuracy
            _label(axes, f"{each.params:,}, n = {each.n}", *place, LIGHT.muted, below=True)
        sizes: list[int] = []
        for number, (name, record) in enumerate(records.items()):
            found, label = spread(record, "final_test_accuracy"), None if number else "here, mean ± sd"
            assert found is not None, "each run has it"
            place = record.network.params, found.mean
            axes.errorbar(*place, yerr=found.sd or 0.0, fmt="o", color=LIGHT.series[0], capsize=3, label=label)
            _label(axes, name, *place, LIGHT.text, left=sizes.count(place[0]) % 2 == 1)  # of two of one size
            sizes.append(place[0])
        axes.set(xlabel="parameters", ylabel="final test accuracy", xscale="log")
        plain_numbers(axes.xaxis)
        in_percent(axes)
        axes.legend(loc="lower right")

    return Chart("frontier", "Final test accuracy on MNIST against parameters.", draw, 8.0, 4.5)


def _label(axes: Axes, text: str, x: float, y: float, colour: str, *, below: bool = False, left: bool = False) -> None:
    offset = -6 if left else 6, -9 if below else 5
    style: dict[str, Any] = {"fontsize": 7, "color": colour, "ha": "right" if left else "left"}
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", **style)


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
