"""Writes the tables of a run after each epoch."""

from __future__ import annotations

from era_cnn.folders.run import RunFolder
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener, Training


class Writer(Listener):
    """Keeps metrics.csv, steps.csv and fingerprints.jsonl in step with the history."""

    is_essential = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_start(self, training: Training) -> None:
        """Stores a reference to what will be written."""
        self._history, self._with_val = training.history, training.config.has_val
        self._with_ema = training.config.trainer.ema_decay is not None

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Rewrites the files."""
        self.write()

    def write(self) -> None:
        """Writes the files from the history, which may be shorter than the files after a resume."""
        self.folder.write_metrics(self._history, with_val=self._with_val, with_ema=self._with_ema)
        self.folder.write_steps(self._history)
        self.folder.write_fingerprints(self._history)
