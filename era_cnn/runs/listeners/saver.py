"""Saves the checkpoints of a run."""

from __future__ import annotations

import time

from era_cnn.folders.checkpoints import CheckpointFolder
from era_cnn.training.checkpoint import capture
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener, Training
from era_cnn.training.loop import Position, Step


class Saver(Listener):
    """Saves at the end of each epoch, at intervals within it, and on request.

    Args:
        folder: The folder of the checkpoints.
        origin: The digests of config and data, stored in each checkpoint.
        every_seconds: The time between two checkpoints within an epoch; None for none.
    """

    is_essential = True

    def __init__(self, folder: CheckpointFolder, *, origin: dict[str, str], every_seconds: float | None) -> None:
        self.folder, self.origin, self.every_seconds = folder, origin, every_seconds
        self._position: Position | None = None  # after the last update, if it is not saved yet
        self._saved_at = time.monotonic()

    def on_start(self, training: Training) -> None:
        """Stores references to what will be saved."""
        self._state, self._history = training.state, training.history

    def on_step(self, step: Step) -> None:
        """Records the position of the training; saves it if the interval is over."""
        self._position = Position(step.epoch, step.step + 1, step.tally, step.seconds)
        if self.every_seconds is not None and time.monotonic() - self._saved_at >= self.every_seconds:
            self.save()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Saves the end of an epoch, and the weights of the best one so far."""
        self._position = Position(metrics.epoch + 1)
        if self._history.is_best_so_far:
            self.folder.save_best(self._content(self._position), epoch=metrics.epoch)
        self.save()

    def save(self) -> None:
        """Saves the training, unless nothing has changed since the last save."""
        if self._position is None:
            return
        content = self._content(self._position)
        self.folder.save(content, epoch=self._position.epoch, steps_done=self._position.steps_done)
        self._position, self._saved_at = None, time.monotonic()

    def _content(self, position: Position) -> bytes:
        return capture(self.origin, position, self._state, self._history).to_bytes()
