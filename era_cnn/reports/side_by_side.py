"""The report of several runs side by side: their curves, what differs, each class, and which test images differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cnn.folders.notes import Notes
from era_cnn.reports import charts, page, pictures
from era_cnn.reports.charts import Chart
from era_cnn.reports.content import RunContent
from era_cnn.reports.page import Cell, Grid, Picture, text
from era_cnn.reports.rows import SEED, Row
from era_cnn.reports.run_report import percent
from era_cnn.reports.sweep_report import sections_of
from era_cnn.reports.tables import notes_of_sweeps

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_RUNS = 12
"""The most runs whose details stand side by side; the tables and charts of settings show all of them."""

MOST_PICTURES = 24
"""The most test images that are shown of those that every run gets wrong."""

CURVES = {
    "test_accuracy": "Test accuracy", "val_accuracy": "Validation accuracy", "train_accuracy": "Training accuracy",
    "test_loss": "Test loss", "val_loss": "Validation loss", "train_loss": "Training loss",
}  # fmt: skip
"""The columns of metrics.csv that are drawn, with their titles."""


@dataclass(frozen=True)
class Side:
    """A run among others: its name in this report, its row, and what its folder holds."""

    name: str
    row: Row
    content: RunContent


def runs_page(rows: Sequence[Row], base: Path, sides: Sequence[Side]) -> str:
    """The page of several runs.

    Args:
        rows: The runs, which the tables and charts of settings show.
        base: The folder that the folders of the runs are relative to.
        sides: Those of them whose details are shown.
    """
    title = f"{len(rows)} runs side by side"
    notes = page.notes(Notes(tuple(notes_of_sweeps(rows, base))))
    shown = sections_of(rows, base)
    return page.render("runs.html", title=title, kind="runs", notes=notes, sides=_sides(sides, rows), **shown)


def _sides(sides: Sequence[Side], rows: Sequence[Row]) -> dict[str, Any] | None:
    if not sides:
        return None
    classes, images = _classes(sides), _Images.of(sides)
    return {
        "more": f"{len(sides)} of {len(rows)} runs are shown here." if len(sides) < len(rows) else "",
        "curves": [page.figure(chart) for chart in curves(sides)],
        "facts_of_runs": _table("", sides, _facts(sides)),
        "differences": _table("key", sides, differences(sides)),
        "classes": _table("class", sides, classes) if classes else None,
        "images_summary": images.summary() if images else "",
        "images": images.grid() if images else None,
        "hardest": images.hardest() if images else [],
    }


def curves(sides: Sequence[Side]) -> Iterator[Chart]:
    """Each accuracy and loss by epoch, with a line for each run that has it."""
    for key, title in CURVES.items():
        series = {side.name: points for side in sides if (points := _points(side, key))}
        if series:
            is_loss = key.endswith("_loss")
            what = "loss" if is_loss else "accuracy"
            alt = f"{title} by epoch, a line for each run."
            yield charts.lines(key, alt, series, x="epoch", y=what, percent=not is_loss, log=is_loss)


def _points(side: Side, key: str) -> list[tuple[float, float]]:
    return [(row["epoch"] or 0, value) for row in side.content.metrics if (value := row.get(key)) is not None]


def _table(corner: str, sides: Sequence[Side], rows: Sequence[Sequence[object]]) -> Grid:
    """A column for each run, after one for what the row is about."""
    return page.grid([corner, *(side.name for side in sides)], rows)


def _facts(sides: Sequence[Side]) -> list[list[object]]:
    results = [side.row.result for side in sides]

    def of_each(shown: Callable[[dict[str, Any]], str]) -> list[str]:
        return [shown(result) if result else "" for result in results]

    facts = {
        "state": [side.row.outcome.state for side in sides],
        "final test accuracy": of_each(lambda result: percent(result["final_test_accuracy"])),
        "best test accuracy": of_each(
            lambda result: f"{percent(result['best_test_accuracy'])} (epoch {result['best_test_epoch']})"
        ),
        "final training accuracy": of_each(lambda result: percent(result["final_train_accuracy"])),
        "parameters": of_each(lambda result: f"{result['params']:,}"),
        "epochs": of_each(lambda result: str(result["epochs"])),
        "training images per second": of_each(lambda result: f"{result['images_per_second']:,.0f}"),
    }
    return [[name, *cells] for name, cells in facts.items()]


def differences(sides: Sequence[Side]) -> list[list[object]]:
    """Every key of the configs that differs, with its value in each run; empty where a run has no such key."""
    values = [{**side.row.effective, SEED: str(side.row.seed)} for side in sides]
    keys = dict.fromkeys(key for each in values for key in each if key != "model.layers")  # a digest of what follows it
    rows = ((key, [each.get(key, "") for each in values]) for key in keys)
    return [[key, *cells] for key, cells in rows if len(set(cells)) > 1]


def _classes(sides: Sequence[Side]) -> list[list[object]]:
    """The share of each class's test images that a run finds; empty if the runs have other classes."""
    names = sides[0].content.class_names
    if not names or any(side.content.class_names != names for side in sides):
        return []
    found = [_recalls(side.content) for side in sides]
    if any(len(each) not in (0, len(names)) for each in found):
        return []
    return [[name, *(each[number] if each else "" for each in found)] for number, name in enumerate(names)]


def _recalls(content: RunContent) -> list[Cell]:
    if content.predictions is None:
        return []
    counts = content.predictions.by_class.tolist()
    return [
        Cell(percent(right / all_), str(right / all_)) if all_ else Cell("no images", "") for all_, _, right in counts
    ]


@dataclass(frozen=True)
class _Images:
    """What several runs made of the same test images."""

    sides: Sequence[Side]
    labels: NDArray[Any]
    predicted: NDArray[Any]
    """The classes that the runs predicted, (R, N)."""

    @classmethod
    def of(cls, sides: Sequence[Side]) -> _Images | None:
        """The images of the runs that have predictions; None unless these are at least two, of the same images."""
        import numpy as np

        known = [(side, side.content.predictions) for side in sides if side.content.predictions is not None]
        tested = {side.row.origin.get("data_sha256") for side, _ in known}
        labels = [found.labels for _, found in known if found]
        if len(known) < 2 or len(tested) > 1 or not all(np.array_equal(each, labels[0]) for each in labels):
            return None
        return cls([side for side, _ in known], labels[0], np.stack([found.predicted for _, found in known if found]))

    @property
    def wrong(self) -> NDArray[Any]:
        """Whether a run is wrong about an image, (R, N)."""
        wrong: NDArray[Any] = self.predicted != self.labels
        return wrong

    def summary(self) -> str:
        """How many images all runs get wrong, and how many at least one."""
        every, some = int(self.wrong.all(axis=0).sum()), int(self.wrong.any(axis=0).sum())
        return (
            f"Of {len(self.labels):,} test images, {some:,} are wrong in at least one of {len(self.sides)} runs, and "
            f"{every:,} in all of them."
        )

    def grid(self) -> Grid:
        """How many images the run of the row gets wrong and the run of the column right."""
        names = [side.name for side in self.sides]
        rows = [
            [name, *(int((wrong & ~other).sum()) for other in self.wrong), int(wrong.sum())]
            for name, wrong in zip(names, self.wrong, strict=True)
        ]
        return page.grid(["wrong in … and right in", *names, "all errors"], rows, [*names, "all errors"])

    def hardest(self) -> list[Picture]:
        """The images that all runs get wrong, as far as a folder holds them; first those that all take for the same."""
        (found,) = self.wrong.all(axis=0).nonzero()
        stored: dict[int, NDArray[Any]] = {}
        for side in self.sides:
            stored |= _stored(side.content)
        ranked = sorted(
            (each for each in map(int, found) if each in stored), key=lambda each: len(self._taken_for(each))
        )
        return [self._picture(index, stored[index]) for index in ranked[:MOST_PICTURES]]

    def _taken_for(self, index: int) -> set[int]:
        return {int(each) for each in self.predicted[:, index]}

    def _picture(self, index: int, image: NDArray[Any]) -> Picture:
        names = self.sides[0].content.class_names
        label, taken = _named(names, int(self.labels[index])), sorted(self._taken_for(index))
        src = pictures.data_uri(*pictures.encoded(pictures.zoomed(image)))
        caption = f"no. {index}: {label}, taken for {' or '.join(_named(names, each) for each in taken)}"
        return Picture(src, f"Test image {index}, {label}", caption)


def _stored(content: RunContent) -> dict[int, NDArray[Any]]:
    """The test images that the folder of a run holds, (C, H, W), by their places in the test set."""
    samples = content.samples
    return {
        int(index): image
        for index, image in zip(samples.get("error_index", ()), samples.get("error_images", ()), strict=False)
    }


def _named(names: Sequence[str], number: int) -> str:
    return text(names[number] if number < len(names) else number)
