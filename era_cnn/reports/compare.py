"""`era-cnn compare`: prints the tables of any runs and sweeps, including running ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import StorageError
from era_cnn.folders.outcome import Outcome, read_outcome
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import is_sweep, run_folder
from era_cnn.folders.sweep import SweepFolder
from era_cnn.output import say
from era_cnn.reports.tables import as_text, write_results


def compare(paths: Sequence[Path]) -> int:
    """Prints the outcomes of runs and of the jobs of sweeps, and writes the tables of each sweep; returns 0.

    Raises:
        RunFolderError: If a folder is missing, can't be read, or holds neither a run nor a sweep.
    """
    outcomes = [outcome for path in paths for outcome in _outcomes(path.absolute())]
    if len(paths) == 1:
        say(as_text(outcomes, paths[0].absolute()))
    else:
        say(as_text(list(_filled(outcomes)), Path.cwd()))
    return 0


def _outcomes(path: Path) -> Iterator[Outcome]:
    if not is_sweep(path):
        folder = run_folder(path)
        config = _read(folder, "config.yaml")
        overrides = ["experiment=" + str(config.get("name"))]
        if (path / ".hydra" / "hydra.yaml").exists():
            overrides += _read(folder, ".hydra/hydra.yaml")["hydra"]["overrides"]["task"]
        yield read_outcome(path, None, tuple(overrides))
        return
    sweep = SweepFolder(path)
    sweep.read_request()  # raises if the sweep is damaged
    outcomes = sweep.outcomes(sweep.jobs())
    try:
        write_results(outcomes, path)
    except StorageError as error:  # the folder may be read-only; the tables are shown anyway
        print(error, file=sys.stderr)
    yield from outcomes


def _filled(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """The outcomes; a key that was typed only for others gets its value from the config."""
    keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome.overrides))
    for outcome in outcomes:
        missing = [key for key in keys if key not in outcome.overrides]
        config = _read(RunFolder(outcome.folder), "config.yaml") if missing else {}
        found = {key: value for key in missing if (value := _at(config, key)) is not None}
        yield replace(outcome, overrides={**outcome.overrides, **found})


def _read(folder: RunFolder, name: str) -> dict[str, Any]:
    return folder.read(name, lambda text: parse_yaml(name, text))


def _at(config: Any, key: str) -> str | None:
    """The value of a key in a config; for a group, its name."""
    for part in ("name" if key == "experiment" else key.lstrip("+~")).split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return str(config.get("name")) if isinstance(config, dict) else None if config is None else str(config)
