"""Opens the folder of an existing run, and reads its config."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.config.settings import Setting, setting_of
from era_cnn.config.versions import stored_digest, upgraded
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError, RunFolderError, harmless, problem, show
from era_cnn.folders.run import LR_TEST, RunFolder, is_run, is_sweep
from era_cnn.output import shown
from era_cnn.paths import expanded, typed_path


@dataclass(frozen=True)
class StoredConfig:
    """The config stored in a folder, upgraded to this version, and its digest by the rules of its own version."""

    config: RunConfig
    sha256: str


class MissingPluginError(RunFolderError):
    """A config names an entry that no loaded plugin has."""


_ENTRY_KEYS = r"data\.name|augmentation(\.\w+\.transform)?|optimizer\.name|scheduler\.name|logger"
"""The keys that name entries, which plugins may have."""


def run_folder(path: Path) -> RunFolder:
    """The folder of an existing run.

    Raises:
        ConfigError: If it is the folder of a sweep, or of a learning-rate test.
        RunFolderError: If there is no such folder, it can't be read, or it holds something else.
    """
    folder = open_folder(path)
    names = os.listdir(folder.path)
    if "config.yaml" not in names and not is_run(names):
        raise RunFolderError(_no_run(path, ", which has no config.yaml"))
    return folder


def open_folder(path: Path, key: str = "RUN") -> RunFolder:
    """The folder of a run, or one that contains such folders.

    Args:
        path: As it was typed.
        key: What the message calls it.

    Raises:
        ConfigError: If it is the folder of a sweep, or of a learning-rate test.
        RunFolderError: If there is no such folder, or it can't be read.
    """
    path = Path(expanded(str(path)))
    if is_sweep(path):
        rule = "be the folder of a run, not of a sweep"
        raise ConfigError([problem(key, rule, str(shown(path)), "Give the folder of one of its jobs.")])
    if os.path.lexists(path / LR_TEST):
        rule = "be the folder of a run, not of a learning-rate test"
        raise ConfigError([problem(key, rule, str(shown(path)), f"Read {LR_TEST} in it.")])
    try:
        os.listdir(path)
        os.stat(os.path.join(path, "."))  # listing needs another permission than opening
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
        raise RunFolderError(_no_run(path, reason, key)) from error
    folder = RunFolder(path.absolute())
    folder.check()
    return folder


def _no_run(path: Path, reason: str, key: str = "RUN") -> str:
    advice = "Give the path that the run printed at its end; era-cnn list shows the runs in a folder."
    return f"{key} must be the folder of a run, got '{harmless(str(shown(path)))}'{reason}. {advice}"


def read_values(folder: RunFolder) -> dict[str, Any]:
    """The content of config.yaml, in the schema of the version that wrote it.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    return folder.read("config.yaml", lambda text: parse_yaml("config.yaml", text))


def read_config(folder: RunFolder, data_root: str | None = None) -> StoredConfig:
    """The config of a run.

    Args:
        folder: The folder of the run.
        data_root: Where the data is now, if it was moved.

    Raises:
        ConfigError: If `data_root` is given, but the data set is not read from a folder.
        MissingPluginError: If it names an entry that is not known.
        RunFolderError: If the file is missing or damaged, or was written by a newer version.
    """
    path = folder.path / "config.yaml"
    values = read_values(folder)
    try:
        config = parse(upgraded(values), is_stored=True)
    except ConfigError as error:
        got = error.problems[0].rstrip(".")
        is_entry = re.match(f"({_ENTRY_KEYS}) must be one of", got) and _is_whole(values)
        advice = "If a plugin has it, give --plugin." if is_entry else "Start a new run."
        kind = MissingPluginError if is_entry else RunFolderError
        raise kind(f"{path} must hold what the run wrote, got: {got}. {advice}") from error
    except ValueError as error:  # another version wrote it
        raise RunFolderError(f"{path} must have a known schema, got {error}.") from error
    stored = StoredConfig(config, stored_digest(values, config))
    if data_root is None:
        return stored
    return StoredConfig(config.with_data_root(typed_path("--data-root", data_root)), stored.sha256)


def _is_whole(values: Mapping[str, Any]) -> bool:
    """Whether a config has all of its sections, so that a name that is not known is that of a plugin's entry."""
    named = [values.get(section) for section in ("data", "optimizer", "scheduler")]
    are_named = all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in named)
    return are_named and all(name in values for name, field in RunConfig.model_fields.items() if field.is_required())


def is_portable(folder: RunFolder) -> bool:
    """Whether a run computes portably; read before its plugins are imported, which may import torch.

    Raises:
        RunFolderError: If config.yaml is missing or damaged.
    """
    return read_values(folder).get("portable") is True


def read_setting(folder: RunFolder, config_sha256: str | None) -> Setting:
    """The setting of a run; it can also be read without the plugins that its config names.

    Args:
        folder: The folder of the run.
        config_sha256: The digest of the config in the result of the run; None if it has no result.

    Raises:
        RunFolderError: If config.yaml is missing or damaged, or does not have this digest.
    """
    try:
        stored = read_config(folder)
    except MissingPluginError:
        return _setting_without_plugin(folder)
    if config_sha256 not in (None, stored.sha256):
        raise RunFolderError(
            f"{folder.path / 'config.yaml'} must have the digest {config_sha256!s:.12}, with which the run ended, "
            f"got {stored.sha256:.12}. Undo the change of the file."
        )
    return setting_of(stored.config.model_dump(), type(stored.config))


def _setting_without_plugin(folder: RunFolder) -> Setting:
    path = folder.path / "config.yaml"
    try:
        setting = setting_of(upgraded(read_values(folder)))
    except (AttributeError, KeyError, TypeError) as error:  # nothing checks the values: their schema is the plugin's
        raise RunFolderError(f"{path} must hold a config, got another mapping. Start a new run.") from error
    if not isinstance(setting.seed, int):
        raise RunFolderError(f"{path} must hold a whole number as its seed, got {show(setting.seed)}. Start a new run.")
    return setting
