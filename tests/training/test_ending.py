from __future__ import annotations

import math

import pytest

from era_cnn.training.ending import at_target, first_of, never, without_progress
from era_cnn.training.history import EpochMetrics, Scores, watched


def history(*values: float | None) -> list[EpochMetrics]:
    """An epoch for each value, which is its validation loss, and 1 minus its validation accuracy."""
    return [
        EpochMetrics(epoch, 0.1, 2.0, 0.25, 1.0, None if value is None else Scores(value, 1 - value, 1, 1), None, {})
        for epoch, value in enumerate(values, start=1)
    ]


def end_of(rule, *values: float | None) -> int | None:
    """The epoch after which a rule ends a training."""
    epochs = history(*values)
    return next((count for count in range(1, len(epochs) + 1) if rule(epochs[:count])), None)


def stopping(watch: str = "val_loss", patience: int = 2, min_delta: float = 0.0, min_epochs: int = 1):
    return without_progress(watch, patience=patience, min_delta=min_delta, min_epochs=min_epochs)


def test_watched_values_are_those_of_the_evaluated_epochs() -> None:
    epochs = history(0.5, None, 0.25)
    assert watched(epochs, "val_loss") == [0.5, 0.25]
    assert watched(epochs, "val_accuracy") == [0.5, 0.75]
    assert watched(epochs, "train_loss") == [2.0] * 3
    assert watched(epochs, "train_accuracy") == [0.25] * 3
    assert watched(epochs, "test_loss") == []


@pytest.mark.parametrize(
    ("rule", "values", "end"),
    [
        (stopping(), [0.5, 0.6, 0.6], 3),
        (stopping(), [0.5, 0.6, 0.4, 0.4, 0.4], 5),  # equal is not better
        (stopping(), [0.5, 0.4, 0.3, 0.2], None),
        (stopping(), [0.5, None, 0.6, None, 0.6], 5),  # only evaluations count
        (stopping(), [math.nan, 0.5, math.nan, 0.4, math.nan, math.nan], 6),
        (stopping(patience=1), [math.nan], 1),
        (stopping(min_delta=0.1), [0.5, 0.45, 0.41], 3),
        (stopping(min_delta=0.1), [0.5, 0.45, 0.39, 0.3, 0.28], None),
        (stopping(min_epochs=5), [0.5, 0.6, 0.6, 0.6, 0.6], 5),
        (stopping(min_epochs=5), [0.5, 0.6, 0.6, 0.6, 0.4, 0.5, 0.5], 7),  # it has recovered in time
        (stopping("val_accuracy"), [0.5, 0.6, 0.6], 3),
        (stopping("val_accuracy"), [0.5, 0.4, 0.3], None),
        (stopping("train_loss"), [None, None, None], 3),
        (at_target("val_loss", 0.75), [0.5, 0.4, 0.25], 3),
        (at_target("test_accuracy", 0.75), [0.1, 0.1], None),
        (at_target("train_loss", 0.25), [None], 1),
        (never, [0.5] * 9, None),
        (first_of(), [0.5] * 9, None),
        (first_of(stopping(), at_target("val_loss", 0.75)), [0.5, 0.2], 2),
    ],
)
def test_the_epoch_after_which_a_training_ends(rule, values: list[float | None], end: int | None) -> None:
    assert end_of(rule, *values) == end


def test_the_reason_is_said() -> None:
    assert stopping()(history(0.5, 0.6, 0.7)) == "val_loss has not become better than 0.5 in 2 evaluations"
    assert at_target("val_loss", 0.75)(history(0.25)) == "val_accuracy has reached the target, 0.75"
    assert first_of(at_target("val_loss", 0.75), stopping())(history(0.1, 0.6, 0.7)).startswith("val_accuracy")
