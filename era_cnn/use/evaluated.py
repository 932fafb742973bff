"""What an evaluation found: as text of 80 columns, as plain values, and as files.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from era_cnn.errors import amount, shortened
from era_cnn.folders.arrays import write_arrays
from era_cnn.folders.claims import claim
from era_cnn.folders.storage import write_atomically
from era_cnn.output import shown
from era_cnn.reports.answers import Predictions, probabilities
from era_cnn.reports.formats import Table, aligned, csv_text, interval_text
from era_cnn.reports.inference import Interval, wilson_interval
from era_cnn.training.history import Scores

if TYPE_CHECKING:
    from era_cnn.use.network import Trained

COLUMNS = 80
MOST_CLASSES = 15
"""With more classes, or more columns, only the largest entries of the confusion matrix are shown."""

LARGEST = 15
ELSEWHERE = "Give another folder with --to."


@dataclass(frozen=True)
class Augmented:
    """The scores with test-time augmentation, over so many views of each image."""

    num_views: int
    description: str
    scores: Scores


@dataclass(frozen=True)
class Evaluated:
    """The logits (N, K) and labels (N,) of a split, in its order, and the scores that follow from them."""

    path: Path
    split: str
    data: str
    weights: Trained
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    scores: Scores
    augmented: Augmented | None
    notes: tuple[str, ...]
    """What a reader has to know of the figures."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.scores.accuracy

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self.scores.loss

    @property
    def interval(self) -> Interval:
        """The 95% interval of the accuracy, over images (Wilson 1927)."""
        return wilson_interval(self.scores.num_correct, self.scores.num_images)

    @cached_property
    def found(self) -> Predictions:
        """Predicted classes, probabilities and confusion."""
        return Predictions(self.labels, self.logits.argmax(axis=1), probabilities(self.logits))

    @property
    def confusion(self) -> NDArray[Any]:
        """How often images of each class (row) were taken for each class (column), (K, K)."""
        return self.found.confusion

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        counts = self.confusion
        images, right = counts.sum(axis=1).tolist(), counts.diagonal().tolist()
        augmented = self.augmented
        return {
            "run": str(self.path),
            "data": self.data,
            "split": self.split,
            "num_images": self.scores.num_images,
            "checkpoint": self.weights.which,
            "epoch": self.weights.epoch,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.interval),
            "loss": self.loss,
            "classes": [
                {"name": name, "num_images": count, "accuracy": correct / count if count else None}
                for name, count, correct in zip(self.class_names, images, right, strict=True)
            ],
            "confusion": counts.tolist(),
            "test_time_augmentation": None
            if augmented is None
            else {
                "views": augmented.num_views,
                "of": augmented.description,
                "accuracy": augmented.scores.accuracy,
                "loss": augmented.scores.loss,
            },
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """The figures as text."""
        scores = self.scores
        yield f"{self.split}: {amount(scores.num_images, 'image')} of {self.data}; {self.weights} of {shown(self.path)}"
        counted = f"{scores.num_correct:,} of {scores.num_images:,}"
        yield f"Accuracy {_percent(self.accuracy)} ({counted}), 95% interval {interval_text(self.interval)} (Wilson)"
        yield f"Loss {self.loss:.4f}"
        if (augmented := self.augmented) is not None:
            views = f"{augmented.num_views} views: {augmented.description}"
            figures = f"accuracy {_percent(augmented.scores.accuracy)}, loss {augmented.scores.loss:.4f}"
            yield f"With test-time augmentation ({views}): {figures}"
        yield from self.notes
        yield ""
        yield from aligned(self._class_table(), COLUMNS).split("\n")
        yield ""
        yield from self._confusion_lines()

    def _class_table(self) -> Table:
        rows = []
        for index, (name, row) in enumerate(zip(self.class_names, self.confusion, strict=True)):
            count = int(row.sum())
            others = np.where(np.arange(len(row)) == index, 0, row)
            taken = f"{self.class_names[int(others.argmax())]} ({others.max()})" if others.any() else ""
            accuracy = _percent(row[index] / count) if count else ""
            rows.append([shortened(name, 30), f"{count:,}", accuracy, shortened(taken, 30)])
        return _right_aligned((["class", "images", "accuracy", "most often taken for"], rows), (1, 2))

    def _confusion_lines(self) -> Iterator[str]:
        names, counts = self.class_names, self.confusion
        matrix = self._matrix() if len(names) <= MOST_CLASSES else ""
        if matrix and max(map(len, matrix.split("\n"))) <= COLUMNS:
            yield "Confusion: a row for each class, a column for what its images were taken for"
            yield from matrix.split("\n")
            return
        pairs = [(int(counts[i, j]), i, j) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
        yield f"Confusions: the largest of {len(pairs):,}" if pairs else "Confusions: none"
        for count, true, predicted in sorted(pairs, key=lambda each: (-each[0], each[1:]))[:LARGEST]:
            yield f"{count:6,}  {shortened(names[true], 30)} taken for {shortened(names[predicted], 30)}"

    def _matrix(self) -> str:
        """The confusion matrix; columns have the numbers of the classes if their names are longer than the counts."""
        names, counts = self.class_names, self.confusion
        width = max(2, len(str(counts.max())))
        fit = max(map(len, names)) <= width
        heads = names if fit else [str(number) for number in range(len(names))]
        titles = names if fit else [f"{number} {shortened(name, 16)}" for number, name in enumerate(names)]
        rows = [[title, *(str(count or ".") for count in row)] for title, row in zip(titles, counts, strict=True)]
        return aligned(_right_aligned((["", *heads], rows), range(1, len(names) + 1)))

    def write(self, folder: Path) -> Path:
        """Writes predictions.csv and predictions.npz into a new folder; returns its path.

        Raises:
            RunFolderError: If the folder can't be created.
            StorageError: If a file can't be written.
        """
        path = claim(folder, advice=ELSEWHERE).path
        found, names = self.found, self.class_names
        rows = [
            (index, names[label], names[predicted], round(float(confidence), 6))
            for index, (label, predicted, confidence) in enumerate(
                zip(found.labels, found.predicted, found.confidences, strict=True)
            )
        ]
        text = csv_text(("index", "class", "predicted", "confidence"), rows)
        write_atomically(path / "predictions.csv", text.encode())
        arrays = {"labels": self.labels, "predicted": found.predicted, "logits": self.logits}
        write_arrays(path / "predictions.npz", arrays)
        return path


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _right_aligned(table: Table, columns: Sequence[int]) -> Table:
    """The table with these columns padded to the left."""
    lines = [table[0], *table[1]]
    for column in columns:
        width = max(len(line[column]) for line in lines)
        for line in lines:
            line[column] = line[column].rjust(width)
    return lines[0], lines[1:]
