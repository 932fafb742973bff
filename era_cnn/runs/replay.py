"""Replays a run from its folder alone, and checks that the results match bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from era_cnn.config.schema import Loggers
from era_cnn.errors import ConfigError, ReplayError, RunFolderError, amount, problem
from era_cnn.folders.provenance import DIFFERS, check_numerics, differences
from era_cnn.folders.result import TIMES
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig, read_config, run_folder
from era_cnn.output import say, shown
from era_cnn.runs import provenance
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.parts import check_blocks, members_of, read_data
from era_cnn.runs.process import device_of, set_up
from era_cnn.runs.start import FROM_ELSEWHERE, new_folder
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener


def replay(
    path: Path,
    command: Sequence[str],
    *,
    epochs: int | None = None,
    data_root: str | None = None,
    listeners: Sequence[Listener] = (),
) -> int:
    """Trains a run again in a new folder, and compares after each epoch.

    Stops at the first epoch that differs, and reports which tensor differs and the likely cause.

    Args:
        path: The run's folder; it is only read.
        command: The command that started the replay, for provenance.json.
        epochs: The number of epochs to compare, from the first; None for all that the run has recorded.
        data_root: Where the data is now, if it was moved.
        listeners: Those that added members to the state of the original run.

    Returns:
        0 if everything is equal, 1 if something differs.

    Raises:
        ConfigError: If the run has fewer epochs.
        DataError: If the data is missing or damaged.
        RunFolderError: If the folder is missing, or does not hold a run with an epoch to compare.
    """
    recorded = run_folder(path)
    stored = read_config(recorded, data_root)
    check_blocks(stored.config, recorded.path)
    check_numerics(recorded)
    config = stored.config
    original = _Original.of(recorded)
    _check_members(recorded, original, members_of(config), listeners)
    count = _epochs_to_compare(original, epochs)
    changes = _changes(recorded, stored)
    if changes:
        say(f"{DIFFERS}{'; '.join(changes)}")
    now = datetime.now()
    wanted = Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{config.name}_replay"
    is_whole = original.result is not None and count == len(original.metrics)
    config = config.model_copy(update={"logger": Loggers()})  # a replay is no new run
    shortened = config.model_copy(update={"trainer": config.trainer.model_copy(update={"limit_epochs": count})})
    with new_folder(wanted, advice=FROM_ELSEWHERE) as attempt:
        folder = attempt.folder
        folder.write_config((config if is_whole else shortened).anchored())
        comparison = _Comparison(original.fingerprints, changes)
        attempt.exit_code = code = carry_out(folder, command, listeners=[*listeners, comparison])
    if code:
        return code
    _compare_rows(original.metrics[:count], folder.read_metrics(), to_the_end=is_whole)
    compared = f"{count} of {amount(config.trainer.epochs_to_run, 'epoch')}"
    if is_whole:
        compared = "the only epoch" if count == 1 else f"all {count} epochs"
    if original.result is not None and is_whole:
        _compare_results(original.result, folder.read_json("result.json"), stored)
        compared += " and the result"
    say(f"Equal, bit for bit: {compared} of {shown(recorded.path)} (image order, weights, optimizer, metrics).")
    return 0


class _Comparison(Listener):
    """Stops a replay at the first tensor that differs from the original run after the same epoch."""

    is_essential = True

    def __init__(self, fingerprints: Mapping[int, Mapping[str, str]], changes: Sequence[str]) -> None:
        self._fingerprints, self._changes = fingerprints, changes

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Compares an epoch.

        Raises:
            ReplayError: If a tensor differs.
        """
        before, now = self._fingerprints[metrics.epoch], metrics.fingerprint
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise ReplayError(
                    f"Epoch {metrics.epoch}: {_WORDS.get(name, name)} must have the digest {before.get(name)}, "
                    f"got {now.get(name)}. {_likely_cause(name, self._changes)}"
                )


_WORDS = {"order": "the order of the images"}


@dataclass(frozen=True)
class _Original:
    """The records of the original run, complete and consistent."""

    fingerprints: dict[int, dict[str, str]]
    metrics: list[dict[str, str]]
    result: dict[str, Any] | None

    @classmethod
    def of(cls, folder: RunFolder) -> _Original:
        """Reads the records from a folder.

        Raises:
            RunFolderError: If a record is missing or damaged.
        """
        original = cls(folder.read_fingerprints(), folder.read_metrics(), folder.result())
        got = f"{len(original.fingerprints)} in fingerprints.jsonl and {len(original.metrics)} in metrics.csv"
        if len(original.fingerprints) != len(original.metrics):
            raise RunFolderError(f"{folder.path} must have the same epochs in both files, got {got}. {_RESUME}")
        if original.result is not None and len(original.metrics) != original.result["epochs"]:
            rule = f"must have all of its {amount(original.result['epochs'], 'epoch')}, since it has a result"
            raise RunFolderError(f"{folder.path} {rule}, got {got}. The folder was changed, so nothing can be checked.")
        if not original.metrics:
            raise RunFolderError(f"{folder.path} must hold a complete epoch, got none. {_RESUME}")
        return original


_RESUME = "Resume the run first."


def _check_members(folder: RunFolder, original: _Original, own: set[str], listeners: Sequence[Listener]) -> None:
    """Raises a `RunFolderError` if the run was trained with members of the state that nobody adds here.

    Those that the config adds (`own`) are added again.
    """
    kinds = {name.partition(".")[0] for name in original.fingerprints[1]}
    members = sorted(kinds - {"order", "weights", "optimizer"} - own)
    if members and not listeners:
        raise RunFolderError(
            f"{folder.path} must be replayed with the listeners that it was trained with, since its state has "
            f"{', '.join(members)}. Use era_cnn.replay in Python."
        )


def _epochs_to_compare(original: _Original, wanted: int | None) -> int:
    recorded = len(original.metrics)
    if wanted is not None and not 1 <= wanted <= recorded:
        rule = f"be from 1 to {recorded}, the number of recorded epochs"
        raise ConfigError([problem("--epochs", rule, wanted, "Leave it out to compare all.")])
    return wanted or recorded


def _changes(folder: RunFolder, stored: StoredConfig) -> list[str]:
    """The differences from when the run began or was resumed."""
    with set_up(stored.config.threads):  # sets an environment variable that was recorded within it
        collected = provenance.collect(stored.config, device_of(stored.config))
    now = {"config_sha256": stored.sha256, "data_sha256": read_data(stored.config).sha256, **collected}
    began = folder.read_json("provenance.json")
    parts: list[dict[str, Any]] = [began, *began.get("resumed", [])]
    return list(dict.fromkeys(change for part in parts for change in differences(part, now)))


MOST_CAUSES = 5
"""The most to name: whoever updates an environment has many."""


def _likely_cause(name: str, changes: Sequence[str]) -> str:
    if changes:
        others = f"; {len(changes) - MOST_CAUSES} more" if len(changes) > MOST_CAUSES else ""
        return f"Likely cause: {'; '.join(changes[:MOST_CAUSES])}{others}."
    if name == "order":
        return "Likely cause: another seed, or a changed record; everything else is as it was."
    return "Likely cause: a changed record, or a machine that computes differently; no other record changed."


def _compare_rows(before: list[dict[str, str]], now: list[dict[str, str]], *, to_the_end: bool) -> None:
    """Compares metrics.csv. A shortened replay evaluates its last epoch, which the run may not have evaluated."""
    for row, other in zip(before, now, strict=True):
        for key in row:
            if row[key] != other.get(key) and (row[key] or to_the_end):
                raise ReplayError(
                    f"metrics.csv: {key} of epoch {row['epoch']} must be {row[key]}, got {other.get(key)}. "
                    "The tensors are equal, so the record was changed."
                )


def _compare_results(before: dict[str, Any], now: dict[str, Any], stored: StoredConfig) -> None:
    """Compares result.json, whose config digest follows the rules of the version that wrote it."""
    expected = {**now, "config_sha256": stored.sha256}
    met, is_limited = before["target"].get("met"), stored.config.trainer.limit_test_images is not None
    # Earlier versions said true of no target, and null of a limit that leaves no test image out.
    if (met and now["target"]["met"] is None) or (met is None and is_limited):
        expected["target"] = {**now["target"], "met": met}
    for key in {**before, **expected}:
        if key not in TIMES and before.get(key) != expected.get(key):
            raise ReplayError(
                f"result.json: {key} must be {before.get(key)}, got {expected.get(key)}. "
                "All epochs are equal, so the file was changed."
            )
