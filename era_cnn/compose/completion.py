"""Tab completion: of commands here, of keys and choices by Hydra, from a line that it can read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from era_cnn.compose.complaints import COMMANDS
from era_cnn.compose.hydra_door import Application

LINE = "COMP_LINE"
"""The environment variable in which a shell hands over what is typed so far."""


def typed_folder() -> str | None:
    """The folder of --config-dir in the line, if there is such a folder."""
    options = _options(_typed()[0])
    folder: str | None = options.config_dir if options else None
    return folder if folder is not None and os.path.isdir(folder) else None


def complete(hydra: Application, config_name: str, asked: Sequence[str]) -> None:
    """Prints what the word to complete may become, or the code that a shell needs for that.

    Hydra fails at options that it does not know, so the line is cut down to overrides; a verb says nothing about those
    behind it. Plugins are not imported: a key of the keyboard runs no code.

    Args:
        hydra: The application over the configs.
        config_name: The name of the primary config.
        asked: `query=SHELL`, `install=SHELL` or `uninstall=SHELL`.
    """
    line = os.environ.get(LINE, "")
    if not line or not any(word.startswith("query=") for word in asked):
        hydra.shell_completion(config_name, list(asked))
        return
    before, word = _typed()
    options = _options(before)
    if options is None or word.startswith("-"):
        return
    if not before:
        print(*(verb for verb in COMMANDS.split(", ") if verb.startswith(word)))
    overrides = [each for each in options.words if "=" in each and not each.startswith("-")]
    os.environ[LINE] = " ".join([line.split()[0], *(["--multirun"] if options.multirun else []), *overrides, word])
    try:
        hydra.shell_completion(config_name, list(asked))
    finally:
        os.environ[LINE] = line


def _typed() -> tuple[list[str], str]:
    """The words behind the program, without the one to complete, and that one: empty if it is yet to be typed."""
    line = os.environ.get(LINE, "")
    words = [*line.split()[1:], *([""] if line.endswith(" ") else [])]
    return words[:-1], words[-1] if words else ""


def _options(words: Sequence[str]) -> argparse.Namespace | None:
    """The options among these words; None if the word to complete is the value of one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--plugin", action="append")
    parser.add_argument("--multirun", "-m", action="store_true")
    try:
        options, others = parser.parse_known_args(words)
    except argparse.ArgumentError:
        return None
    return argparse.Namespace(**vars(options), words=others)
