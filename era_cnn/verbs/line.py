"""A command line: what may appear before and after a verb, and how its words are parsed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from era_cnn.errors import ConfigError, problem
from era_cnn.machine import keep_memory
from era_cnn.output import say
from era_cnn.paths import expanded
from era_cnn.portable import choose_arithmetic
from era_cnn.refusals import refusal

if TYPE_CHECKING:
    from era_cnn.compose.words import Words  # imports Hydra


@dataclass(frozen=True)
class Line:
    """A command line that was read."""

    typed: tuple[str, ...]
    verb: str
    """Empty for a run, for a sweep and for Hydra's own flags such as --help."""

    words: tuple[str, ...]
    """The words after the verb, without the options that may appear anywhere."""

    config_dir: str | None = None
    plugins: tuple[str, ...] = ()
    owns_process: bool = False
    """Whether this process was started for this command alone."""

    def prepare_to_compute(self, *, portable: bool | None = None) -> None:
        """Makes settings that last for the rest of the process, before torch is imported.

        Args:
            portable: Whether what is computed is to be portable; None if either will do.

        Raises:
            ConfigError: If this process can't compute so.
        """
        if portable is not None:
            choose_arithmetic(portable)
        if self.owns_process:
            keep_memory()

    @property
    def command(self) -> list[str]:
        """The whole command, for provenance.json."""
        return ["era-cnn", *self.typed]

    def composing(self, overrides: Sequence[str]) -> Words:
        """The words that compose a config from these overrides."""
        from era_cnn.compose.words import Words, parse_words

        words = Words.of(parse_words(list(overrides)), self.plugins)
        return words.in_folder(self.config_dir)


def refuse_config_dir(line: Line, needed: str, got: str) -> None:
    """Raises a `ConfigError` if a folder of config groups is given where it would have no effect."""
    if line.config_dir is not None:
        raise ConfigError([f"--config-dir must go with {needed}, got {got}. Leave it out."])


REPEATABLE = ("--plugin", "--baseline", "--where", "--tag")
"""The options that may be given more than once."""


def read_line(typed: Sequence[str], verbs: Collection[str]) -> Line:
    """Separates the options that may appear before or after a verb from the rest of a command line.

    Raises:
        ConfigError: If an option has no value or is given twice, or its folder or file does not exist.
    """
    rest: list[str] = []
    config_dir, plugins = None, []
    given: set[str] = set()
    words = iter(typed)
    for word in words:
        option, has_value, value = word.partition("=")
        option = "--config-dir" if option == "-cd" else option
        if option in given:  # every parser behind this one takes the last one without a word
            raise ConfigError([f"{option} must be given once, got it twice. Remove one."])
        given |= {option} if option.startswith("--") and option not in REPEATABLE else set()
        if word == "--":
            rest += [word, *words]
        elif option not in ("--config-dir", "--plugin"):
            rest.append(word)
        elif not (value := value if has_value else next(words, "")):
            raise ConfigError([f"{option} must be followed by a path, got nothing. Give one, or leave {option} out."])
        elif option == "--plugin":
            plugins.append(_plugin(expanded(value)))
        else:
            config_dir = expanded(value)
    if config_dir is not None and not os.path.isdir(config_dir):
        raise ConfigError([problem("--config-dir", "be a folder", config_dir, "Create it.")])
    verb = rest.pop(0) if rest and rest[0] in verbs else ""
    return Line(tuple(typed), verb, tuple(rest), config_dir, tuple(plugins))


def _plugin(path: str) -> str:
    """The absolute path of a plugin file."""
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise ConfigError([problem("--plugin", "be a file that can be read", path, "Check the path.")])
    return os.path.abspath(path)


class Parser(argparse.ArgumentParser):
    """Parses the words after a verb; the docstring of its function describes it. Prints as everything else does."""

    def __init__(self, line: Line, verb: Callable[[Line], int]) -> None:
        super().__init__(f"era-cnn {line.verb}", description=verb.__doc__, allow_abbrev=False)

    def print_help(self, file: object = None) -> None:
        """Prints the help."""
        say(*self.format_help().splitlines())

    def error(self, message: str) -> NoReturn:
        """Refuses the words.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError([refusal(message, self.prog)])


def parsed(
    parser: argparse.ArgumentParser, line: Line, *, composes: bool = True, uses_code: bool = True
) -> argparse.Namespace:
    """Parses the words after a verb; the verb's help also lists the options that may appear before it.

    Args:
        parser: What the verb itself takes.
        line: The command line.
        composes: Whether the verb composes configs, from a folder of the user's own as well.
        uses_code: Whether it reads configs, which may name what a plugin has.

    Raises:
        ConfigError: If the words are wrong, or an option has no effect; if there is no such option, a key of the config
            may be meant.
    """
    if composes:
        parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder with your own config groups")
    else:
        refuse_config_dir(line, "a command that composes configs", f"era-cnn {line.verb}")
    if uses_code:
        parser.add_argument("--plugin", metavar="FILE", action="append", help="a file with your own code; repeatable")
    elif line.plugins:
        raise ConfigError(
            [f"--plugin must go with a command that reads configs, got era-cnn {line.verb}. Leave it out."]
        )
    args, unknown = parser.parse_known_intermixed_args(line.words)
    if unknown and not hasattr(args, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if unknown:
        from era_cnn.compose.complaints import unknown_options  # imports Hydra

        raise ConfigError(list(unknown_options(unknown)))
    return args
