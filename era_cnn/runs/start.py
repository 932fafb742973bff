"""Starts a new run: checks its config, claims a folder, and carries it out from there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from era_cnn.config.schema import RunConfig
from era_cnn.errors import EraCnnError
from era_cnn.folders.claims import ELSEWHERE, claim
from era_cnn.folders.run import RunFolder
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.parts import check
from era_cnn.training.listeners import Listener


def start(
    config: RunConfig,
    wanted: Path,
    command: Sequence[str],
    *,
    hydra_files: Callable[[Path], Mapping[str, str]] | None = None,
    verbose: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    quiet: bool = False,
    raises: bool = False,
    on_claim: Callable[[Path], object] = lambda folder: None,
) -> int:
    """Carries out a single run in a new folder; returns the exit code.

    Args:
        config: The config of the run.
        wanted: The folder; if it exists, a number is added to its name.
        command: The command that started it, for provenance.json.
        hydra_files: The files that Hydra would write into .hydra/ of the run's folder: content by name. None
            for a config that Hydra did not compose.
        verbose: The loggers to set to DEBUG.
        listeners: See `carry_out`; likewise `quiet` and `raises`.
        quiet: Whether to write messages only to run.log.
        raises: Whether to raise what ends the run.
        on_claim: Called with the folder that was claimed.

    Raises:
        EraCnnError: If the run can't begin; then no folder is left behind.
    """
    check(config)
    with new_folder(wanted) as attempt:
        folder = attempt.folder
        on_claim(folder.path)
        folder.plan(config, hydra_files(folder.path) if hydra_files else {})
        with _verbose(verbose):
            attempt.exit_code = carry_out(folder, command, listeners=listeners, quiet=quiet, raises=raises)
    return attempt.exit_code


FROM_ELSEWHERE = "Change to another folder with cd."
"""The advice for a command whose folder of a run lies below the current directory."""


@dataclass
class Attempt:
    """A run in a new folder, and how it ended."""

    folder: RunFolder
    exit_code: int = 0


@contextmanager
def new_folder(wanted: Path, *, advice: str = ELSEWHERE) -> Iterator[Attempt]:
    """Claims a new folder for a run, and removes it if the run within never began.

    Args:
        wanted: The folder; if it exists, a number is added to its name.
        advice: What to do if it can't be created.

    Raises:
        RunFolderError: If no folder can be created there.
    """
    claimed = claim(wanted, advice=advice)
    attempt = Attempt(RunFolder(claimed.path))
    try:
        yield attempt
    except EraCnnError as error:
        attempt.exit_code = error.exit_code
        raise
    finally:
        # Codes 2 to 4 without provenance.json: the data was missing or the network could not be built.
        is_refused, folder = attempt.exit_code in (2, 3, 4), attempt.folder
        if not (folder.has_begun_before if is_refused else folder.has_begun):
            claimed.give_back()


@contextmanager
def _verbose(loggers: Sequence[str]) -> Iterator[None]:
    """Sets loggers to DEBUG, as `hydra.verbose` asks."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
