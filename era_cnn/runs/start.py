"""A new run: everything is checked, a folder is claimed for it, and it is carried out from there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from era_cnn.config.schema import RunConfig
from era_cnn.folders.claims import claim
from era_cnn.folders.run import RunFolder
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.parts import check
from era_cnn.training.listeners import Listener


def no_files(folder: Path) -> Mapping[str, str]:
    """No .hydra/, for a config that Hydra did not compose."""
    return {}


def start(
    config: RunConfig,
    wanted: Path,
    command: Sequence[str],
    *,
    hydra_files: Callable[[Path], Mapping[str, str]] = no_files,
    verbose: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    quiet: bool = False,
    raises: bool = False,
    on_claim: Callable[[Path], object] = lambda folder: None,
) -> int:
    """Does a single run in a new folder; returns the exit code.

    Args:
        config: What is run.
        wanted: The folder; if it is taken, a number is added to its name.
        command: The words that asked for it, for provenance.
        hydra_files: What Hydra would write into .hydra/ of the run's folder: text by name of the file.
        verbose: Loggers that say all that they can.
        listeners: See `carry_out`; likewise `quiet` and `raises`.
        quiet: Whether to say nothing but to run.log.
        raises: Whether what ends the run is raised.
        on_claim: Told which folder it became.

    Raises:
        EraCnnError: If the run can't begin; then no folder is left.
    """
    check(config)
    claimed = claim(wanted)
    folder = RunFolder(claimed.path)
    on_claim(folder.path)
    code = None
    try:
        folder.plan(config, hydra_files(folder.path))
        with _verbose(verbose):
            code = carry_out(folder, command, listeners=listeners, quiet=quiet, raises=raises)
        return code
    finally:
        # With these codes, the data was not there or the network could not be built, unless provenance is written.
        if not (folder.has_begun_before if code in (2, 3, 4) else folder.has_begun):
            claimed.give_back()


@contextmanager
def _verbose(loggers: Sequence[str]) -> Iterator[None]:
    """Lets loggers say all that they can, as `hydra.verbose` asks."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
