"""Doing a run again from its folder alone, to see whether it comes to the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, ReplayError, RunFolderError, problem
from era_cnn.folders.claims import claim, shown
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config, run_folder
from era_cnn.runs import provenance
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.output import say
from era_cnn.runs.parts import read_dataset
from era_cnn.runs.process import pick_device, set_up
from era_cnn.runs.result import TIMES
from era_cnn.training.loop import EpochMetrics


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
    record = _Record.of(recorded, config)
    count = _epochs_to_compare(record, epochs)
    changes = _changes(recorded, config)
    if changes:
        say(f"Not as when the run was made, so its bits may differ: {'; '.join(changes)}")

    def compare(epoch: EpochMetrics) -> None:
        before, now = record.fingerprints[epoch.epoch], epoch.fingerprint
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise ReplayError(
                    f"Epoch {epoch.epoch}: {_WORDS.get(name, name)} must have the digest {before.get(name)}, "
                    f"got {now.get(name)}. {_likely_cause(name, changes)}"
                )

    now = datetime.now()
    claimed = claim(Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{config.name}_replay")
    folder = RunFolder(claimed.path)
    is_whole = count == config.trainer.epochs_to_run
    shortened = config.model_copy(update={"trainer": config.trainer.model_copy(update={"limit_epochs": count})})
    try:
        folder.write_config((config if is_whole else shortened).anchored())
        code = carry_out(folder, command, witness=compare)
    finally:
        if not folder.has_begun:
            claimed.give_back()
    if code:
        return code
    _compare_rows(record.metrics[:count], folder.read_metrics(), to_the_end=is_whole)
    compared = f"all {count} epochs" if is_whole else f"{count} of {config.trainer.epochs_to_run} epochs"
    if is_whole and record.result is not None:
        _compare_results(record.result, folder.read_json("result.json"))
        compared += " and the result"
    say(f"Equal, bit for bit: {compared} of {shown(recorded.path)} (order of the images, weights, optimizer, metrics).")
    return 0


_WORDS = {"order": "the order of the images"}


@dataclass(frozen=True)
class _Record:
    """What a run has recorded of itself, whole and without contradiction."""

    fingerprints: dict[int, dict[str, str]]
    metrics: list[dict[str, str]]
    result: dict[str, Any] | None

    @classmethod
    def of(cls, folder: RunFolder, config: RunConfig) -> _Record:
        """Reads it.

        Raises:
            RunFolderError: If something is missing or damaged.
        """
        record = cls(folder.read_fingerprints(), folder.read_metrics(), folder.result())
        got = f"{len(record.fingerprints)} in fingerprints.jsonl and {len(record.metrics)} in metrics.csv"
        if len(record.fingerprints) != len(record.metrics):
            raise RunFolderError(f"{folder.path} must have recorded the same epochs everywhere, got {got}. {_RESUME}")
        if record.result is not None and len(record.metrics) != config.trainer.epochs_to_run:
            rule = f"must have recorded all of its {config.trainer.epochs_to_run} epochs, since it has a result"
            raise RunFolderError(f"{folder.path} {rule}, got {got}. The folder was changed: it proves nothing.")
        if not record.metrics:
            raise RunFolderError(f"{folder.path} must hold a whole epoch, got none. {_RESUME}")
        return record


_RESUME = "Resume the run first."


def _epochs_to_compare(record: _Record, wanted: int | None) -> int:
    recorded = len(record.metrics)
    if wanted is not None and not 1 <= wanted <= recorded:
        rule = f"be from 1 to {recorded}, the epochs that were recorded"
        raise ConfigError([problem("--epochs", rule, wanted, "Leave it out for all of them.")])
    return wanted or recorded


def _changes(folder: RunFolder, config: RunConfig) -> list[str]:
    """What is not as it was when the run began or went on."""
    device = pick_device(config.device)
    set_up(config.threads)
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


def _compare_rows(before: list[dict[str, str]], now: list[dict[str, str]], *, to_the_end: bool) -> None:
    """Compares metrics.csv; the last epoch of a shortened repetition is evaluated though the run's was not."""
    for row, other in zip(before, now, strict=True):
        for key in row:
            if row[key] != other.get(key) and (row[key] or to_the_end):
                raise ReplayError(
                    f"metrics.csv: {key} of epoch {row['epoch']} must be {row[key]}, got {other.get(key)}. "
                    "The tensors are equal, so the record was changed."
                )


def _compare_results(before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in {**before, **now}:
        if key not in TIMES and before.get(key) != now.get(key):
            raise ReplayError(
                f"result.json: {key} must be {before.get(key)}, got {now.get(key)}. "
                "All epochs are equal, so the record was changed."
            )
