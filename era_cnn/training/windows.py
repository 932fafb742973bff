"""The loss within an epoch: means over windows of consecutive steps.

A running sum of the loss is kept anyway. A window ends by keeping a copy of it on its device; the means are read once,
after the epoch, so that no step waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor
from typing_extensions import TypedDict

MOST_IN_EPOCH = 100
MOST_IN_TRAINING = 10_000
"""The most windows, unless there are more epochs: they are part of every checkpoint."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Column = Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=MOST_IN_EPOCH)]
Values = Annotated[list[Finite], Field(max_length=MOST_IN_EPOCH)]


@dataclass(frozen=True)
class Steps:
    """The windows of an epoch, a value in each list for each of them.

    `step` is the number of updates of the epoch after which the window ends, `images` the number of images in it,
    `loss` the mean over them in nats, weighted if classes have weights, and `lr` the learning rate of its last update.
    """

    step: Column = field(default_factory=list)
    images: Column = field(default_factory=list)
    loss: Values = field(default_factory=list)
    lr: Values = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuses columns of different lengths, which only a damaged checkpoint has."""
        if len({len(column) for column in (self.step, self.images, self.loss, self.lr)}) > 1:
            raise ValueError("steps: columns of different lengths")

    def rows(self, epoch: int) -> list[dict[str, float]]:
        """A row for each window, as in steps.csv."""
        rows = zip(*vars(self).values(), strict=True)
        return [{"epoch": epoch, **dict(zip(vars(self), row, strict=True))} for row in rows]


def num_windows(epochs: int) -> int:
    """The most windows in an epoch of a training of so many epochs."""
    return max(1, min(MOST_IN_EPOCH, MOST_IN_TRAINING // epochs))


def ends_window(step: int, num_steps: int, windows: int) -> bool:
    """Whether a window ends with a step, counted from 0; those of an epoch differ in length by at most one step."""
    return (step + 1) * windows // num_steps > step * windows // num_steps


class Windows:
    """The windows of an epoch that have ended so far: what was summed up from its beginning to the end of each."""

    def __init__(self) -> None:
        self._step: list[int] = []
        self._images: list[int] = []
        self._lr: list[float] = []
        self._sums: list[Tensor] = []
        """The loss, and the weights of the images if classes have weights: shape (1,) or (2,)."""

    @property
    def num_images(self) -> int:
        """The number of images in all windows that have ended."""
        return self._images[-1] if self._images else 0

    def end(self, step: int, lr: float, num_images: int, loss_sum: Tensor, weight: Tensor | None) -> None:
        """Ends a window after `step` updates of the epoch, whose last one had this learning rate."""
        self._step.append(step)
        self._images.append(num_images)
        self._lr.append(lr)
        self._sums.append(torch.stack([loss_sum] if weight is None else [loss_sum, weight]))

    def steps(self) -> Steps:
        """The means over the windows; waits for the device."""
        if not self._step:
            return Steps()
        images = _differences(self._images)
        losses, *weights = map(_differences, torch.stack(self._sums, dim=1).tolist())
        means = [loss / weight for loss, weight in zip(losses, weights[0] if weights else images, strict=True)]
        return Steps(list(self._step), images, means, list(self._lr))

    def state(self) -> dict[str, Any]:
        """The state, as a tensor and numbers."""
        sums = torch.stack(self._sums) if self._sums else torch.empty(0, 1)
        return {"step": self._step, "images": self._images, "lr": self._lr, "sums": sums}

    @classmethod
    def from_state(cls, state: dict[str, Any], like: Tensor) -> Windows:
        """The windows with this state, on the device and in the precision of `like`.

        Raises:
            ValueError: If it is not the state of windows.
        """
        whole, windows = _STATE.validate_python(state), cls()
        windows._step, windows._images, windows._lr = whole["step"], whole["images"], whole["lr"]
        sums, count = whole["sums"], len(whole["step"])
        is_whole = isinstance(sums, Tensor) and sums.shape in ((count, 1), (count, 2))
        if not is_whole or len(whole["images"]) != count or len(whole["lr"]) != count:
            raise ValueError("windows of different numbers of sums")
        growing = [whole["step"], whole["images"], *sums.T[1:].tolist()]
        if not sums.isfinite().all() or any(step <= 0 for column in growing for step in _differences(column)):
            raise ValueError("windows that do not follow each other")
        windows._sums = list(sums.to(like))
        return windows


class _State(TypedDict):
    step: Column
    images: Column
    lr: Values
    sums: Any


_STATE = TypeAdapter(_State)


def _differences(sums: list[Any]) -> list[Any]:
    return [after - before for before, after in pairwise([0, *sums])]
