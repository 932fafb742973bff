"""Loads a run and its trained network from the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, RunFolderError, one_of, problem
from era_cnn.folders.run import RunFolder
from era_cnn.folders.schemas import parse_metrics
from era_cnn.folders.stored import read_config, run_folder
from era_cnn.models.build import Network, build_from_config
from era_cnn.paths import typed_path
from era_cnn.runs.parts import EMA
from era_cnn.runs.process import pick_device
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.state import load_weights

if TYPE_CHECKING:
    from era_cnn.use.export import Export


CHECKPOINTS = ("last", "best", "ema")
"""The weights that a run may have."""


class Run:
    """An existing run, from any version of era_cnn. Its folder is only read.

    Raises:
        ConfigError: If it is the folder of a sweep.
        RunFolderError: If there is no such folder, or its config is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder: RunFolder = run_folder(Path(path))
        self._stored = read_config(self._folder)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self._folder.path

    @property
    def config(self) -> RunConfig:
        """The config of the run."""
        return self._stored.config

    @property
    def state(self) -> str:
        """The state of the run: running, completed, failed, interrupted or not started.

        Raises:
            RunFolderError: If a file is damaged; also raised by the other properties.
        """
        return str(self._folder.state()["state"])

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None if the run is not complete."""
        return self._folder.result()

    @property
    def metrics(self) -> list[dict[str, int | float | None]]:
        """A row for each epoch, as in metrics.csv; None for evaluations that were not made."""
        return self._folder.read("metrics.csv", _rows)

    def network(self, which: Literal["last", "best", "ema"] = "last", *, device: str = "cpu") -> Network:
        """The trained network, in evaluation mode; images (B, C, H, W), normalised, to logits (B, K).

        Args:
            which: last, for the weights of the newest checkpoint, or best, for those of the best epoch (chosen on the
                validation images if there are any, otherwise on the test images), or ema, for the averaged weights of
                the newest checkpoint.
            device: cpu, cuda, mps, or auto for the first of cuda, mps and cpu that is available.

        Raises:
            ConfigError: If `which` is none of these, the run averages no weights, or the device is not available.
            RunFolderError: If there is no such checkpoint, it is damaged, or its weights belong to another network.
        """
        if which not in CHECKPOINTS:
            raise ConfigError([problem("which", one_of(CHECKPOINTS), which, "Choose one of them.")])
        if which == "ema" and self.config.trainer.ema_decay is None:
            rule = "be last or best for a run without averaged weights (trainer.ema_decay)"
            raise ConfigError([problem("which", rule, which, "Choose one of the two.")])
        checkpoint = Checkpoint.from_bytes(self._content(which), torch.device("cpu"))
        target = pick_device(device)
        network = build_from_config(self.config)
        load_weights(network, checkpoint.state["network"] if which != "ema" else _averaged(checkpoint))
        return network.to(target).to(memory_format=torch.channels_last).eval()

    def export(
        self,
        to: str | Path | None = None,
        *,
        checkpoint: Literal["last", "best", "ema"] = "last",
        formats: Sequence[Literal["onnx", "torch"]] = ("onnx", "torch"),
        opset: int | None = None,
        data_root: str | Path | None = None,
    ) -> Export:
        """Writes the network to a new folder, for programs that have no era_cnn; see `era_cnn.use.export.export`."""
        from era_cnn.use.export import export

        folder = None if to is None else Path(typed_path("to", str(to)))
        root = None if data_root is None else str(data_root)
        return export(self, folder, checkpoint=checkpoint, formats=formats, opset=opset, data_root=root)

    def _content(self, which: str) -> bytes:
        if which == "best":
            content = self._folder.checkpoints.best()
        else:
            found = self._folder.checkpoints.newest()
            content = found.content if found else None
        if content is None:
            raise RunFolderError(f"{self.path} must hold a whole checkpoint ({which}), got none. Resume the run.")
        return content


def _averaged(checkpoint: Checkpoint) -> Any:
    """The averaged weights in a checkpoint, not yet checked; None if there are none."""
    average = checkpoint.state.get(EMA)
    return average.get("weights") if isinstance(average, Mapping) else None


def _rows(text: str) -> list[dict[str, int | float | None]]:
    return [{key: _number(key, value) for key, value in row.items()} for row in parse_metrics(text)]


def _number(key: str, value: str) -> int | float | None:
    if not value:
        return None
    return int(value) if key == "epoch" else float(value)
