"""The metrics of a training's epochs, and the choice of the best epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, overload

from pydantic import Field

from era_cnn.training.windows import Finite, Steps

Fraction = Annotated[float, Field(ge=0, le=1)]
"""The ranges count when a checkpoint is read, which may come from someone else."""


@dataclass(frozen=True)
class Scores:
    """Loss in nats and accuracy in [0, 1] over every image of a split."""

    loss: Finite
    accuracy: Fraction
    num_correct: int
    num_images: int


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one pass over the training set, and of the evaluations after it.

    Accuracies are in [0, 1], losses in nats. Those of the training set are means over the batches as they were trained,
    in training mode. `lr` is the learning rate of the epoch's last update, `seconds` the training time without
    evaluations. `fingerprint` holds the digest of each tensor after the epoch. `is_last` means that the training ended
    with this epoch, and `end_reason` why, if epochs were left. `ema_val` and `ema_test` are the scores of the averaged
    weights, if there are any. `steps` holds the loss within the epoch; it is empty if an earlier version trained it.
    """

    epoch: int
    lr: Finite
    train_loss: Finite
    train_accuracy: Fraction
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    val: Scores | None
    test: Scores | None
    fingerprint: dict[str, str]
    is_last: bool = False
    end_reason: str | None = None
    ema_val: Scores | None = None
    ema_test: Scores | None = None
    steps: Steps = field(default_factory=Steps)


def watched(epochs: Iterable[EpochMetrics], name: str) -> list[float]:
    """The values of a figure such as `val_loss` or `train_accuracy`, of those epochs that have it."""
    split, _, figure = name.partition("_")
    if split == "train":
        return [getattr(metrics, name) for metrics in epochs]
    return [getattr(scores, figure) for metrics in epochs if (scores := getattr(metrics, split))]


class History(Sequence[EpochMetrics]):
    """The metrics of all epochs so far. Only this class decides which epoch is the best."""

    def __init__(self, epochs: Iterable[EpochMetrics] = ()) -> None:
        self._epochs = list(epochs)

    def append(self, metrics: EpochMetrics) -> None:
        """Adds the next epoch."""
        assert metrics.epoch == len(self) + 1, "epochs must be appended in order"
        self._epochs.append(metrics)

    @overload
    def __getitem__(self, index: int) -> EpochMetrics: ...

    @overload
    def __getitem__(self, index: slice) -> list[EpochMetrics]: ...

    def __getitem__(self, index: int | slice) -> EpochMetrics | list[EpochMetrics]:
        return self._epochs[index]

    def __len__(self) -> int:
        return len(self._epochs)

    def __iter__(self) -> Iterator[EpochMetrics]:
        return iter(self._epochs)

    @property
    def choosing_split(self) -> str:
        """The split whose accuracy chooses the best epoch: val if there are validation images, else test."""
        return "val" if any(metrics.val for metrics in self) else "test"

    def best(self, split: str | None = None) -> EpochMetrics | None:
        """The epoch with the highest accuracy on a split, the first one if several are equal; None if none was scored.

        Args:
            split: val or test; None for `choosing_split`.
        """
        split = split or self.choosing_split
        scored = [metrics for metrics in self if getattr(metrics, split)]
        return max(scored, key=lambda metrics: getattr(metrics, split).accuracy, default=None)

    @property
    def is_best_so_far(self) -> bool:
        """Whether the latest epoch is the best one."""
        return bool(self) and self.best() is self[-1]
