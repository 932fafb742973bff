"""What a report is about: everything that the folder of a run holds, read once and checked.

Shapes: N test images, K classes, C channels, H×W pixels.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from era_cnn.config.versions import upgraded
from era_cnn.errors import RunFolderError
from era_cnn.folders.arrays import Expected, read_arrays
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

MOST_PER_CELL = 12
"""The most images that are kept and shown of those of one class that are taken for another."""


class Layer(BaseModel):
    """A row of the layer table, as in summary.json."""

    model_config = ConfigDict(strict=True)

    name: str
    type: str
    output_shape: list[int]
    params: int = Field(ge=0)
    mult_adds: int = Field(default=0, ge=0)
    receptive_field: int = Field(ge=1)


class Description(BaseModel):
    """summary.json: the network and the data set, for those who have neither."""

    model_config = ConfigDict(strict=True)

    image_shape: list[int] = Field(min_length=3, max_length=3)
    class_names: list[str] = Field(min_length=2)
    params: int = Field(ge=0)
    mult_adds: int = Field(ge=0)
    receptive_field: int = Field(ge=1)
    layers: list[Layer]


@dataclass(frozen=True)
class Predictions:
    """The final weights' answers for the test images: labels and predicted classes (N,), probabilities (N, K)."""

    labels: NDArray[Any]
    predicted: NDArray[Any]
    probabilities: NDArray[Any]

    @cached_property
    def confidences(self) -> NDArray[Any]:
        """The probability of the predicted class of each image, (N,)."""
        confidences: NDArray[Any] = self.probabilities.max(axis=1)
        return confidences

    @cached_property
    def confusion(self) -> NDArray[Any]:
        """How often images of each class (row) were taken for each class (column), (K, K)."""
        import numpy as np

        size = self.probabilities.shape[1]
        counts = np.bincount(self.labels.astype(np.int64) * size + self.predicted, minlength=size * size)
        return counts.reshape(size, size)


@dataclass(frozen=True)
class RunContent:
    """A run as its folder tells it; what is None is missing there, and `missing` says why."""

    path: Path
    state: dict[str, Any]
    config: dict[str, Any]
    """As plain values, in the present schema."""

    overrides: tuple[str, ...]
    """As they were typed."""

    metrics: list[dict[str, float | None]]
    """A row for each epoch; an evaluation that was not made is None."""

    steps: list[dict[str, float]]
    """The mean loss of each window within the epochs."""

    result: dict[str, Any] | None
    provenance: dict[str, Any]
    description: Description | None
    predictions: Predictions | None
    samples: dict[str, NDArray[Any]]
    reference: list[dict[str, float]]
    """The curve of the reference run of the same name, on the same data; empty if there is none."""

    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return str(self.config["name"])

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, or their numbers."""
        if self.description is not None:
            return self.description.class_names
        return [str(index) for index in range(self.predictions.probabilities.shape[1] if self.predictions else 0)]


def read_run(folder: RunFolder) -> RunContent:
    """Reads the folder of a run, complete or not, of this version or an earlier one.

    Raises:
        RunFolderError: If its config or a file that it has is damaged.
    """
    folder.check()
    missing: list[str] = []

    def read(name: str, reader: Callable[[], T], default: T) -> T:
        if os.path.lexists(folder.path / name):
            return reader()
        missing.append(name)
        return default

    config = upgraded(read_values(folder))
    overrides: tuple[str, ...] = ()
    with suppress(RunFolderError):  # the folder was written in Python, without Hydra
        overrides = folder.read_task()[1]
    return RunContent(
        path=folder.path,
        state=folder.state(),
        config=config,
        overrides=overrides,
        metrics=read("metrics.csv", lambda: [_numbers(row) for row in folder.read_metrics(with_seconds=True)], []),
        steps=read("steps.csv", folder.read_steps, []),
        result=folder.result(),
        provenance=read("provenance.json", lambda: folder.read_json("provenance.json"), {}),
        description=read("summary.json", lambda: folder.read("summary.json", parse_description), None),
        predictions=read("predictions.npz", lambda: read_predictions(folder.path), None),
        samples=read("samples.npz", lambda: read_arrays(folder.path / "samples.npz", SAMPLES), {}),
        reference=reference_curve(str(config["name"])) if config["data"]["name"] == "mnist" else [],
        missing=tuple(missing),
    )


def parse_description(text: str) -> Description:
    """The content of summary.json.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return Description.model_validate(json.loads(text))
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"]) from error


SAMPLES = {
    "augmented": Expected("u", 4, is_optional=True),
    "augmented_labels": Expected("iu", 1, is_optional=True),
    "error_index": Expected("iu", 1, is_optional=True),
    "error_images": Expected("u", 4, is_optional=True),
    "explained_index": Expected("iu", 1, is_optional=True),
    "explained_maps": Expected("f", 3, is_optional=True),
    "filters": Expected("f", 4, is_optional=True),
}
"""The arrays of samples.npz: see `runs.samples`."""

_PREDICTIONS = {"labels": Expected("iu", 1), "predicted": Expected("iu", 1), "logits": Expected("f", 2)}


def read_predictions(path: Path) -> Predictions:
    """The predictions in the folder of a run.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    import numpy as np

    arrays = read_arrays(path / "predictions.npz", _PREDICTIONS)
    labels, predicted, logits = (arrays[name] for name in _PREDICTIONS)
    size, classes = logits.shape
    is_whole = len(labels) == len(predicted) == size > 0 and np.isfinite(logits).all()
    if not (is_whole and min(labels.min(), predicted.min()) >= 0 and max(labels.max(), predicted.max()) < classes):
        got = f"{len(labels)} labels, {len(predicted)} predictions and logits of shape {logits.shape}"
        raise RunFolderError(f"{path / 'predictions.npz'} must hold a class for each image, got {got}. Replay the run.")
    return Predictions(labels.astype(np.int64), predicted.astype(np.int64), probabilities(logits))


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """The softmax of logits (N, K), float64."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[Any] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def reference_curve(experiment: str) -> list[dict[str, float]]:
    """Train accuracy, test accuracy and test loss of a reference run on MNIST by epoch; empty if none is called so."""
    text = resources.files("era_cnn.reports").joinpath("reference_curves.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row.pop("experiment") == experiment]
    return [{key: float(value) for key, value in row.items()} for row in rows]


def _numbers(row: Mapping[str, str]) -> dict[str, float | None]:
    return {key: float(value) if value else None for key, value in row.items()}
