"""The report of one run: what its page shows, section by section."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from era_cnn.config.yamltext import as_yaml
from era_cnn.errors import amount, shortened
from era_cnn.reports import charts, page, pictures
from era_cnn.reports.answers import MOST_PER_CELL, Predictions
from era_cnn.reports.charts import Chart
from era_cnn.reports.content import RunContent
from era_cnn.reports.page import Cell, Fact, Grid, Pair, Picture, text
from era_cnn.reports.rows import plain_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_WORST = 12
"""The most errors that are shown by themselves."""

MOST_MATRIX = 30
"""The most classes for which the confusion matrix is drawn as a table; of more, only the commonest errors are shown."""

MOST_KINDS = 30
"""The most kinds of errors that are shown where there is no matrix."""

MOST_LETTERS = 300
"""The most characters of a value of provenance.json, which holds the changes of a checkout."""

MOST_LAYERS = 500
"""The most layers of a network that is drawn."""

NETWORK_CAPTION = (
    "Height: pixels along one side. Width: channels. Green: no parameters. Channels and pixels stand where they change."
)


class RunCharts:
    """The charts of a run, for its page and its files."""

    def __init__(self, content: RunContent) -> None:
        self.curves = list(curves(content))
        self.calibration = list(calibration(content))
        self.confusion = list(confusion_chart(content))
        self.network = network_chart(content)

    def __iter__(self) -> Iterator[Chart]:
        yield from (*self.curves, *self.calibration, *self.confusion)
        if self.network:
            yield self.network


def run_page(content: RunContent, drawn: RunCharts) -> str:
    """The page of a run, complete or not."""
    predictions, description = content.predictions, content.description
    errors = _Errors(content) if predictions is not None else None
    return page.render(
        "run.html",
        title=text(content.name),
        path=text(content.path),
        headline=headline(content),
        facts=list(_facts(content)),
        curves=[page.figure(chart) for chart in drawn.curves],
        confusion=errors.confusion() if errors else None,
        kinds=errors.kinds() if errors else None,
        cells=errors.cells() if errors else [],
        classes=errors.classes() if errors else [],
        worst=errors.worst() if errors else [],
        calibration=[page.figure(chart) for chart in drawn.calibration],
        layers=_layers(content),
        network=page.figure(drawn.network, NETWORK_CAPTION) if drawn.network else None,
        network_summary=_network_summary(content),
        filters=_filters(content),
        data_summary=_data_summary(content),
        augmented=_augmented(content),
        notes=page.notes(content.notes),
        composed=content.composed is not None,
        overrides=text(shlex.join(content.composed.task)) if content.composed else "",
        config_dirs=text(", ".join(content.composed.config_dirs)) if content.composed else "",
        recipe=[Pair(title, text(values)) for title, values in content.recipe.items()],
        keys=_keys(content),
        promise=_promise(content),
        commands=commands(content),
        provenance=[Pair(text(key), text(shortened(value, MOST_LETTERS))) for key, value in _flat(content.provenance)],
        missing=", ".join(content.missing),
        description=description,
    )


def _promise(content: RunContent) -> str:
    is_portable = content.config.get("portable") is True
    what = "packages, kind of processor or GPU, and threads"
    if is_portable:
        what = "packages on x86-64 processors with AVX2, as far as tried (experiments/portability)"
    return f"Results are equal bit for bit for the same {what}; elsewhere they are equal statistically."


def headline(content: RunContent) -> str:
    """What became of the run, in a sentence."""
    result, state = content.result, str(content.state.get("state"))
    if result is None:
        reason = text(content.state.get("message") or "")
        done = f"after {len(content.metrics)} of {content.config['trainer']['epochs']} epochs"
        return f"This run is not complete: {state} {done}. {reason}".strip()
    final = f"{percent(result['final_test_accuracy'])} of the test images are right after the last epoch"
    best = f"{percent(result['best_test_accuracy'])} after epoch {result['best_test_epoch']}"
    if result["best_val_accuracy"] is not None:
        return f"{final}. Validation images made every choice; the test set was evaluated once."
    return f"{final}; the best were {best}, which was chosen on the test set and is therefore optimistic."


def percent(fraction: float) -> str:
    """A fraction in percent, with two decimals."""
    return f"{100 * fraction:.2f}%"


def _facts(content: RunContent) -> Iterator[Fact]:
    result, target = content.result, content.config.get("target", {})
    if result is None:
        yield Fact("State", text(content.state.get("state")), "no result", "bad")
        return
    yield Fact("Final test accuracy", percent(result["final_test_accuracy"]), f"after epoch {result['epochs']}")
    if result["best_val_accuracy"] is None:
        yield Fact("Best test accuracy", percent(result["best_test_accuracy"]), "chosen on the test set")
    else:
        yield Fact(
            "Best validation accuracy", percent(result["best_val_accuracy"]), f"epoch {result['best_val_epoch']}"
        )
    yield Fact("Final train accuracy", percent(result["final_train_accuracy"]), "measured while it trained")
    yield Fact("Parameters", f"{result['params']:,}", _of_limit(target.get("max_params")))
    yield Fact("Epochs", f"{result['epochs']}", _of_limit(target.get("max_epochs")))
    wanted = target.get("test_accuracy")
    if wanted is not None and result["target"].get("met") is not None:
        is_met = bool(result["target"]["met"])
        yield Fact(
            "Target",
            "met" if is_met else "not met",
            f"{percent(wanted)} in the best epoch",
            "good" if is_met else "bad",
        )
    yield Fact("Speed", f"{result['images_per_second']:,.0f}", "training images per second")
    yield Fact("Seed", str(result["seed"]))


def _of_limit(limit: object) -> str:
    return f"at most {limit:,}" if isinstance(limit, int) else ""


def curves(content: RunContent) -> Iterator[Chart]:
    """Loss, accuracy, learning rate and time by epoch."""
    rows = content.metrics
    if not rows:
        return
    splits = [split for split in ("train", "val", "test") if any(row.get(f"{split}_loss") is not None for row in rows)]
    accuracies = {split: _series(rows, f"{split}_accuracy") for split in splits}
    behind = {
        f"reference, {split}": [(row["epoch"], row[f"{split}_accuracy"]) for row in content.reference]
        for split in ("train", "test")
        if content.reference
    }
    yield charts.lines(
        "accuracy", "Accuracy by epoch" + (", with the reference run behind it." if behind else "."),
        accuracies, x="epoch", y="accuracy", behind=behind, percent=True,
    )  # fmt: skip
    losses = {split: _series(rows, f"{split}_loss") for split in splits}
    behind = (
        {"reference, test": [(row["epoch"], row["test_loss"]) for row in content.reference]}
        if content.reference
        else {}
    )
    within = {"train, within epochs": points} if (points := _within_epochs(content.steps)) else {}
    yield charts.lines(
        "loss", "Mean loss by epoch, in nats" + (", with that of training within epochs." if within else "."),
        losses, x="epoch", y="loss", behind=behind, faint=within, log=True,
    )  # fmt: skip
    yield charts.lines(
        "learning_rate", "Learning rate of the last step of each epoch.",
        {"lr": _series(rows, "lr")}, x="epoch", y="learning rate",
    )  # fmt: skip
    yield charts.lines(
        "seconds", "Training time of each epoch, without evaluations.",
        {"seconds": _series(rows, "seconds")}, x="epoch", y="seconds",
    )  # fmt: skip


def _within_epochs(steps: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """The loss of each window at the place where it ends; an epoch ends at its number."""
    num_steps = {row["epoch"]: row["step"] for row in steps}  # the last one of each epoch
    return [(row["epoch"] - 1 + row["step"] / num_steps[row["epoch"]], row["loss"]) for row in steps]


def _series(rows: Sequence[Mapping[str, float | None]], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"] or 0, value) for row in rows if (value := row.get(key)) is not None]


def calibration(content: RunContent) -> Iterator[Chart]:
    """How far the confidence of the predictions can be trusted."""
    if (found := content.predictions) is not None:
        yield charts.calibration(found.confidences.tolist(), (found.predicted == found.labels).tolist())


def confusion_chart(content: RunContent) -> Iterator[Chart]:
    """The confusion matrix, unless there are too many classes to draw it."""
    found = content.predictions
    if found is not None and found.probabilities.shape[1] <= MOST_MATRIX:
        names = [shortened(text(each), 20) for each in _as_many(content.class_names, len(found.confusion))]
        caption = f"{len(found.labels):,} test images, final weights"
        yield charts.confusion(names, found.confusion.tolist(), caption)


@dataclass(frozen=True)
class _Matrix:
    """The confusion matrix as it is shown."""

    names: list[str]
    rows: list[list[dict[str, str]]]
    summary: str


class _Errors:
    """The section about errors."""

    def __init__(self, content: RunContent) -> None:
        assert content.predictions is not None, "the caller knows"
        self.found: Predictions = content.predictions
        self.names = [text(name) for name in _as_many(content.class_names, self.found.probabilities.shape[1])]
        self.samples = content.samples
        self.stored = {int(index): number for number, index in enumerate(content.samples.get("error_index", ()))}
        self.explained = {int(index): number for number, index in enumerate(content.samples.get("explained_index", ()))}
        self.has_matrix = len(self.names) <= MOST_MATRIX
        commonest = self.found.errors()
        self.shown = sorted(commonest) if self.has_matrix else commonest[:MOST_KINDS]

    def confusion(self) -> _Matrix:
        wrong = int((self.found.predicted != self.found.labels).sum())
        summary = f"{wrong:,} of {len(self.found.labels):,} test images are wrong."
        if not self.has_matrix:
            return _Matrix([], [], f"{summary} predictions.npz has all answers.")
        counts = self.found.confusion
        most = max([counts[i, j] for i in range(len(counts)) for j in range(len(counts)) if i != j], default=0)
        rows = [
            [self._matrix_cell(true, predicted, int(count), int(most)) for predicted, count in enumerate(row)]
            for true, row in enumerate(counts)
        ]
        return _Matrix(self.names, rows, summary)

    def _matrix_cell(self, true: int, predicted: int, count: int, most: int) -> dict[str, str]:
        if true == predicted:
            return {"class": "right", "text": f"{count:,}", "link": ""}
        if not count:
            return {"class": "none", "text": "·", "link": ""}
        label = f"{amount(count, 'image')} of {self.names[true]} taken for {self.names[predicted]}"
        heat = f"heat{max(1, round(5 * count / most))}"
        return {"class": heat, "text": f"{count:,}", "link": _cell_id(true, predicted), "label": label}

    def cells(self) -> list[dict[str, Any]]:
        """The images of each kind of error that is shown, most confident first."""
        return [self._cell(true, predicted) for true, predicted, _ in self.shown]

    def kinds(self) -> Grid | None:
        """The commonest kinds of errors, in place of a matrix of many classes; None if there is one, or no error."""
        if self.has_matrix or not self.shown:
            return None
        rows = [
            [self.names[true], self.names[predicted], Cell(f"{count:,}", str(count), f"#{_cell_id(true, predicted)}")]
            for true, predicted, count in self.shown
        ]
        return page.grid(("true class", "predicted class", "images"), rows, ("images",))

    def _cell(self, true: int, predicted: int) -> dict[str, Any]:
        import numpy as np

        (members,) = np.nonzero((self.found.labels == true) & (self.found.predicted == predicted))
        ranked = sorted((int(each) for each in members), key=lambda index: -self.found.confidences[index])
        shown = [self._picture(index) for index in ranked if index in self.stored][:MOST_PER_CELL]
        rest = len(ranked) - len(shown)
        title = f"{self.names[true]} taken for {self.names[predicted]} ({len(ranked)})"
        more = f"{rest:,} more {'image is' if rest == 1 else 'images are'} not shown." if rest else ""
        return {"id": _cell_id(true, predicted), "title": title, "pictures": shown, "more": more}

    def worst(self) -> list[Picture]:
        """The most confident errors of which the folder holds the image."""
        ranked = sorted(self.stored, key=lambda index: -self.found.confidences[index])
        return [self._picture(index, with_heat=True) for index in ranked[:MOST_WORST]]

    def _picture(self, index: int, *, with_heat: bool = False) -> Picture:
        image = pictures.zoomed(self.samples["error_images"][self.stored[index]])
        label, predicted = (self.names[int(each[index])] for each in (self.found.labels, self.found.predicted))
        caption = f"no. {index}: {label}, taken for {predicted} ({percent(self.found.confidences[index])})"
        alt = f"Test image {index}, {label}, taken for {predicted}"
        heat = ""
        if with_heat and index in self.explained:
            maps = self.samples["explained_maps"][self.explained[index]]
            heat = pictures.data_uri(*pictures.encoded(pictures.with_heat(image, maps)))
        src = pictures.data_uri(*pictures.encoded(image))
        return Picture(src, alt, caption, heat, f"Grad-CAM of test image {index} for {predicted}" if heat else "")

    def classes(self) -> list[dict[str, str]]:
        """Each class: how many of its images are found, and how often it is right when it is predicted."""
        rows = []
        for name, (count, predicted, right) in zip(self.names, self.found.by_class.tolist(), strict=True):
            recall, precision = (right / total if total else None for total in (count, predicted))
            rows.append({
                "name": name,
                "count": f"{count:,}",
                "recall": "" if recall is None else f"{recall:.6f}",
                "recall_text": "no images" if recall is None else percent(recall),
                "precision": "" if precision is None else f"{precision:.6f}",
                "precision_text": "never predicted" if precision is None else percent(precision),
            })  # fmt: skip
        return rows


def _cell_id(true: int, predicted: int) -> str:
    return f"cell-{true}-{predicted}"


def _as_many(names: Sequence[str], count: int) -> list[str]:
    """As many names as there are classes, whatever the folder says."""
    return [names[index] if index < len(names) else str(index) for index in range(count)]


def _layers(content: RunContent) -> Grid | None:
    if content.description is None:
        return None
    rows = [
        [
            each.name,
            each.type,
            " × ".join(map(str, each.output_shape)),
            each.params,
            each.mult_adds,
            each.receptive_field,
        ]
        for each in content.description.layers
    ]
    numbers = ("parameters", "multiply-adds", "receptive field")
    return page.grid(("layer", "type", "output", *numbers), rows, numbers)


def network_chart(content: RunContent) -> Chart | None:
    """The drawing of the network; None for a folder of an earlier version, and for a network of too many layers."""
    found = content.description
    return charts.network(found.layers, found.image_shape) if found and len(found.layers) <= MOST_LAYERS else None


def _network_summary(content: RunContent) -> str:
    found = content.description
    if found is None:
        return ""
    return (
        f"{text(content.config['model']['name'])}: {found.params:,} parameters, {found.mult_adds:,} multiply-adds for "
        f"one image, receptive field {found.receptive_field} pixels before the global pooling."
    )


def _filters(content: RunContent) -> Picture | None:
    if "filters" not in content.samples:
        return None
    sheet = filters_sheet(filters := content.samples["filters"])
    how = {1: "", 3: ", in colour"}.get(filters.shape[1], ", mean over its input channels")
    alt = f"The {len(filters)} filters of the first convolution{how}: mid-grey is 0."
    return Picture(pictures.data_uri(*pictures.encoded(sheet)), alt)


def filters_sheet(filters: NDArray[Any]) -> NDArray[Any]:
    """Filters (F, C, k, k) as one image, up to ten pixels for each weight; in colour if C is 3."""
    shown = filters if filters.shape[1] == 3 else filters.mean(axis=1, keepdims=True)
    sheet = pictures.grid(pictures.around_grey(shown), 16, gap=1)
    return pictures.zoomed(sheet, sheet.shape[1] * max(1, min(10, 640 // sheet.shape[2])))


def _augmented(content: RunContent) -> Picture | None:
    if "augmented" not in content.samples:
        return None
    images = content.samples["augmented"]
    factor = max(1, 56 // images.shape[2])
    sheet = pictures.zoomed(pictures.grid(images, 12), factor * 2 * images.shape[2])
    alt = f"{len(images)} training images of the first batch, as the network sees them in the first epoch."
    return Picture(pictures.data_uri(*pictures.encoded(sheet)), alt)


def _data_summary(content: RunContent) -> str:
    return text(content.recipe.get("Data") or content.config["data"]["name"])


def _keys(content: RunContent) -> list[Pair]:
    typed = {plain_key(override.partition("=")[0]) for override in (content.composed.task if content.composed else ())}
    return [
        Pair(text(key), text(value), any(key == each or key.startswith(f"{each}.") for each in typed))
        for key, value in _flat(content.config)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else as_yaml(value).strip().removesuffix("\n...")


def commands(content: RunContent) -> str:
    """What to type to repeat the run."""
    folder = shlex.quote(str(content.path))
    again = [shlex.join(content.provenance.get("command") or [])] if content.result is not None else []
    verbs = [f"era-cnn replay {folder}"] if content.metrics else []
    verbs += [] if content.result is not None else [f"era-cnn resume {folder}"]
    return "\n".join(text(line) for line in (*again, *verbs) if line)
