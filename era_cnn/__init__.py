"""Reproducible, Hydra-configured experiments with small image classifiers.

`__all__` lists the public Python API. Each name is imported on first use, so that importing the package takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from era_cnn.api import compose, find_lr, load, replay, resume, train
    from era_cnn.config.choices import block, dataset, logger, optimizer, scheduler, transform
    from era_cnn.config.data_info import DataInfo
    from era_cnn.config.schedule import Schedule
    from era_cnn.config.schema import RunConfig
    from era_cnn.config.sections import FieldError
    from era_cnn.data.arrays import Arrays
    from era_cnn.data.transforms import Mix, Transform
    from era_cnn.errors import ConfigError, DataError, EraCnnError, RunFolderError, TrainingError
    from era_cnn.runs.loggers.sink import LoggedRun, Sink
    from era_cnn.training.listeners import Listener
    from era_cnn.training.state import Member
    from era_cnn.use.network import Run

_PLACES = {
    "ConfigError": "errors",
    "DataError": "errors",
    "EraCnnError": "errors",
    "RunFolderError": "errors",
    "TrainingError": "errors",
    "Arrays": "data.arrays",
    "DataInfo": "config.data_info",
    "FieldError": "config.sections",
    "Listener": "training.listeners",
    "Member": "training.state",
    "Mix": "data.transforms",
    "Run": "use.network",
    "RunConfig": "config.schema",
    "Schedule": "config.schedule",
    "LoggedRun": "runs.loggers.sink",
    "Sink": "runs.loggers.sink",
    "Transform": "data.transforms",
    "block": "config.choices",
    "compose": "api",
    "dataset": "config.choices",
    "find_lr": "api",
    "launcher": "config.choices",
    "load": "api",
    "logger": "config.choices",
    "optimizer": "config.choices",
    "replay": "api",
    "resume": "api",
    "scheduler": "config.choices",
    "train": "api",
    "transform": "config.choices",
}
"""Maps each public name to the module that defines it."""

__all__ = [
    "Arrays",
    "ConfigError",
    "DataError",
    "DataInfo",
    "EraCnnError",
    "FieldError",
    "Listener",
    "LoggedRun",
    "Member",
    "Mix",
    "Run",
    "RunConfig",
    "RunFolderError",
    "Schedule",
    "Sink",
    "TrainingError",
    "Transform",
    "block",
    "compose",
    "dataset",
    "find_lr",
    "launcher",
    "load",
    "logger",
    "optimizer",
    "replay",
    "resume",
    "scheduler",
    "train",
    "transform",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
