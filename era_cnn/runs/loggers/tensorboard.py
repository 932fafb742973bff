"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from era_cnn.config.choices import logger
from era_cnn.folders.plain import names_of
from era_cnn.runs.loggers.sink import LoggedRun, Sink, chart_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "tensorboard"


@logger("tensorboard")
class TensorBoard(Sink):
    """Writes curves and images to tensorboard/ in the run folder.

    A resumed run writes its files anew, since TensorBoard shows every point of every file: no point is there twice.
    """

    packages = ("tensorboard",)

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / FOLDER
        folder.mkdir(exist_ok=True)
        for name in names_of(folder):
            if name.startswith("events.out.tfevents."):
                (folder / name).unlink()
        self._writer = SummaryWriter(str(folder))
        rows = "\n".join(f"| {key} | {value} |" for key, value in run.settings.items())
        self._writer.add_text("config", f"| key | value |\n|---|---|\n{rows}", 0)

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """A point in the chart of each figure."""
        for name, value in figures.items():
            self._writer.add_scalar(chart_of(name), value, epoch)
        self._writer.flush()

    def finish(self, result: Mapping[str, Any], images: Mapping[str, NDArray[Any]]) -> None:
        """The images, at the last epoch."""
        for name, image in images.items():
            self._writer.add_image(name, image, result["epochs"])

    def fail(self, message: str) -> None:
        """The message as text beside the config."""
        self._writer.add_text("failure", message, 0)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
