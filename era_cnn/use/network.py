"""Loads a run and its trained network from the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, EraCnnError, RunFolderError, amount, one_of, problem
from era_cnn.folders.run import RunFolder
from era_cnn.folders.schemas import parse_metrics
from era_cnn.folders.stored import read_config, run_folder
from era_cnn.models.build import Network, build_from_config
from era_cnn.paths import typed_path
from era_cnn.runs.parts import EMA, check_blocks
from era_cnn.runs.process import pick_device
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.state import load_weights

if TYPE_CHECKING:
    from era_cnn.use.evaluated import Evaluated
    from era_cnn.use.explain import Explained
    from era_cnn.use.export import Export
    from era_cnn.use.predict import Images, Predicted

Which = Literal["last", "best", "ema"]
CHECKPOINTS: tuple[Which, ...] = ("last", "best", "ema")


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, and which of the run's weights it has."""

    network: Network
    which: Which
    epoch: int
    """The number of whole epochs that these weights were trained for."""

    steps_done: int
    """The updates after that epoch."""

    data_sha256: str | None
    """The digest of the data that they were trained on."""

    def __str__(self) -> str:
        later = f" and {amount(self.steps_done, 'step')}" if self.steps_done else ""
        return f"{self.which} weights (epoch {self.epoch}{later})"


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

    @property
    def steps(self) -> list[dict[str, float]]:
        """A row for each window within the epochs, as in steps.csv: epoch, step, images, loss and lr."""
        return self._folder.read_steps()

    def network(self, which: Which = "last", *, device: str = "cpu") -> Network:
        """The trained network, in evaluation mode; images (B, C, H, W), normalised, to logits (B, K).

        Args:
            which: last, for the weights of the newest checkpoint; best, for those of the best epoch (chosen on the
                validation images if there are any, otherwise on the test images); or ema, for the averaged weights of
                the newest checkpoint, if the run kept some (`trainer.ema_decay`).
            device: cpu, cuda, mps, or auto for the first of cuda, mps and cpu that is available.

        Raises:
            ConfigError: If `which` is none of the three, the run has no such weights, or the device is not available.
            RunFolderError: If there is no such checkpoint, it is damaged, or its weights belong to another network.
        """
        return self.trained(which, device=device).network

    def trained(self, which: Which = "last", *, device: str = "cpu") -> Trained:
        """The network that `network` returns, and which weights it has."""
        if which not in CHECKPOINTS:
            raise ConfigError([problem("which", one_of(CHECKPOINTS), which, "Choose one of the three.")])
        if which == "ema" and self.config.trainer.ema_decay is None:
            rule = "be last or best: the run kept no averaged weights"
            raise ConfigError([problem("--checkpoint", rule, which, "Train one with trainer.ema_decay=0.999.")])
        target = pick_device(device)
        self._folder.check()
        check_blocks(self.config, self.path / "config.yaml")
        content = self._content(which)
        with self._naming_the_folder():
            checkpoint = Checkpoint.from_bytes(content, torch.device("cpu"))
            network = build_from_config(self.config, may_miss_target=True)
            keys = (EMA, "weights") if which == "ema" else ("network",)
            load_weights(network, _entry(checkpoint.state, *keys))
        network = network.to(target).to(memory_format=torch.channels_last).eval()
        steps_done = checkpoint.position.steps_done
        return Trained(network, which, len(checkpoint.history), steps_done, checkpoint.origin.get("data_sha256"))

    def evaluate(
        self,
        split: str = "test",
        *,
        data: Sequence[str] = (),
        checkpoint: Which = "last",
        tta: bool = False,
        data_root: str | Path | None = None,
        device: str | None = None,
    ) -> Evaluated:
        """Evaluates the network on every image of a split, as the run did: loss, accuracy, logits, confusion.

        Args:
            split: test, val or train; training images are not augmented.
            data: Overrides that choose another data set with images of the same shape in as many classes, such as
                ["data=qmnist"]; empty for that of the run.
            checkpoint: The weights, as for `network`.
            tta: Whether to evaluate with test-time augmentation, too; its scores are separate.
            data_root: Where the data of the run is now, if it was moved.
            device: As for `network`; None for that of the run, or cpu if that is not available.

        Raises:
            ConfigError: If the split does not exist, or the other data set does not fit; also as `network`.
            DataError: If the data is missing or damaged.
            RunFolderError: As `network`.
        """
        from era_cnn.use.evaluate import composed_data, evaluate

        root = None if data_root is None else str(data_root)
        section = composed_data(data) if data else None
        return evaluate(self, split, data=section, checkpoint=checkpoint, tta=tta, data_root=root, device=device)

    def predict(self, images: Images, *, checkpoint: Which = "last", device: str | None = None) -> Predicted:
        """The network's answers for images: `logits`, `classes`, `scores` and `class_names`.

        Args:
            images: Image files, prepared as those of the data set were; or a uint8 array as the data set holds them,
                (N, C, H, W) or (N, H, W, C), and of grey images also (N, H, W); or a list of such images.
            checkpoint: The weights, as for `network`.
            device: As for `evaluate`.

        Raises:
            ConfigError: If the images have another type or shape; also as `network`.
            DataError: If a file can't be read as an image; lists all of them.
            RunFolderError: As `network`.
        """
        from era_cnn.use.predict import predict

        return predict(self, images, checkpoint=checkpoint, device=device)

    def calibration_error(self, checkpoint: Which = "last") -> float | None:
        """How far confidence and accuracy are apart on the run's test images: expected calibration error, in [0, 1].

        None if it is not known: of averaged weights, of the best ones if validation images did not choose them, and of
        a run that has not completed.

        Args:
            checkpoint: The weights, as for `network`.

        Raises:
            RunFolderError: If the file with the run's answers is missing or damaged.
        """
        from era_cnn.use.predict import calibration_error_of

        found = calibration_error_of(self, checkpoint)
        return found and found[0]

    def explain(
        self,
        images: Images,
        *,
        class_name: str | None = None,
        checkpoint: Which = "last",
        device: str | None = None,
    ) -> Explained:
        """What in images speaks for a class (Grad-CAM, Selvaraju et al. 2016, arXiv 1610.02391).

        Args:
            images: As for `predict`.
            class_name: The class to explain; None for the predicted one of each image.
            checkpoint: The weights, as for `network`.
            device: As for `evaluate`.

        Returns:
            `heat_maps`, (N, H, W) in [0, 1], of the `images` (N, C, H, W) that the network saw; also `classes`, their
            `scores`, `class_names`, and the `maps` (N, h, w) as the `layer` gives them. A map is zero where nothing
            speaks for the class.

        Raises:
            ConfigError: If there is no such class, or no layer to explain; also as `predict`.
            DataError: As `predict`.
            RunFolderError: As `network`.
        """
        from era_cnn.use.explain import explain_images

        return explain_images(self, images, class_name=class_name, checkpoint=checkpoint, device=device)

    def export(
        self,
        to: str | Path | None = None,
        *,
        checkpoint: Which = "last",
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

    @contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        """Lets an error about what the folder holds name the folder."""
        try:
            yield
        except EraCnnError as error:
            raise RunFolderError(f"{self.path} must hold a network that can be used, got: {error}") from error


def _entry(values: object, *keys: str) -> Any:
    """A value in nested mappings; None if one is missing, or is no mapping."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _rows(text: str) -> list[dict[str, int | float | None]]:
    return [{key: _number(key, value) for key, value in row.items()} for row in parse_metrics(text)]


def _number(key: str, value: str) -> int | float | None:
    if not value:
        return None
    return int(value) if key == "epoch" else float(value)
