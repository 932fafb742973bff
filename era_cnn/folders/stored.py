"""A run that is there already: its folder, and the config that it wrote down."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from era_cnn.config.messages import field_problems
from era_cnn.config.schema import DigitsData, RunConfig
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.folders.run import RunFolder


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (path / "multirun.yaml").exists() or (path / "ledger.jsonl").exists()


def run_folder(path: Path) -> RunFolder:
    """The folder of a run that is there.

    Raises:
        ConfigError: If it is not.
    """
    if not path.is_dir():
        raise ConfigError([problem("RUN", "be the folder of a run", str(path), "Give the path that it ended with.")])
    if is_sweep(path):
        advice = "Give the folder of one of its jobs."
        raise ConfigError([problem("RUN", "be the folder of a run", f"{path}, that of a sweep", advice)])
    return RunFolder(path.absolute())


def read_config(folder: RunFolder, data_root: str | None = None) -> RunConfig:
    """The config that a run wrote down.

    Raises:
        ConfigError: If the data were to lie elsewhere, and are nowhere.
        RunFolderError: If it is not there, or is no longer what a run writes.
    """
    path = folder.path / "config.yaml"
    try:
        config = RunConfig.model_validate(folder.read("config.yaml", lambda text: parse_yaml(path.name, text)))
    except ConfigError as error:
        raise RunFolderError(f"{path} must hold what the run wrote, got: {error}") from error
    except ValidationError as error:
        reason = field_problems(error, RunConfig)[0]
        raise RunFolderError(f"{path} must hold what the run wrote, got: {reason} Start the run anew.") from error
    if data_root is None:
        return config
    if isinstance(config.data, DigitsData):
        raise ConfigError([problem("--data-root", "not be given: the digits are embedded", data_root, "Remove it.")])
    return config.model_copy(update={"data": config.data.model_copy(update={"root": data_root})})
