"""What a report is about: everything that the folder of a run holds, read once and checked."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from era_cnn.config.recipe import recipe_of
from era_cnn.config.versions import upgraded
from era_cnn.errors import RunFolderError
from era_cnn.folders.description import Description, parse_description
from era_cnn.folders.notes import Notes, read_notes
from era_cnn.folders.run import RunFolder
from era_cnn.folders.schemas import HydraFile
from era_cnn.folders.stored import MissingPluginError, read_config, read_setting, read_values
from era_cnn.reports.answers import Predictions, read_predictions, read_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


class _Named(BaseModel):
    name: str


class _Model(_Named):
    layers: dict[str, dict[str, Any]] = {}


class _Trainer(BaseModel):
    epochs: int


class _Target(BaseModel):
    max_params: int | None = None
    max_epochs: int | None = None
    test_accuracy: float | None = None


class _Config(BaseModel):
    """What a report needs of config.yaml; of a config with an entry of an unknown plugin, nothing else is checked."""

    model_config = ConfigDict(strict=True)

    name: str
    data: _Named
    model: _Model
    trainer: _Trainer
    target: _Target = _Target()
    augmentation: dict[str, Any] = {}


@dataclass(frozen=True)
class RunContent:
    """A run as its folder tells it; what is None is missing there, and `missing` says why."""

    path: Path
    state: dict[str, Any]
    config: dict[str, Any]
    """As plain values, in the present schema."""

    recipe: dict[str, str]
    """Its parts by their titles; empty for a config with an entry of an unknown plugin."""

    composed: HydraFile | None
    """How its config was composed; None if that is not recorded, as of a config that was made in Python."""

    notes: Notes
    """What people noted about it."""

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

    config = _read_config(folder)
    predictions = read("predictions.npz", lambda: read_predictions(folder.path), None)
    num_images = len(predictions.labels) if predictions else 0
    composed: HydraFile | None = None
    with suppress(RunFolderError):  # the folder was written in Python, without Hydra
        composed = folder.read_hydra()
    return RunContent(
        path=folder.path,
        state=folder.state(),
        config=config,
        recipe=_read_recipe(folder),
        composed=composed,
        notes=read_notes(folder.path),
        metrics=read("metrics.csv", lambda: [_numbers(row) for row in folder.read_metrics(with_seconds=True)], []),
        steps=read("steps.csv", folder.read_steps, []),
        result=folder.result(),
        provenance=read("provenance.json", lambda: folder.read_json("provenance.json"), {}),
        description=read("summary.json", lambda: folder.read("summary.json", parse_description), None),
        predictions=predictions,
        samples=read("samples.npz", lambda: read_samples(folder.path, num_images), {}),
        reference=reference_curve(str(config["name"])) if config["data"]["name"] == "mnist" else [],
        missing=tuple(missing),
    )


def _read_config(folder: RunFolder) -> dict[str, Any]:
    """The config as plain values, which are checked: completely, unless it names an entry of an unknown plugin."""
    read_setting(folder, None)
    values = upgraded(read_values(folder))
    try:
        _Config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        path = folder.path / "config.yaml"
        raise RunFolderError(f"{path} must hold a config, got {key}: {first['msg']}. Start a new run.") from error
    return values


def _read_recipe(folder: RunFolder) -> dict[str, str]:
    try:
        return recipe_of(read_config(folder).config)
    except MissingPluginError:
        return {}


def reference_curve(experiment: str) -> list[dict[str, float]]:
    """Train accuracy, test accuracy and test loss of a reference run on MNIST by epoch; empty if none is called so."""
    text = resources.files("era_cnn.reports").joinpath("reference_curves.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row.pop("experiment") == experiment]
    return [{key: float(value) for key, value in row.items()} for row in rows]


def _numbers(row: Mapping[str, str]) -> dict[str, float | None]:
    return {key: float(value) if value else None for key, value in row.items()}
