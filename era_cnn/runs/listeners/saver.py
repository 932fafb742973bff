"""Decides when a run is saved, and as what."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from era_cnn.folders.checkpoints import CheckpointFolder
from era_cnn.training.checkpoint import capture
from era_cnn.training.loop import EpochMetrics, Position, Step


class Saver:
    """Saves at the end of each epoch, every so many seconds within it, and whenever it is asked to."""

    def __init__(
        self,
        folder: CheckpointFolder,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        records: Sequence[EpochMetrics],
        *,
        origin: dict[str, str],
        every_seconds: float | None,
    ) -> None:
        self.folder, self.model, self.optimizer, self.records = folder, model, optimizer, records
        self.origin, self.every_seconds = origin, every_seconds
        self._position: Position | None = None  # of the last update that was made since the last save
        self._saved_at = time.monotonic()

    def after_step(self, step: Step) -> None:
        """Remembers where the training stands; saves it if the time has come."""
        self._position = Position(step.epoch, step.step + 1, step.tally, step.seconds)
        if self.every_seconds is not None and time.monotonic() - self._saved_at >= self.every_seconds:
            self.save()

    def after_epoch(self, record: EpochMetrics) -> None:
        """Saves the end of an epoch, and the weights of the best one so far."""
        if self._is_best(record):
            self.folder.save_best(self._content(Position(record.epoch + 1)), epoch=record.epoch)
        self._position = Position(record.epoch + 1)
        self.save()

    def save(self) -> None:
        """Saves what has come since the last save."""
        if self._position is None:
            return
        content = self._content(self._position)
        self.folder.save(content, epoch=self._position.epoch, steps_done=self._position.steps_done)
        self._position, self._saved_at = None, time.monotonic()

    def _content(self, position: Position) -> bytes:
        return capture(self.origin, position, self.model, self.optimizer, self.records).to_bytes()

    def _is_best(self, record: EpochMetrics) -> bool:
        """By the validation images if there are any, else by the test images; the first of equals."""
        accuracies = [scores.accuracy for each in self.records if (scores := each.val or each.test)]
        scores = record.val or record.test
        return scores is not None and accuracies.index(max(accuracies)) == len(accuracies) - 1
