"""A run that is there already: its folder, and the config that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import stored_digest, upgraded
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.folders.run import RunFolder


@dataclass(frozen=True)
class StoredConfig:
    """The config in a folder, whatever version wrote it, and its digest by the rules of that version."""

    config: RunConfig
    sha256: str


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


def read_values(folder: RunFolder) -> dict[str, Any]:
    """What config.yaml holds, as the version wrote it that made the run.

    Raises:
        RunFolderError: If it is not there or damaged.
    """
    try:
        return folder.read("config.yaml", lambda text: parse_yaml("config.yaml", text))
    except ConfigError as error:
        raise RunFolderError(f"{folder.path / 'config.yaml'} must hold what the run wrote, got: {error}") from error


def read_config(folder: RunFolder, data_root: str | None = None) -> StoredConfig:
    """The config that a run was made from.

    Args:
        folder: Of the run.
        data_root: Where the data are by now, if not where they were.

    Raises:
        ConfigError: If the data were to be elsewhere, and are nowhere.
        RunFolderError: If it is not there, was written by a newer version, or is no longer what a run writes.
    """
    path = folder.path / "config.yaml"
    values = read_values(folder)
    try:
        config = parse(upgraded(values))
    except ConfigError as error:
        got = error.problems[0].rstrip(".")
        advice = "If a plugin has it, name it with --plugin." if "must be one of" in got else "Start the run anew."
        raise RunFolderError(f"{path} must hold what the run wrote, got: {got}. {advice}") from error
    except ValueError as error:  # of another version
        raise RunFolderError(f"{path} must be of a version that is known, got {error}.") from error
    stored = StoredConfig(config, stored_digest(values, config))
    if data_root is None:
        return stored
    return StoredConfig(config.with_data_root(data_root), stored.sha256)
