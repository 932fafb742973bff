"""Charts, drawn by Matplotlib without its global state: each as SVG, in light or dark colours, or PNG.

The same numbers give the same bytes: no date, no random ids, and nothing of the user's own settings.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from era_cnn.folders.description import Layer


@dataclass(frozen=True)
class Colours:
    """The colours of a chart; the series are distinguishable with red-green colour blindness (Okabe and Ito 2008)."""

    text: str
    grid: str
    muted: str
    series: tuple[str, ...]


LIGHT = Colours("#1b1f24", "#d9dee3", "#8a939c", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#4b4f54"))
DARK = Colours("#e6e8ea", "#3a4148", "#8a939c", ("#56b4e9", "#ff9d4d", "#3fd0a4", "#f0a6cc", "#f0e442", "#b5bcc3"))


IN_THE_DARK = {
    light.encode(): dark.encode()
    for light, dark in zip(
        (LIGHT.text, LIGHT.grid, LIGHT.muted, *LIGHT.series),
        (DARK.text, DARK.grid, DARK.muted, *DARK.series),
        strict=True,
    )
}
"""The dark colour for each light one."""

LIGHTS = re.compile(b"|".join(IN_THE_DARK))

DASHES = ("-", "--", ":")
"""The lines of those series that share a colour."""

MOST_INSIDE = 6
"""The most lines whose legend lies inside the axes; that of more would cover them, and stands below."""


@dataclass(frozen=True)
class Chart:
    """A chart with its name, from which its files are called, a sentence that replaces it, and its size in inches.

    `shows` is what it draws: of charts with the same, only the bytes may differ, which depend on a machine's fonts.
    """

    name: str
    alt: str
    draw: Callable[[Figure], None]
    width: float = 6.0
    height: float = 3.2
    shows: object = None

    def svg(self) -> bytes:
        """The chart as SVG on a transparent ground; written once, as a page and a file may show it."""
        return self._svg

    def dark_svg(self) -> bytes:
        """The same for a dark ground: to change the colours takes no time, and to draw again takes a while."""
        return re.sub(rb"<[^>]*>", lambda tag: LIGHTS.sub(_in_the_dark, tag[0]), self._svg)  # texts are as they were

    def svg_on_white(self) -> bytes:
        """The chart as SVG on white, for pages whose ground may be dark."""
        return self._saved("svg", facecolor="white", metadata={"Date": None, "Creator": None})

    def png(self) -> bytes:
        """The chart as PNG on white, 150 pixels to the inch."""
        return self._saved("png", facecolor="white", dpi=150, metadata={"Software": None})

    @cached_property
    def _svg(self) -> bytes:
        return self._saved("svg", transparent=True, metadata={"Date": None, "Creator": None})

    def _saved(self, kind: str, **options: Any) -> bytes:
        with _settings(self.name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # shown as a box; the page has the text
            content = io.BytesIO()
            self._figure.savefig(content, format=kind, **options)
            self._figure.set_layout_engine(None)  # laid out now, which takes as long as drawing it
        return content.getvalue()

    @cached_property
    def _figure(self) -> Figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width, self.height), layout="constrained")
        FigureCanvasAgg(figure)
        self.draw(figure)
        return figure


def _in_the_dark(light: re.Match[bytes]) -> bytes:
    return IN_THE_DARK[light[0]]


@contextmanager
def _settings(salt: str) -> Iterator[None]:
    """Matplotlib's own settings, whatever the user has set, and ours on top."""
    own: Any = {
        "font.size": 9.0,
        "font.family": "sans-serif",
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name may hold dollar signs
        "svg.hashsalt": salt,
        "text.color": LIGHT.text,
        "axes.labelcolor": LIGHT.text,
        "axes.edgecolor": LIGHT.muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": LIGHT.grid,
        "grid.linewidth": 0.6,
        "xtick.color": LIGHT.text,
        "ytick.color": LIGHT.text,
        "legend.frameon": False,
        "legend.labelcolor": LIGHT.text,
    }
    log = logging.getLogger("matplotlib")  # complains about a home that can't be written to, and about fonts
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(own)
            yield
    finally:
        log.setLevel(level)


def lines(
    name: str,
    alt: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    behind: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    faint: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    percent: bool = False,
    log: bool = False,
) -> Chart:
    """A line for each series of (x, y); those `behind` are dashed and muted, and `faint` ones are thin.

    Args:
        name: The name of the chart.
        alt: What it shows, in a sentence.
        series: Points by the label of their series.
        x: The label of the horizontal axis.
        y: The label of the vertical axis.
        behind: Series for comparison.
        faint: Series in finer detail, each in the colour of the series with its number.
        percent: Whether the values are fractions, to be shown in percent.
        log: Whether the vertical axis is logarithmic.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for colour, (label, points) in zip(_repeated(LIGHT.series), (faint or {}).items(), strict=False):
            axes.plot(*_columns(points), label=label, color=colour, linewidth=0.7, alpha=0.4)
        for colour, (label, points) in zip(_repeated(LIGHT.series), (behind or {}).items(), strict=False):
            axes.plot(*_columns(points), label=label, color=colour, linestyle="--", linewidth=1, alpha=0.6)
        for number, (label, points) in enumerate(series.items()):
            round_, place = divmod(number, len(LIGHT.series))
            look: Any = {"color": LIGHT.series[place], "linestyle": DASHES[round_ % len(DASHES)], "linewidth": 1.6}
            marker = "o" if len(points) < 40 else ""
            axes.plot(*_columns(points), label=label, marker=marker, markersize=3, **look)
        axes.set(xlabel=x, ylabel=y)
        axes.xaxis.set_major_locator(whole_numbers())
        if log:
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        if percent:
            in_percent(axes)
        if count > MOST_INSIDE:
            figure.legend(loc="outside lower center", ncols=2, fontsize=7)
        elif count > 1:
            axes.legend()

    count = len(series) + len(behind or {}) + len(faint or {})
    return Chart(name, alt, draw, height=3.2 + (0.08 * count if count > MOST_INSIDE else 0))


def calibration(confidences: Sequence[float], correct: Sequence[bool]) -> Chart:
    """Accuracy against confidence in ten bins of equal width, with the number of images in each."""
    bins = reliability(confidences, correct)

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=LIGHT.muted, linestyle="--", linewidth=1, label="perfectly calibrated")
        above.plot(
            [bin_.confidence for bin_ in bins], [bin_.accuracy for bin_ in bins], color=LIGHT.series[0], marker="o"
        )
        above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        above.legend()
        below.bar([bin_.low + 0.05 for bin_ in bins], [bin_.count for bin_ in bins], width=0.09, color=LIGHT.series[0])
        below.set(xlabel="confidence of the prediction", ylabel="images", yscale="log")
        plain_numbers(below.yaxis)

    error = calibration_error(bins)
    return Chart("calibration", f"Accuracy against confidence; the expected calibration error is {error:.4f}.", draw)


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is within a tenth: mean confidence, accuracy and number."""

    low: float
    confidence: float
    accuracy: float
    count: int


def reliability(confidences: Sequence[float], correct: Sequence[bool]) -> list[Bin]:
    """The ten bins of equal width that hold an image (Guo et al. 2017, arXiv 1706.04599)."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for confidence, is_correct in zip(confidences, correct, strict=True):
        members.setdefault(min(int(confidence * 10), 9), []).append((float(confidence), bool(is_correct)))
    return [
        Bin(
            number / 10,
            sum(confidence for confidence, _ in each) / len(each),
            sum(is_correct for _, is_correct in each) / len(each),
            len(each),
        )
        for number, each in sorted(members.items())
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the mean distance of accuracy and confidence, weighted by the images."""
    total = sum(bin_.count for bin_ in bins)
    return sum(bin_.count * abs(bin_.accuracy - bin_.confidence) for bin_ in bins) / total


def network(layers: Sequence[Layer], image_shape: Sequence[int]) -> Chart:
    """A block for each layer that changes the shape or has weights: its height the pixels, its width the channels."""
    shown = _blocks(layers, image_shape)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axis("off")
        tallest = max(height for _, _, height, _ in shown)
        left, former = 0.0, (0, 0)
        for label, channels, height, colour in shown:
            width, tall = 0.5 + math.log2(1 + channels) / 3, 0.25 + 3 * height / tallest
            axes.add_patch(_rectangle((left, -tall / 2), width, tall, LIGHT.series[colour]))
            centre, shape = left + width / 2, (channels, height)
            axes.text(centre, -1.95, label, ha="right", va="center", rotation=60, rotation_mode="anchor", fontsize=7)
            if shape != former:
                axes.text(centre, tall / 2 + 0.06, f"{channels}\n{height} px", ha="center", va="bottom", fontsize=6)
            former = shape
            left += width + 0.35
        axes.set(xlim=(-0.2, left), ylim=(-3.4, 2.3))

    return Chart("network", f"The network as {len(shown)} blocks, from the image to the classes.", draw, 8.0, 3.2)


def _blocks(layers: Sequence[Layer], image_shape: Sequence[int]) -> list[tuple[str, int, int, int]]:
    """Label, channels, pixels along one side and the index of a colour for each block."""
    blocks = [("image", image_shape[0], image_shape[1], 5)]
    for layer in layers:
        shape = [*layer.output_shape, 1, 1][:3]
        is_new = (shape[0], shape[1]) != (blocks[-1][1], blocks[-1][2])
        if is_new or (layer.params and "Norm" not in layer.type):
            blocks.append((layer.name.removesuffix(".conv"), shape[0], shape[1], 0 if layer.params else 2))
    return blocks


def heatmap(
    name: str, alt: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]]
) -> Chart:
    """A cell for each pair of values of two keys, with its accuracy in percent."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        numbers = [[math.nan if value is None else 100 * value for value in row] for row in values]
        picture = axes.imshow(numbers, cmap="viridis", aspect="auto")
        figure.colorbar(picture, label="accuracy in percent")
        lowest, highest = picture.get_clim()
        bright = lowest + 0.6 * (highest - lowest)
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        for y, row in enumerate(numbers):
            for x, number in enumerate(row):
                if not math.isnan(number):
                    ink = "black" if number > bright else "white"
                    axes.text(x, y, f"{number:.2f}", ha="center", va="center", color=ink, fontsize=7)

    return Chart(name, alt, draw, 6.0, max(2.0, 0.45 * len(rows) + 1.2))


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]], caption: str) -> Chart:
    """The share of the images of each class (row) that are taken for each class (column): a row sums to 1.

    The scale is fixed, so that a network that is wrong everywhere looks so.
    """
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    size = max(4.0, 0.42 * len(names) + 1.6)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the true class", shrink=0.8)
        axes.set(xlabel="predicted class", ylabel="true class", title=caption)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                if count:
                    ink = "white" if shares[y][x] > 0.5 else "black"
                    axes.text(x, y, f"{count:,}", ha="center", va="center", color=ink, fontsize=7)

    return Chart("confusion", f"Confusion matrix: {caption}", draw, size + 0.8, size)


def points(
    name: str, alt: str, series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, log: bool = False
) -> Chart:
    """A point for each (x, y), a fraction shown in percent; the points of a series share a colour."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for colour, (label, pairs) in zip(_repeated(LIGHT.series), series.items(), strict=False):
            axes.plot(*_columns(pairs), "o", label=label, color=colour, markersize=4, alpha=0.75)
        axes.set(xlabel=x, ylabel=y)
        if log:
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
        in_percent(axes)
        if 1 < len(series) <= 8:
            axes.legend(fontsize=7)

    return Chart(name, alt, draw)


def categories(name: str, alt: str, series: Mapping[str, Sequence[float]], *, x: str, y: str) -> Chart:
    """A column of points for each value of a key, with a line at their mean: the spread over seeds and other keys.

    A column may be empty.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, values in enumerate(series.values()):
            axes.plot([place] * len(values), values, "o", color=LIGHT.series[0], markersize=4, alpha=0.6)
            if values:
                mean = sum(values) / len(values)
                axes.plot([place - 0.25, place + 0.25], [mean, mean], color=LIGHT.series[1], linewidth=2)
        is_narrow = sum(map(len, series)) > 50
        axes.set_xticks(range(len(series)), list(series))
        axes.tick_params(axis="x", labelrotation=35 if is_narrow else 0)
        axes.set(xlabel=x, ylabel=y)
        in_percent(axes)

    return Chart(name, alt, draw)


def whole_numbers() -> Any:
    """Places the ticks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def plain_numbers(axis: Axis) -> None:
    """Numbers on a logarithmic axis as 0.05 and 300 rather than as powers, which are formulas."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def in_percent(axes: Axes) -> None:
    """Shows the fractions of the vertical axis in percent."""
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol="%"))


def _rectangle(corner: tuple[float, float], width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, facecolor=colour, alpha=0.8, edgecolor="none")


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _repeated(colours: Sequence[str]) -> Iterator[str]:
    while True:
        yield from colours
