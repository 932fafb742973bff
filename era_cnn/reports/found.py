"""Finds the runs and sweeps in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from era_cnn.folders.run import is_run, is_sweep
from era_cnn.output import complain

MOST_LEVELS = 6
"""How far below a folder runs are searched for; `outputs` has them on the second level, `multirun` on the third."""


def found_below(folder: Path) -> Iterator[Path]:
    """The folders of all runs and sweeps in a folder, in the order of their names.

    Neither the jobs of a sweep nor what lies in the folder of a run is searched, and links are not followed.
    """
    for name, subfolders, files in os.walk(folder, onerror=_report):
        path = Path(name)
        is_at_top = path == folder
        if not is_at_top and (is_run([*subfolders, *files]) or is_sweep(path)):
            yield path
        elif len(path.relative_to(folder).parts) < MOST_LEVELS:
            subfolders.sort()
            continue
        subfolders.clear()


def _report(error: OSError) -> None:
    complain(f"{error.filename} must be readable, got: {error.strerror}. Its runs are left out.")
