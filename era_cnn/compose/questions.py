"""Hydra's own application, which does the work of a run and of a question.

A question needs neither the schema nor torch, and so nothing here imports them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from era_cnn.compose.complaints import explained, reason_of
from era_cnn.compose.guard import guarded
from era_cnn.compose.interpolation import limited
from era_cnn.compose.words import CONFIG_MODULE, Words, parse_words
from era_cnn.errors import ConfigError, EraCnnError, StorageError


def is_question(args: argparse.Namespace) -> bool:
    """Whether a command line only asks: for help, the composed config, tab completion."""
    return bool(args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)


def answer(words: Words, typed: Sequence[str]) -> int:
    """Lets Hydra answer a question; returns the exit code."""
    try:
        with explained(words), limited():
            call_hydra(typed)
    except SystemExit as end:
        return 2 if end.code else 0
    return 0


def call_hydra(typed: Sequence[str], *overrides: str) -> int:
    """Runs the Hydra application as if the words were the command line; returns the exit code of the run.

    Raises:
        ConfigError: If Hydra fails before the run has begun.
        StorageError: If it fails since a file can't be written.
    """
    codes: list[int] = []

    def task(composed: DictConfig) -> None:
        from era_cnn.runs.carry_out import job

        codes.append(1)
        codes[-1] = job(composed, command=["era-cnn", *typed])

    application = hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(task)
    try:
        with _command_line(_with_overrides(typed, overrides)), _errors_pass(), guarded():
            application()
    except (EraCnnError, BrokenPipeError):
        raise
    except Exception as error:
        if codes or not overrides:
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            raise StorageError.of(error.filename or "The run folder", error) from error
        raise ConfigError([f"Hydra must be able to start, got: {reason_of(error)}. See --hydra-help."]) from error
    return codes[-1] if codes else 0


def _with_overrides(typed: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """A command line with more overrides: behind the last that was typed, for the parser takes them in one row only."""
    words = parse_words(typed).overrides if overrides else []
    end = len(typed) - list(reversed(typed)).index(words[-1]) if words else len(typed)
    return [*typed[:end], *overrides, *typed[end:]]


@contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = ["era-cnn", *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _errors_pass() -> Iterator[None]:
    """Lets Hydra raise what it would else print and turn into exit code 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
