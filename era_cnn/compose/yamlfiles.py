"""Reads the YAML files of a user's own folder, within limits on their size and without leaving the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from era_cnn.compose.hydra_door import FileSource
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError

MAX_BYTES = 65_536
MAX_NAME = 250
"""The most bytes in a name: file systems allow 255, including the suffix .yaml."""


def can_be_found(config_path: str) -> bool:
    """Whether the path of a config stays within its folder and is a possible file name."""
    parts = config_path.replace("\\", "/").split("/")
    longest = max(len(os.fsencode(part)) if part.isprintable() else MAX_NAME for part in parts)
    return not config_path.startswith("/") and ".." not in parts and longest < MAX_NAME


class OwnFiles(FileSource):
    """A config source for the user's own folder; each file is read once, and its size is checked."""

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
