"""Listeners are called during a training: they show, save, write and compare. `fit` does none of that itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.config.schema import RunConfig
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.loop import Step
from era_cnn.training.state import TrainingState


@dataclass(frozen=True)
class Training:
    """What a listener may read: `state` and `history` change during the training."""

    config: RunConfig
    state: TrainingState
    history: History
    folder: Path


class Listener:
    """Base class of listeners; a method that is not overridden does nothing.

    Attributes:
        is_essential: Whether its failure ends the run. Otherwise it is reported once, and the listener is closed and
            dropped.
    """

    is_essential: bool = False

    def on_start(self, training: Training) -> None:
        """Called before the first step, and before a checkpoint is loaded: members may be added to the state here."""

    def on_step(self, step: Step) -> None:
        """Called after a parameter update."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Called after an epoch and its evaluations, when `metrics` is the last entry of the history."""

    def on_end(self, result: dict[str, Any]) -> None:
        """Called after the last epoch of a completed run, with the content of result.json."""

    def on_failure(self, error: Exception) -> None:
        """Called when an error ends the run; not when the run is interrupted, and can be resumed."""

    def close(self) -> None:
        """Releases resources; called however the run ended."""


class Listeners(Listener):
    """Several listeners as one; each call goes to all of them, in order.

    Args:
        listeners: The listeners, in order.
        warn: Called with the message about a listener that failed.
    """

    def __init__(self, listeners: Sequence[Listener], warn: Callable[[str], None]) -> None:
        self._listeners, self._warn = list(listeners), warn

    def on_start(self, training: Training) -> None:  # noqa: D102 - as in Listener, for each
        self._tell("on_start", training)

    def on_step(self, step: Step) -> None:  # noqa: D102
        self._tell("on_step", step)

    def on_epoch(self, metrics: EpochMetrics) -> None:  # noqa: D102
        self._tell("on_epoch", metrics)

    def on_end(self, result: dict[str, Any]) -> None:  # noqa: D102
        self._tell("on_end", result)

    def on_failure(self, error: Exception) -> None:  # noqa: D102
        self._tell("on_failure", error)

    def close(self) -> None:  # noqa: D102
        with ExitStack() as stack:  # one that fails does not keep the others open
            for listener in reversed(self._listeners):
                stack.callback(self._tell_one, listener, "close")

    def _tell(self, event: str, *arguments: Any) -> None:
        for listener in tuple(self._listeners):
            self._tell_one(listener, event, *arguments)

    def _tell_one(self, listener: Listener, event: str, *arguments: Any) -> None:
        try:
            getattr(listener, event)(*arguments)
        except Exception as error:
            if listener.is_essential:
                raise
            self._listeners.remove(listener)
            name, reason = type(listener).__name__, f"{type(error).__name__}: {error}"
            self._warn(f"The listener {name} failed in {event} and is no longer called, got {reason.rstrip('.')}.")
            if event != "close":
                with suppress(Exception):  # it was reported
                    listener.close()
