"""The words of a command line, and Hydra's loader for the configs that they name."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.types import RunMode

from era_cnn.compose.guard import GuardedLoader
from era_cnn.compose.hydra_door import Application, Composed, application, arguments_parser, search_path_of
from era_cnn.compose.interpolation import limited
from era_cnn.compose.yamlfiles import can_be_found
from era_cnn.config.plugins import config_folders
from era_cnn.errors import ConfigError, problem
from era_cnn.refusals import refusal

CONFIG_MODULE = "era_cnn.conf"


@dataclass(frozen=True)
class Words:
    """The part of a command line that decides the config."""

    overrides: list[str] = field(default_factory=list)
    config_name: str = "config"
    config_dir: str | None = None
    plugins: tuple[str, ...] = ()
    """Plugin files, as absolute paths; a process that runs the config loads them first."""

    @classmethod
    def of(cls, args: argparse.Namespace, plugins: Sequence[str] = ()) -> Words:
        """Takes the words from the arguments that Hydra's own parser read.

        Raises:
            ConfigError: If an argument is invalid, or would replace this package's config groups.
        """
        if args.config_path is not None:
            rule = "not be given: the groups are era_cnn's"
            raise ConfigError([problem("--config-path", rule, args.config_path, "Add your own with --config-dir.")])
        if args.experimental_rerun:
            advice = "Run the command that is stored in provenance.json."
            raise ConfigError([problem("--experimental-rerun", "not be used", args.experimental_rerun, advice)])
        if args.config_dir is not None and not os.path.isdir(args.config_dir):
            raise ConfigError([problem("--config-dir", "be a folder", args.config_dir, "Create it.")])
        if args.config_name is not None and not (args.config_name and can_be_found(args.config_name)):
            advice = "Give the name of a file in the folder of --config-dir."
            raise ConfigError([problem("--config-name", "be the name of a config", args.config_name, advice)])
        if "" in args.overrides:
            raise ConfigError([problem("An override", "be key=value", "", "Remove the empty word.")])
        return cls(list(args.overrides), args.config_name or "config", args.config_dir, tuple(plugins))

    def in_folder(self, config_dir: str | None) -> Words:
        """The same words with the user's own config folder, if it is given."""
        return replace(self, config_dir=config_dir) if config_dir is not None else self

    def with_overrides(self, overrides: Sequence[str]) -> Words:
        """The same words with other overrides."""
        return replace(self, overrides=list(overrides))


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """Parses a command line with Hydra's own parser.

    Raises:
        ConfigError: If there is no such flag, or its value is wrong.
    """
    parser = arguments_parser()
    parser.prog = "era-cnn"
    parser.error = _refuse  # type: ignore[method-assign] # else it prints all of Hydra's flags, refused ones included
    args, unknown = parser.parse_known_args(words)
    if unknown:
        from era_cnn.compose.complaints import unknown_options  # imports this module

        raise ConfigError(list(unknown_options(unknown)))
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError([refusal(message, "era-cnn")])


@contextmanager
def hydra_of(words: Words) -> Iterator[Application]:
    """Hydra's application over conf/ and the user's own folder, as `hydra.main` sets it up, but guarded."""
    own_folder = os.path.abspath(words.config_dir) if words.config_dir is not None else None
    loader = GuardedLoader(search_path_of(CONFIG_MODULE, own_folder, config_folders()))
    with limited(), application(loader) as hydra:
        yield hydra


@contextmanager
def loader_of(words: Words) -> Iterator[ConfigLoader]:
    """Hydra's loader for the configs that words choose from."""
    with hydra_of(words) as hydra:
        yield hydra.config_loader


def load(loader: ConfigLoader, words: Words, overrides: Sequence[str], mode: RunMode) -> Composed:
    """Composes a config; lets Hydra's exceptions through."""
    return loader.load_configuration(config_name=words.config_name, overrides=list(overrides), run_mode=mode)


def options_of(loader: ConfigLoader, group: str) -> list[str]:
    """The options of a group; empty if there is no such group."""
    return list(loader.get_group_options(group, ObjectType.CONFIG)) if group else []


def quote(text: str) -> str:
    """Escapes a string so that an override can hold it between single quotes."""
    # A backslash is literal unless a quote follows; at the end, the closing quote follows.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return escaped.replace("${", "\\${")
