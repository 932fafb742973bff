from __future__ import annotations

import pytest

from era_cnn.training.history import EpochMetrics, History, Scores


def epoch(number: int, val: float | None = None, test: float | None = None) -> EpochMetrics:
    """An epoch with these accuracies, or without an evaluation."""
    val_scores, test_scores = (
        None if accuracy is None else Scores(1.0, accuracy, round(100 * accuracy), 100) for accuracy in (val, test)
    )
    return EpochMetrics(number, 0.1, 1.0, 0.5, 1.0, val_scores, test_scores, {})


def history_of(*accuracies: tuple[float | None, float | None]) -> History:
    return History(epoch(number, *each) for number, each in enumerate(accuracies, start=1))


def best_epoch(history: History, split: str | None = None) -> int | None:
    best = history.best(split)
    return best.epoch if best else None


def test_before_the_first_evaluation_there_is_no_best() -> None:
    assert best_epoch(History()) is None
    assert best_epoch(history_of((None, None), (None, None))) is None
    assert not History().is_best_so_far
    assert not history_of((None, None)).is_best_so_far


def test_without_validation_images_the_test_set_chooses() -> None:
    history = history_of((None, 0.1), (None, 0.3), (None, 0.2))
    assert history.choosing_split == "test"
    assert (best_epoch(history), best_epoch(history, "test"), best_epoch(history, "val")) == (2, 2, None)


def test_validation_images_choose_before_the_test_set_does() -> None:
    history = history_of((0.9, 0.1), (0.5, 0.3), (0.6, 0.2))
    assert history.choosing_split == "val"
    assert (best_epoch(history), best_epoch(history, "test"), best_epoch(history, "val")) == (1, 2, 1)


def test_one_validation_is_enough_to_choose() -> None:
    assert best_epoch(history_of((None, 0.9), (0.2, None), (None, 0.95))) == 2


def test_the_first_of_equals_is_the_best() -> None:
    assert best_epoch(history_of((0.5, None), (0.7, None), (0.7, None), (0.6, None))) == 2


def test_epochs_without_an_evaluation_are_passed_over() -> None:
    assert best_epoch(history_of((None, None), (None, 0.2), (None, None))) == 2


def test_an_accuracy_of_zero_can_be_the_best() -> None:
    assert best_epoch(history_of((None, 0.0), (None, None))) == 1


def test_it_is_said_of_each_epoch_whether_it_is_the_best_so_far() -> None:
    history, said = History(), []
    for number, accuracy in enumerate((0.2, 0.1, None, 0.2, 0.3, 0.3), start=1):
        history.append(epoch(number, accuracy))
        said.append(history.is_best_so_far)
    assert said == [True, False, False, False, True, False]


def test_it_is_a_sequence() -> None:
    history = history_of((None, 0.1), (None, 0.2), (None, 0.3))
    assert len(history) == 3
    assert bool(history)
    assert not History()
    assert history[-1].epoch == 3
    assert [each.epoch for each in history[1:]] == [2, 3]
    assert [each.epoch for each in history] == [1, 2, 3]


@pytest.mark.parametrize("number", [1, 2, 4])
def test_epochs_come_one_after_the_other(number: int) -> None:
    history = history_of((None, 0.1), (None, 0.2))
    with pytest.raises(AssertionError, match="appended in order"):
        history.append(epoch(number))
    assert len(history) == 2


def test_a_history_does_not_share_the_list_that_it_was_made_of() -> None:
    epochs = [epoch(1)]
    history = History(epochs)
    history.append(epoch(2))
    assert len(epochs) == 1
