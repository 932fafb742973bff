"""The difference between each setting and a baseline, with the test that their runs support.

Two questions are kept apart. Over seeds: is a setting better than another? On test images: do two trained networks
differ? A single run of each setting answers only the second (Dietterich, 1998), whatever the number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from era_cnn.errors import RunFolderError
from era_cnn.folders.arrays import Expected, read_arrays
from era_cnn.reports.inference import Difference, correlation, holm, mcnemar, paired_t, seeds_needed, welch_t
from era_cnn.reports.rows import Row
from era_cnn.reports.statistics import FINAL, Group, decides_what_is_measured, they_differ

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIRED, WELCH, MCNEMAR = "paired t", "Welch's t", "McNemar mid-p"


@dataclass(frozen=True)
class Comparison:
    """A setting minus the baseline.

    Attributes:
        test: PAIRED, WELCH or MCNEMAR; empty if there is none.
        n: The numbers of seeds: of common ones if paired, else of the setting and of the baseline; or of test images.
        difference: Of final test accuracies; None if there is no test.
        reason: Why there is no test.
        p_adjusted: The p for all comparisons together (Holm).
        correlation: Of the accuracies of common seeds.
        seeds_needed: About how many seeds would show a difference as large as this one; None if unknown or too many.
        is_identical: Whether both networks predict the same class for every image.
        trained_differently: The keys by which the trainings saw other images, or fewer epochs than their schedule.
    """

    group: Group
    baseline: Group
    test: str = ""
    n: tuple[int, ...] = ()
    difference: Difference | None = None
    reason: str = ""
    p_adjusted: float | None = None
    correlation: float | None = None
    seeds_needed: int | None = None
    is_identical: bool = False
    trained_differently: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tested:
    """What a network predicted for the test images.

    Attributes:
        labels_sha256: The digest of their labels, in order.
        predicted: The predicted classes, shape (N,).
        correct: Whether they are right, shape (N,).
    """

    labels_sha256: str
    predicted: NDArray[Any]
    correct: NDArray[Any]


def compared(found: Sequence[Group], baseline: Group) -> list[Comparison]:
    """Each other setting, compared with the baseline; p is adjusted for their number."""
    comparisons = [_compared(group, baseline) for group in found if group is not baseline]
    tested = [(index, each.difference.p) for index, each in enumerate(comparisons) if each.difference]
    ps = [(index, p) for index, p in tested if p is not None]
    for (index, _), adjusted in zip(ps, holm([p for _, p in ps]), strict=True):
        comparisons[index] = replace(comparisons[index], p_adjusted=adjusted)
    return comparisons


def read_tested(row: Row) -> Tested:
    """What the final weights of a completed run predicted, from predictions.npz.

    Raises:
        RunFolderError: If the file is missing or damaged, or does not belong to the result.
    """
    path = row.outcome.folder / "predictions.npz"
    one_axis = Expected("iu", 1)
    arrays = read_arrays(path, {"labels": one_axis, "predicted": one_axis})
    labels, predicted = arrays["labels"].astype("<i8"), arrays["predicted"].astype("<i8")
    correct = labels == predicted if len(labels) == len(predicted) else labels[:0]
    if not len(correct) or not row.result or abs(float(correct.mean()) - row.result[FINAL]) > 1e-6:
        raise RunFolderError(f"{path} must hold the predictions of the result, got others. Replay the run.")
    return Tested(hashlib.sha256(labels.tobytes()).hexdigest(), predicted, correct)


def _compared(group: Group, baseline: Group) -> Comparison:
    keys = [*_differing(group.rows[0], baseline.rows[0])]
    empty = Comparison(group, baseline, trained_differently=tuple(key for key in keys if _is_of_training(key)))
    if other_test := [key for key in keys if not _is_of_training(key)]:
        return replace(empty, reason=f"they may have been tested on other images: {they_differ(other_test)}")
    if group.seeds == baseline.seeds == 1:
        return _on_images(empty)
    if min(group.seeds, baseline.seeds) == 1:
        return replace(empty, reason="both settings must have at least 2 seeds, or both a single run")
    return _over_seeds(empty)


def _over_seeds(empty: Comparison) -> Comparison:
    values, others = empty.group.by_seed(FINAL), empty.baseline.by_seed(FINAL)
    common = sorted(values.keys() & others.keys())
    if len(common) < 2:
        difference = welch_t([*values.values()], [*others.values()])
        comparison = replace(empty, test=WELCH, n=(len(values), len(others)), difference=difference)
    else:
        pairs = [values[seed] for seed in common], [others[seed] for seed in common]
        difference = paired_t(*pairs)
        related = correlation(*pairs)
        comparison = replace(empty, test=PAIRED, n=(len(common),), difference=difference, correlation=related)
    if not (difference.error and difference.value):
        return comparison
    needed = seeds_needed(difference.value, difference.error, are_paired=comparison.test == PAIRED)
    return replace(comparison, seeds_needed=needed)


def _on_images(empty: Comparison) -> Comparison:
    try:
        one, other = read_tested(empty.group.rows[0]), read_tested(empty.baseline.rows[0])
    except RunFolderError as error:
        return replace(empty, reason=str(error).rstrip("."))
    if one.labels_sha256 != other.labels_sha256:
        return replace(empty, reason="they were tested on other images: the labels in predictions.npz differ")
    only_one, only_other = int((one.correct & ~other.correct).sum()), int((other.correct & ~one.correct).sum())
    images = len(one.correct)
    is_identical = bool((one.predicted == other.predicted).all())
    difference = mcnemar(only_one, only_other, images)
    return replace(empty, test=MCNEMAR, n=(images,), difference=difference, is_identical=is_identical)


def _differing(row: Row, other: Row) -> Iterator[str]:
    """The keys that decide which images are trained on and tested, and that differ."""
    for key in dict.fromkeys([*row.effective, *other.effective]):
        decides = key in ("data", "data_sha256") or decides_what_is_measured(key)
        if decides and row.effective.get(key) != other.effective.get(key):
            yield key


def _is_of_training(key: str) -> bool:
    """Whether a key changes only the training: the split of validation images, and the limits of a trial run."""
    return key.startswith("data.val_") or key in ("trainer.limit_train_images", "trainer.limit_epochs")
