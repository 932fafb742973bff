"""Stops a run where it can be continued."""

from __future__ import annotations

from era_cnn.runs.stopping import StopRequest
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener
from era_cnn.training.loop import Step


class StopWhenAsked(Listener):
    """Raises `Interrupted` after the current step or epoch if a signal was received; the last listener."""

    is_essential = True

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def on_step(self, step: Step) -> None:
        """Checks for a signal after a step."""
        self.stop.check()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Checks for a signal after an epoch."""
        self.stop.check()
