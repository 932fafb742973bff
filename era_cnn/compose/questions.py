"""Answers questions through Hydra's own application: help, the composed config, its sources, tab completion.

A question needs neither the schema nor torch, so nothing here imports them.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from hydra.types import RunMode

from era_cnn.compose.complaints import explained
from era_cnn.compose.completion import complete, typed_folder
from era_cnn.compose.hydra_door import Application, arguments_parser
from era_cnn.compose.words import Words, hydra_of
from era_cnn.errors import ConfigError
from era_cnn.output import say


def is_question(args: argparse.Namespace) -> bool:
    """Whether a command line asks a question instead of starting a run."""
    return bool(args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)


def answer(words: Words, args: argparse.Namespace) -> int:
    """Lets Hydra answer a question; returns the exit code.

    Raises:
        ConfigError: If it can't, or if there are two questions at once.
    """
    if not (args.help or args.hydra_help):
        _check_alone(args)
    try:
        if args.shell_completion:
            words = words.in_folder(typed_folder())
        mode = RunMode.MULTIRUN if args.multirun else RunMode.RUN
        with _harmlessly(), explained(words, mode), hydra_of(words) as hydra, _in_a_process_of_hydras():
            _answer(hydra, words.config_name, args)
    except SystemExit as end:
        return 2 if end.code else 0
    return 0


def _check_alone(args: argparse.Namespace) -> None:
    flags = {"--cfg": args.cfg, "--info": args.info, "--shell-completion": args.shell_completion}
    ways = {"--multirun": args.multirun and not args.cfg, "--run": args.run}
    asked = [flag for flag, given in {**flags, **ways}.items() if given]
    if len(asked) > 1:
        raise ConfigError([f"{asked[0]} must be used without {asked[1]}, got both. Remove one."])
    if args.resolve and not args.cfg:
        raise ConfigError([f"--resolve must be used with --cfg or --help, got {asked[0]}. Remove it."])


def _answer(hydra: Application, config_name: str, args: argparse.Namespace) -> None:
    if args.help:
        hydra.app_help(config_name, arguments_parser(), args)
    elif args.hydra_help:
        hydra.hydra_help(config_name, arguments_parser(), args)
    elif args.cfg:
        hydra.is_sweep = args.multirun
        hydra.show_cfg(config_name, args.overrides, args.cfg, args.package, args.resolve)
    elif args.shell_completion:
        complete(hydra, config_name, args.overrides)
    else:
        hydra.show_info(args.info, config_name, args.overrides)


@contextmanager
def _harmlessly() -> Iterator[None]:
    """Prints what Hydra prints within the context, line by line."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        say(*printed.getvalue().split("\n")[:-1])


@contextmanager
def _in_a_process_of_hydras() -> Iterator[None]:
    """Restores what Hydra changes, the root logger, and sets the command name that its completion needs."""
    root, argv = logging.getLogger(), sys.argv
    handlers, level = list(root.handlers), root.level
    sys.argv = ["era-cnn"]
    try:
        yield
    finally:
        sys.argv = argv
        root.handlers[:] = handlers
        root.setLevel(level)
