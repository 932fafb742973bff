"""YAML files of a user's own folder, read so that none takes long, grows without end or leads out of the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from era_cnn.compose.hydra_door import FileSource
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import ConfigError

MAX_BYTES = 65_536
MAX_NAME = 250
"""Bytes of a name in a folder, which file systems take up to 255 of; .yaml comes behind it."""


def can_be_found(config_path: str) -> bool:
    """Whether the path of a config stays within the folder that it is looked for in, and a file can be called so."""
    parts = config_path.replace("\\", "/").split("/")
    longest = max(len(os.fsencode(part)) if part.isprintable() else MAX_NAME for part in parts)
    return not config_path.startswith("/") and ".." not in parts and longest < MAX_NAME


class OwnFiles(FileSource):
    """A folder of the user's own, whose files are read once and only after they were checked."""

    def read(self, path: Path) -> str:
        """The text of a file.

        Raises:
            ConfigError: If it is too large, or is not text.
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
            raise ConfigError([f"{path} must be a text that can be read, got: {reason}. Look at the file."]) from error

    def parse(self, name: str, text: str) -> dict[Any, Any]:
        """The mapping in a file's text.

        Raises:
            ConfigError: If it is not a mapping written in YAML.
        """
        return parse_yaml(name, text)
