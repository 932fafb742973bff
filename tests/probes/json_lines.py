"""A listener from outside the package: writes what happens as lines of JSON."""

import json
from pathlib import Path
from typing import Any

import era_cnn


class JsonLines(era_cnn.Listener):
    """One line at the start, for each epoch, and at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, training: Any) -> None:
        self._write(event="start", experiment=training.config.name, epochs_before=len(training.history))

    def on_epoch(self, metrics: Any) -> None:
        self._write(event="epoch", epoch=metrics.epoch, train_loss=metrics.train_loss)

    def on_end(self, result: dict[str, Any]) -> None:
        self._write(event="end", final_test_accuracy=result["final_test_accuracy"])

    def close(self) -> None:
        self._write(event="close")

    def _write(self, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
