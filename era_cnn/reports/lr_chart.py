"""The picture of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from era_cnn.reports.charts import LIGHT, Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lr_chart(curves: Mapping[str, Sequence[tuple[float, float, float]]], suggestion: float | None) -> Chart:
    """The loss, faint, and the smoothed loss against the learning rate, with a line at the suggestion if there is one.

    Args:
        curves: Learning rate, loss and smoothed loss of each step, by the label of the curve.
        suggestion: The learning rate to mark.
    """
    marked = "no learning rate is suggested" if suggestion is None else f"the suggestion is {suggestion:g}"

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import FuncFormatter

        axes = figure.subplots()
        for number, (label, points) in enumerate(curves.items()):
            colour = LIGHT.series[number % len(LIGHT.series)]
            rates, losses, smoothed = zip(*points, strict=True) if points else ((), (), ())
            axes.plot(rates, losses, color=colour, linewidth=0.7, alpha=0.4)
            axes.plot(rates, smoothed, color=colour, linewidth=1.6, label=f"{label}, smoothed")
        if suggestion is not None:
            axes.axvline(suggestion, color=LIGHT.text, linestyle="--", linewidth=1, label=f"suggested: {suggestion:g}")
        axes.set(xlabel="learning rate", ylabel="training loss", xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))  # not powers, as formulas
        if firsts := [points[0][2] for points in curves.values() if points]:
            axes.set_ylim(0, 1.5 * max(firsts))  # a loss that diverges would flatten the rest
        axes.legend(fontsize=8)

    return Chart("find_lr", f"Training loss while the learning rate rises; {marked}.", draw)
