"""Opens the folder of an existing run, and reads its config."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import stored_digest, upgraded
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError, RunFolderError, problem, show
from era_cnn.folders.run import RunFolder
from era_cnn.paths import expanded, typed_path


@dataclass(frozen=True)
class StoredConfig:
    """The config stored in a folder, upgraded to this version, and its digest by the rules of its own version."""

    config: RunConfig
    sha256: str


_ENTRY_KEYS = ("data.name", "augmentation", "optimizer.name", "scheduler.name")
"""The keys that name entries, which plugins may have."""


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return any(os.path.exists(path / name) for name in ("multirun.yaml", "ledger.jsonl"))


def run_folder(path: Path) -> RunFolder:
    """The folder of an existing run.

    Raises:
        ConfigError: If it is the folder of a sweep.
        RunFolderError: If there is no such folder, or it can't be read.
    """
    path = Path(expanded(str(path)))
    if is_sweep(path):
        advice = "Give the folder of one of its jobs."
        raise ConfigError([problem("RUN", "be the folder of a run", f"{path}, that of a sweep", advice)])
    try:
        os.listdir(path)
        os.stat(os.path.join(path, "."))  # listing needs another permission than opening
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
        advice = "Give the path that the run printed at its end."
        raise RunFolderError(f"RUN must be the folder of a run, got {show(str(path))}{reason}. {advice}") from error
    return RunFolder(path.absolute())


def read_values(folder: RunFolder) -> dict[str, Any]:
    """The content of config.yaml, in the schema of the version that wrote it.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    try:
        return folder.read("config.yaml", lambda text: parse_yaml("config.yaml", text))
    except ConfigError as error:
        raise RunFolderError(f"{folder.path / 'config.yaml'} must hold what the run wrote, got: {error}") from error


def read_config(folder: RunFolder, data_root: str | None = None) -> StoredConfig:
    """The config of a run.

    Args:
        folder: The folder of the run.
        data_root: Where the data is now, if it was moved.

    Raises:
        ConfigError: If `data_root` is given, but the data set is not read from a folder.
        RunFolderError: If the file is missing or damaged, or was written by a newer version.
    """
    path = folder.path / "config.yaml"
    values = read_values(folder)
    try:
        config = parse(upgraded(values))
    except ConfigError as error:
        got = error.problems[0].rstrip(".")
        is_entry = got.startswith(tuple(f"{key} must be one of" for key in _ENTRY_KEYS))
        advice = "If a plugin has it, give --plugin." if is_entry else "Start a new run."
        raise RunFolderError(f"{path} must hold what the run wrote, got: {got}. {advice}") from error
    except ValueError as error:  # another version wrote it
        raise RunFolderError(f"{path} must have a known schema, got {error}.") from error
    stored = StoredConfig(config, stored_digest(values, config))
    if data_root is None:
        return stored
    return StoredConfig(config.with_data_root(typed_path("--data-root", data_root)), stored.sha256)
