"""Reads the YAML files of a user's own folder, within limits on their size and without leaving the folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from era_cnn.compose.hydra_door import FOUNDATIONS, Composed, FileSource, Part
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError

MAX_BYTES = 65_536
MAX_NAME = 250
"""The most bytes in a name: file systems allow 255, including the suffix .yaml."""

SUFFIXES = (".yaml", ".yml")
"""What the names of configs end in, and of those that are meant as one."""


def can_be_found(config_path: str) -> bool:
    """Whether the path of a config stays within its folder and is a possible file name."""
    parts = config_path.replace("\\", "/").split("/")
    longest = max(len(os.fsencode(part)) if part.isprintable() else MAX_NAME for part in parts)
    return not config_path.startswith("/") and ".." not in parts and longest < MAX_NAME


def _is_visible(config_path: str) -> bool:
    return not any(part.startswith(".") for part in config_path.split("/"))


def _check_file(entry: os.DirEntry[str]) -> None:
    """Raises a `ConfigError` if an entry of a folder looks like a config and isn't one."""
    suffix = os.path.splitext(entry.name)[1]
    if suffix.lower() not in SUFFIXES:
        return
    if suffix != ".yaml":
        advice = f"Rename it to {os.path.splitext(entry.name)[0]}.yaml."
        raise ConfigError([f"{entry.path} must end in .yaml, or it would be ignored, got {suffix}. {advice}"])
    try:
        is_file = stat.S_ISREG(os.stat(entry.path).st_mode)
    except OSError as error:
        raise ConfigError([f"{entry.path} must be readable, got: {error.strerror}. Check the file."]) from error
    if not is_file:
        raise ConfigError([f"{entry.path} must be a file, got something else. Rename or remove it."])


class OwnFiles(FileSource):
    """A config source for the user's own folder; each file is read once, and its size is checked.

    Hidden files are skipped: editors and macOS leave them. Whatever else looks like a config but can't be used is
    refused, as the packaged config of the same name would be used instead.
    """

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a folder.

        Raises:
            ConfigError: If it can't be read.
        """
        return _is_visible(config_path) and self._entries(config_path) is not None

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file.

        Raises:
            ConfigError: If its folder can't be read, or holds a file that looks like a config but can't be used.
        """
        config_path = config_path.removesuffix(".yaml")
        group, _, name = config_path.rpartition("/")
        entries = self._entries(group) if _is_visible(config_path) else None
        # The folder itself may be one with other files, such as mkdocs.yml; in a group, every file is a config.
        for entry in entries or ():
            is_meant = Path(entry.name).stem == name
            if is_meant and config_path in FOUNDATIONS and entry.name.lower().endswith(SUFFIXES):
                rule = "be under another name, since all configs build on one of this name"
                raise ConfigError([f"{entry.path} must {rule}, got {entry.name}. {FOUNDATIONS[config_path]}"])
            if group or is_meant:
                _check_file(entry)
        return any(entry.name == f"{name}.yaml" for entry in entries or ())

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names in a group."""
        return [name for name in super().list(config_path, results_filter) if _is_visible(name)]

    def _entries(self, group: str) -> Sequence[os.DirEntry[str]] | None:
        """The visible entries of a group's folder; None if there is no such folder."""
        folder = os.path.join(self.path, group)
        try:
            with os.scandir(folder) as entries:
                return [entry for entry in entries if _is_visible(entry.name)]
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not os.path.islink(folder):
                return None
            raise ConfigError([f"{folder} must be readable, got: {error.strerror}. Check its permissions."]) from error

    def read(self, path: Path) -> str:
        """The content of a file.

        Raises:
            ConfigError: If it is too large, or is not UTF-8.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                size = f"{os.path.getsize(path):,} bytes"
                raise ConfigError([f"{path} must have at most {MAX_BYTES:,} bytes, got {size}. Is it a config?"])
            return content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
            raise ConfigError([f"{path} must be a readable text file, got: {reason}. Check the file."]) from error

    def parse(self, name: str, text: str) -> dict[Any, Any]:
        """The mapping in the content of a file.

        Raises:
            ConfigError: If it is not valid YAML, or not a mapping.
        """
        return parse_yaml(name, text)


def with_files(problems: Sequence[str], composed: Composed) -> Iterator[str]:
    """The problems of keys, each with the one of the user's own files that sets it, unless the command line does."""
    hydra: Any = OmegaConf.to_container(composed.hydra, resolve=False)  # a word may hold ${…}, and so may a path
    parts = list(_own_parts(hydra["runtime"]))
    typed = {text.lstrip("+~").partition("=")[0] for text in hydra["overrides"]["task"]}
    typed -= hydra["runtime"]["choices"].keys()
    for problem in problems:
        key = problem.partition(" must ")[0]
        is_key = re.fullmatch(r"\w+(\.\w+)*", key) and not any(f"{key}.".startswith(f"{each}.") for each in typed)
        path = next((part.path for part in parts if is_key and part.at(key) is not None), None)
        yield problem if path is None else f"{problem} It is in {path}.yaml."


def _own_parts(runtime: Mapping[str, Any]) -> Iterator[Part]:
    """The user's own files among the options that a config chooses; Hydra records no lists of options."""
    for source in runtime["config_sources"]:
        if source["provider"] != "command-line":
            continue
        files = OwnFiles(source["provider"], f"file://{source['path']}")
        for group, name in runtime["choices"].items():
            if files.is_config(path := f"{group}/{name}"):
                loaded = files.load_config(path)
                package = loaded.header["package"] or group.replace("/", ".")
                yield Part(path, "", package.replace("_global_", ""), loaded.config)
