"""Sends the figures of a run to a logger, in a thread of its own: no logger can harm or delay the run."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cnn.config.choices import LOGGERS
from era_cnn.config.schema import RunConfig
from era_cnn.config.settings import flat_settings
from era_cnn.errors import harmless, shortened
from era_cnn.folders.provenance import run_id
from era_cnn.folders.run import RunFolder
from era_cnn.reports.answers import read_predictions, read_samples
from era_cnn.reports.pictures import grid
from era_cnn.runs.loggers.sink import LoggedRun, Sink
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener, Training

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLOSE_SECONDS = 30.0
"""How long a run waits at its end for a logger to send what is left."""

MOST_CHARACTERS = 250
"""The most characters of a value of the config; servers refuse longer ones."""

NUM_MISCLASSIFIED = 36
CELL = 12
"""The pixels along a cell of the confusion matrix."""


class Logging(Listener):
    """Sends each epoch to one logger, and images at the end; warns once if the logger fails.

    A resumed run begins with the epochs of the checkpoint's history that the logger does not have.

    Args:
        name: The name of the logger.
        make: Makes the logger; called in the thread.
        warn: Called with the message about a logger that failed.
        close_seconds: How long to wait for it at the end.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Sink],
        warn: Callable[[str], None],
        *,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._name, self._make, self._warn, self._close_seconds = name, make, warn, close_seconds
        self._events: queue.SimpleQueue[Callable[[Sink], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._failure: str | None = None

    def on_start(self, training: Training) -> None:
        """Starts the thread, with the epochs so far."""
        self._folder = training.folder
        for metrics in training.history:
            self.on_epoch(metrics)
        self._thread.start()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Hands an epoch to the thread."""
        self._report()
        self._events.put(lambda sink: self._send(sink, metrics))

    def on_end(self, result: dict[str, Any]) -> None:
        """Hands the images to the thread."""
        self._events.put(lambda sink: sink.finish(result, dict(images_of(self._folder))))

    def on_failure(self, error: Exception) -> None:
        """Hands the message to the thread."""
        message = harmless(shortened(str(error) or type(error).__name__, 1000))
        self._events.put(lambda sink: sink.fail(message))

    def close(self) -> None:
        """Waits until all was sent, but not for ever."""
        self._events.put(None)
        if self._thread.ident is not None:
            self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self._failure = f"no answer within {self._close_seconds:g} seconds"
        self._report()

    def _send(self, sink: Sink, metrics: EpochMetrics) -> None:
        if metrics.epoch not in self._sent:
            sink.log(metrics.epoch, figures(metrics))

    def _work(self) -> None:
        try:
            sink = self._make()
            try:
                self._sent = frozenset(sink.logged_epochs())
                for event in iter(self._events.get, None):
                    event(sink)
            finally:
                sink.close()
        except BaseException as error:  # noqa: BLE001 - a library may even raise SystemExit
            self._failure = f"{type(error).__name__}: {error}".rstrip(".")

    def _report(self) -> None:
        if self._failure is not None:
            got, self._failure = harmless(shortened(self._failure, 300)), None
            self._warn(
                f"logger={self._name} must work, got {got}. The run is unaffected; its folder holds all figures."
            )


def loggers_of(config: RunConfig, folder: RunFolder, warn: Callable[[str], None]) -> list[Logging]:
    """A listener for each logger that the config names."""
    values = config.model_dump(exclude={"logger"})
    settings = {key: _cut(value) for key, value in flat_settings(values).items()}
    run = LoggedRun(folder.path, run_id(folder), settings)

    def make(name: str) -> Callable[[], Sink]:
        return lambda: LOGGERS.make(name, getattr(config.logger, name), run=run)

    return [Logging(name, make(name), warn) for name in config.logger.chosen()]


def _cut(value: str) -> str:
    return value if len(value) <= MOST_CHARACTERS else f"{value[: MOST_CHARACTERS - 1]}…"


def figures(metrics: EpochMetrics) -> dict[str, float]:
    """The finite figures of an epoch by name: NaN breaks the pages of some loggers, infinity becomes 1.8e308."""
    found = {"lr": metrics.lr, "train_loss": metrics.train_loss, "train_accuracy": metrics.train_accuracy}
    for split in ("val", "test", "ema_val", "ema_test"):
        if scores := getattr(metrics, split):
            found |= {f"{split}_loss": scores.loss, f"{split}_accuracy": scores.accuracy}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def images_of(folder: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """The confusion matrix and the most confident errors of a run that is complete, as uint8 (C, H, W) by name."""
    counts = read_predictions(folder).confusion  # (K, K)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    cells = (255 * (1 - shares)).round().astype(np.uint8)
    yield "confusion_matrix", cells.repeat(CELL, axis=0).repeat(CELL, axis=1)[None]
    errors = read_samples(folder, int(counts.sum())).get("error_images")
    if errors is not None and len(errors):
        yield "misclassified", grid(errors[:NUM_MISCLASSIFIED], columns=6)
