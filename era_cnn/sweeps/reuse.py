"""Reuses the result of an equal completed run instead of training again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.plain import walk
from era_cnn.folders.provenance import differences
from era_cnn.folders.run import RunFolder
from era_cnn.runs import provenance
from era_cnn.runs.parts import read_data, settled
from era_cnn.runs.process import pick_device, set_up

LINKED = ("summary.txt", "metrics.csv", "fingerprints.jsonl", "predictions.npz", "provenance.json")
"""The files of a run besides config, log, checkpoints and result. The last one marks a run as begun."""

LINKED_IF_THERE = ("steps.csv", "summary.json", "samples.npz")
"""Further files, which runs of earlier versions lack."""


def take_over(folder: RunFolder, config: RunConfig, places: Sequence[Path]) -> bool:
    """Completes a job from an equal run in one of the folders `places`; False if there is none.

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
    device = pick_device(config.device)
    config = settled(config, device)
    origin = {"config_sha256": digest(config), "data_sha256": read_data(config).sha256}
    with set_up(config.threads):  # sets an environment variable that is recorded within it
        now = {**origin, **provenance.collect(config, device)}
    for source in _completed(places, origin):
        before = source.read_json("provenance.json")
        if any(list(differences(each, now)) for each in (before, *before.get("resumed", []))):
            continue
        try:
            _link(source, folder, config)
        except FileNotFoundError:  # the other run has just been removed
            continue
        return True
    return False


def _completed(places: Sequence[Path], origin: dict[str, str]) -> Iterator[RunFolder]:
    """The completed runs with these digests; folders without a run, or with a damaged one, are skipped."""
    for place in places:
        for path, subfolders, files in walk(place):
            if "config.yaml" in files:
                subfolders.clear()  # a run, which contains no other runs
            subfolders.sort()
            if "result.json" not in files:
                continue
            source = RunFolder(path)
            try:
                source.check()
                result = source.result()
                if result and origin.items() <= result.items() and _is_whole(source):
                    yield source
            except RunFolderError:
                continue


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
