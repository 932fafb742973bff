"""YAML files of a user's own folder, read so that none takes long, grows without end or leads out of the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from era_cnn.errors import ConfigError, problem

MAX_BYTES = 65_536
MAX_NAME = 250
"""Bytes of a name in a folder, which file systems take up to 255 of; .yaml comes behind it."""

MAX_ENTRIES = 10_000
MAX_DEPTH = 20
MAX_DIGITS = 100
MAX_INTERPOLATIONS = 200


def can_be_found(config_path: str) -> bool:
    """Whether the path of a config stays within the folder that it is looked for in, and a file can be called so."""
    parts = config_path.replace("\\", "/").split("/")
    longest = max(len(os.fsencode(part)) if part.isprintable() else MAX_NAME for part in parts)
    return not config_path.startswith("/") and ".." not in parts and longest < MAX_NAME


class OwnFiles(FileConfigSource):
    """Hydra's source of a folder of the user's own."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads a file once, and takes what was checked.

        Raises:
            ConfigError: If it is too large, or is not a mapping written in YAML.
        """
        name = self._normalize_file_name(config_path)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {name}")
        text = _read(Path(self.path, name))
        return ConfigResult(
            config=OmegaConf.create(parse_yaml(name, text)),
            path=self.full_path(),
            provider=self.provider,
            header=ConfigSource._get_header_dict(text[:512]),
        )


def _read(path: Path) -> str:
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


def parse_yaml(name: str, text: str) -> dict[Any, Any]:
    """The mapping that a text in YAML holds; `name` says where it stands.

    Raises:
        ConfigError: If it is not one, or is larger, deeper or longer than a config can be.
    """
    if text.count("${") > MAX_INTERPOLATIONS:
        rule = f"hold at most {MAX_INTERPOLATIONS} interpolations"
        raise ConfigError([problem(name, rule, text.count("${"), "Write the values themselves.")])
    try:
        loader = get_yaml_loader()(text)
        root = loader.get_single_node()
        if root is not None:
            _check_entries(name, root)
        values = {} if root is None else loader.construct_document(root)
    except ConfigError:
        raise
    except RecursionError:  # in PyYAML, at some hundred levels
        raise ConfigError([_too_deep(name, "many more")]) from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # PyYAML lets the latter out for values that are no values
        reason = " ".join(str(error).split())
        raise ConfigError([f"{name} must be written in YAML, got: {reason}. Look at the file."]) from error
    if not isinstance(values, dict):
        raise ConfigError([problem(name, "hold a mapping", values, "Write it as key: value.")])
    return values


def _check_entries(name: str, root: yaml.Node) -> None:
    """Raises what is wrong with a file's size when each alias counts as often as it is named."""
    weighed: dict[int, tuple[int, int] | None] = {}  # of a node: its entries and its depth; None while it is open

    def weigh(node: yaml.Node) -> tuple[int, int]:
        if id(node) in weighed:
            known = weighed[id(node)]
            if known is None:
                raise ConfigError([f"{name} must come to an end, got an alias within what it names. Write it out."])
            return known
        weighed[id(node)] = None
        entries, depth = 1, 0
        if isinstance(node, yaml.ScalarNode):
            _check_number(name, node)
        else:
            pairs = isinstance(node, yaml.MappingNode)
            for child in (part for pair in node.value for part in pair) if pairs else node.value:
                more, deep = weigh(child)
                entries, depth = entries + more, max(depth, deep)
        weighed[id(node)] = entries, depth + 1
        return entries, depth + 1

    entries, depth = weigh(root)
    if depth > MAX_DEPTH:
        raise ConfigError([_too_deep(name, depth)])
    if entries > MAX_ENTRIES:
        got = f"{entries:,}" if entries < 10**12 else "more than can be counted"
        raise ConfigError(
            [f"{name} must come to at most {MAX_ENTRIES:,} entries, got {got}. Split it, or drop aliases."]
        )


def _check_number(name: str, node: yaml.ScalarNode) -> None:
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
        raise ConfigError(
            [problem(name, f"hold no number of more than {MAX_DIGITS} digits", node.value, "Shorten it.")]
        )


def _too_deep(name: str, got: object) -> str:
    return f"{name} must be nested at most {MAX_DEPTH} levels deep, got {got}. Make it flatter."
