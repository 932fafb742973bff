"""Doing a run again from its folder alone, to see whether it comes to the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from era_cnn.config import RunConfig
from era_cnn.errors import ConfigError, ReplayError, RunFolderError, problem
from era_cnn.runs import provenance
from era_cnn.runs.folder import RunFolder, claim, shown
from era_cnn.runs.ingredients import make_deterministic, pick_device, read_dataset
from era_cnn.runs.job import carry_out
from era_cnn.runs.result import TIMES
from era_cnn.runs.resume import read_config, run_folder
from era_cnn.training.loop import EpochRecord


def replay(path: Path, command: Sequence[str], *, epochs: int | None = None, data_root: str | None = None) -> int:
    """Trains again what a run's folder holds, in a new folder, and compares after each epoch.

    Stops at the first epoch that differs, and says which tensor does and why that may be.

    Args:
        path: The run's folder; it is only read.
        command: The words that asked for it, for the record.
        epochs: To compare, from the first on; None for all that the run has recorded.
        data_root: Where the data lie by now, if not where they lay.

    Returns:
        0 if all is equal, 1 if something differs.

    Raises:
        ConfigError: If there is no such folder, or it has not that many epochs.
        DataError: If the data can't be had.
        RunFolderError: If the folder does not hold a run with an epoch to compare.
    """
    recorded = run_folder(path)
    config = read_config(recorded, data_root)
    fingerprints = recorded.read_fingerprints()
    count = _epochs_to_compare(recorded, len(fingerprints), epochs)
    changes = _changes(recorded, config)
    if changes:
        print(f"Not as when the run was made, so its bits may differ: {'; '.join(changes)}", flush=True)

    def compare(record: EpochRecord) -> None:
        before, now = fingerprints[record.epoch], record.fingerprint
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise ReplayError(
                    f"Epoch {record.epoch}: {_WORDS.get(name, name)} must have the digest {before.get(name)}, "
                    f"got {now.get(name)}. {_likely_cause(name, changes)}"
                )

    now = datetime.now()
    claimed = claim(Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{config.name}_replay")
    folder = RunFolder(claimed.path)
    shortened = config.model_copy(update={"trainer": config.trainer.model_copy(update={"limit_epochs": count})})
    is_whole = count == config.trainer.epochs_to_run
    with folder.locked():
        code = carry_out(config if is_whole else shortened, folder, command, compare)
    if code:
        return code
    compared = f"{count} of {len(fingerprints)} recorded epochs" if count < len(fingerprints) else f"all {count} epochs"
    if is_whole and (recorded.path / "result.json").exists():
        _compare_results(recorded.read_json("result.json"), folder.read_json("result.json"))
        compared += " and the result"
    print(f"Equal, bit for bit: {compared} of {shown(recorded.path)} (order of the images, weights, optimizer).")
    return 0


_WORDS = {"order": "the order of the images"}


def _epochs_to_compare(folder: RunFolder, recorded: int, wanted: int | None) -> int:
    if not recorded:
        raise RunFolderError(f"{folder.path} must hold a whole epoch, got none. Resume the run first.")
    if wanted is not None and not 1 <= wanted <= recorded:
        rule = f"be from 1 to {recorded}, the epochs that were recorded"
        raise ConfigError([problem("--epochs", rule, wanted, "Leave it out for all of them.")])
    return wanted or recorded


def _changes(folder: RunFolder, config: RunConfig) -> list[str]:
    """What is not as it was when the run began or went on."""
    device = pick_device(config.device)
    make_deterministic(config.threads)
    now = {
        "config_sha256": config.digest(),
        "data_sha256": read_dataset(config).sha256,
        **provenance.collect(device),
    }
    began = folder.read_json("provenance.json")
    parts: list[dict[str, Any]] = [began, *began.get("resumed", [])]
    return list(dict.fromkeys(change for part in parts for change in provenance.differences(part, now)))


def _likely_cause(name: str, changes: Sequence[str]) -> str:
    if changes:
        return f"Likely cause: {changes[0]}."
    if name == "order":
        return "Likely cause: another seed, or a record that was changed: all else is as it was."
    return "Nothing that is recorded has changed: the record was, or the machine computes differently."


def _compare_results(before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in {**before, **now}:
        if key not in TIMES and before.get(key) != now.get(key):
            raise ReplayError(
                f"result.json: {key} must be {before.get(key)}, got {now.get(key)}. "
                "All epochs are equal, so the record was changed."
            )
