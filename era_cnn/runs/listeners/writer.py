"""Writes the tables of a run after each epoch."""

from __future__ import annotations

from era_cnn.folders.run import RunFolder
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener, Training


class Writer(Listener):
    """Keeps metrics.csv and fingerprints.jsonl as the history is."""

    is_essential = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_start(self, training: Training) -> None:
        """Remembers what is to be written."""
        self._history, self._with_val = training.history, training.config.data.val_size > 0

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Writes both files anew."""
        self.write()

    def write(self) -> None:
        """Writes both files as the history is now: a run may have come further than its last checkpoint."""
        self.folder.write_metrics(self._history, with_val=self._with_val)
        self.folder.write_fingerprints(self._history)
