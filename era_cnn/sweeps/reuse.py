"""Taking the result of a run from an equal one that is complete, instead of training it once more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.provenance import differences
from era_cnn.folders.run import RunFolder
from era_cnn.runs import provenance
from era_cnn.runs.parts import read_data, settled
from era_cnn.runs.process import pick_device, set_up

LINKED = ("summary.txt", "metrics.csv", "fingerprints.jsonl", "predictions.npz", "provenance.json")
"""What a run leaves besides its config, its log, its checkpoints and its result; last what says that it has begun."""


def take_over(folder: RunFolder, config: RunConfig, places: Sequence[Path]) -> bool:
    """Completes a job from an equal run that lies in one of the places; False if there is none.

    Equal is what trains to the same bits: the resolved config, the data and the code, by their digests, and the
    packages, the machine and the variables that provenance.json holds. The files are hard links, so that they outlive
    the run that they come from; status.json says where that lay. A job that has begun already is left alone.

    Raises:
        ConfigError: If the device is not there.
        DataError: If the data can't be had.
        StorageError: If a file can't be written.
    """
    if folder.has_begun_before:
        return False
    device = pick_device(config.device)
    config = settled(config, device)
    origin = {"config_sha256": digest(config), "data_sha256": read_data(config).sha256}
    with set_up(config.threads):  # as when it is recorded: it sets a variable of the environment
        now = {**origin, **provenance.collect(config, device)}
    for source in _completed(places, origin):
        before = source.read_json("provenance.json")
        if any(list(differences(each, now)) for each in (before, *before.get("resumed", []))):
            continue
        try:
            _link(source, folder, config)
        except FileNotFoundError:  # somebody removes it just now
            continue
        return True
    return False


def _completed(places: Sequence[Path], origin: dict[str, str]) -> Iterator[RunFolder]:
    """The completed runs of these digests; folders that hold no run, or a damaged one, are passed over."""
    for place in places:
        for path, subfolders, files in os.walk(place):
            if "config.yaml" in files:
                subfolders.clear()  # a run: nothing of interest below it
            subfolders.sort()
            if "result.json" not in files:
                continue
            source = RunFolder(Path(path))
            try:
                result = source.result()
                if result and origin.items() <= result.items() and _is_whole(source):
                    yield source
            except RunFolderError:
                continue


def _is_whole(source: RunFolder) -> bool:
    """Whether all files of a run are there, and the newest and the best checkpoint have the digests in their names."""
    source.read_json("provenance.json")
    found = source.checkpoints.newest()
    return found is not None and not found.damaged and all((source.path / name).is_file() for name in LINKED)


def _link(source: RunFolder, folder: RunFolder, config: RunConfig) -> None:
    folder.begin(config)
    folder.checkpoints.path.mkdir(exist_ok=True)
    for path in source.checkpoints.path.glob("*.pt"):  # first: without them, the other files could not be gone on with
        _link_file(path, folder.checkpoints.path / path.name)
    for name in LINKED:
        _link_file(source.path / name, folder.path / name)
    result = source.result()
    assert result is not None
    folder.complete({**result, "experiment": config.name}, reused_from=str(source.path))


def _link_file(source: Path, target: Path) -> None:
    try:
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError.of(target, error) from error
