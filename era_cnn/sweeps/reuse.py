"""Reuses the result of an equal completed run instead of training again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.ledger import Ledger
from era_cnn.folders.plain import walk
from era_cnn.folders.provenance import differences
from era_cnn.folders.run import RunFolder
from era_cnn.folders.sweep import LEDGER
from era_cnn.runs import provenance
from era_cnn.runs.parts import read_data, settled
from era_cnn.runs.process import device_of, set_up
from era_cnn.sweeps.executor import Reusable

LINKED = ("summary.txt", "metrics.csv", "fingerprints.jsonl", "predictions.npz", "provenance.json")
"""The files of a run besides config, log, checkpoints and result. The last one marks a run as begun."""

LINKED_IF_THERE = ("steps.csv", "summary.json", "samples.npz")
"""Further files, which runs of earlier versions lack."""


def find_reusable(places: Sequence[Path], sweep_dir: Path) -> Reusable:
    """Searches folders for completed runs; those without a run, or with a damaged one, are skipped."""
    found: dict[str, list[Path]] = {}
    for place in places:
        for path, subfolders, files in walk(place):
            if "config.yaml" in files:
                subfolders.clear()  # a run, which contains no other runs
            subfolders.sort()
            if "result.json" in files and (result := _result_in(path)):
                found.setdefault(result.get("config_sha256", ""), []).append(path)
    return Reusable({sha256: tuple(paths) for sha256, paths in found.items()}, sweep_dir)


def _result_in(path: Path) -> dict[str, Any] | None:
    source = RunFolder(path)
    with suppress(RunFolderError):
        source.check()
        return source.result()
    return None


def take_over(folder: RunFolder, config: RunConfig, reusable: Reusable) -> bool:
    """Completes a job from an equal run; False if there is none.

    Runs are equal if they train to the same bits: the digests of the resolved config, the data and the code, and the
    packages, machine and environment variables in provenance.json are the same. The files are hard links, so that they
    survive the removal of the other run; status.json records its path. A job that has begun already is left alone.

    Raises:
        ConfigError: If the device is not available.
        DataError: If the data is missing or damaged.
        StorageError: If a file can't be written.
    """
    if folder.has_begun_before:
        return False
    planned, device = config, device_of(config)
    config = settled(config, device)
    origin = {"config_sha256": digest(config), "data_sha256": read_data(config).sha256}
    with set_up(config.threads):  # sets an environment variable that is recorded within it
        now = {**origin, **provenance.collect(config, device)}
    elsewhere = reusable.runs.get(origin["config_sha256"], ())
    siblings = Ledger(reusable.sweep_dir / LEDGER).folders_of(digest(planned))
    for path in dict.fromkeys((*elsewhere, *(reusable.sweep_dir / sibling for sibling in siblings))):
        source = RunFolder(path)
        if not _is_equal(source, origin):
            continue
        before = source.read_json("provenance.json")
        if any(list(differences(each, now)) for each in (before, *before.get("resumed", []))):
            continue
        try:
            _link(source, folder, config)
        except FileNotFoundError:  # the other run has just been removed
            continue
        return True
    return False


def _is_equal(source: RunFolder, origin: dict[str, str]) -> bool:
    """Whether a folder holds a completed run with these digests, whose files are whole."""
    result = _result_in(source.path)
    try:
        return result is not None and origin.items() <= result.items() and _is_whole(source)
    except RunFolderError:
        return False


def _is_whole(source: RunFolder) -> bool:
    """Whether all files of a run exist, and the newest and the best checkpoint match the digests in their names."""
    source.read_json("provenance.json")
    found = source.checkpoints.newest()
    return found is not None and not found.damaged and all((source.path / name).is_file() for name in LINKED)


def _link(source: RunFolder, folder: RunFolder, config: RunConfig) -> None:
    folder.begin(config)
    folder.checkpoints.path.mkdir(exist_ok=True)
    for path in source.checkpoints.path.glob("*.pt"):  # first: without them the run could not be resumed
        _link_file(path, folder.checkpoints.path / path.name)
    for name in (*(each for each in LINKED_IF_THERE if (source.path / each).is_file()), *LINKED):
        _link_file(source.path / name, folder.path / name)
    result = source.result()
    assert result is not None
    folder.complete({**result, "experiment": config.name}, reused_from=str(source.path))


def _link_file(source: Path, target: Path) -> None:
    try:
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # on another file system, or one without hard links
            shutil.copyfile(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError.of(target, error) from error
