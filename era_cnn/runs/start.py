"""A new run: everything is checked, a folder is claimed for it, and it is carried out from there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from era_cnn.compose.planner import Planned
from era_cnn.folders.claims import claim
from era_cnn.folders.run import RunFolder
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.parts import check


def start(planned: Planned, command: Sequence[str]) -> int:
    """Does a single run in a new folder; returns the exit code.

    Args:
        planned: What is run.
        command: The words that asked for it, for the record.

    Raises:
        EraCnnError: If the run can't begin; then no folder is left.
    """
    check(planned.config)
    claimed = claim(Path(planned.folder))
    folder = RunFolder(claimed.path)
    code = None
    try:
        folder.plan(planned.config, planned.hydra_files(folder.path))
        with _verbose(planned.verbose_loggers()):
            code = carry_out(folder, command)
        return code
    finally:
        # With these codes, the data was not there or the network could not be built unless the run has its record.
        if not (folder.has_record if code in (2, 3, 4) else folder.has_begun):
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
