"""What a logger is: a place to which the figures of a training are sent, while it runs and after it was resumed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LoggedRun:
    """The run that is logged.

    Attributes:
        folder: Its folder, which may be moved before the run is resumed.
        id: 32 hexadecimal digits of its own; a resumed run keeps them.
        settings: Its config as text by key, such as `optimizer.lr`.
    """

    folder: Path
    id: str
    settings: Mapping[str, str]


class Sink:
    """Base class of loggers. Its methods and constructor are called in one thread, which is not that of the training.

    They may block or raise: that costs the run nothing.

    Attributes:
        packages: The packages that must be installed; the extra of era_cnn with the name of the logger holds them.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def logged_epochs(self) -> Collection[int]:
        """The epochs that were sent before this run was resumed; they are not sent again."""
        return ()

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Sends the finite figures of an epoch by name, such as `test_accuracy`; once for each epoch, in order."""

    def finish(self, result: Mapping[str, Any], images: Mapping[str, NDArray[Any]]) -> None:
        """Sends result.json and images uint8 (C, H, W) by name; called after the last epoch of a completed run."""

    def fail(self, message: str) -> None:
        """Sends why the run failed, such as the epoch and step in which it diverged."""

    def close(self) -> None:
        """Ends the connection; called however the run ended."""


def chart_of(name: str) -> str:
    """The chart of a figure, such as `accuracy/test`: those of train, val and test stand side by side."""
    split, _, figure = name.rpartition("_")
    return f"{figure}/{split}" if split else name


def numbers_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of result.json by name, without those that are settings."""
    numbers = {name: value for name, value in result.items() if type(value) in (int, float) and math.isfinite(value)}
    return {name: numbers[name] for name in numbers if name not in ("schema", "seed")}
