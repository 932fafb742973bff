"""Collects completed runs of one setting into a record, and merges it with an earlier one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from era_cnn.config.schema import RunConfig
from era_cnn.config.settings import setting_of
from era_cnn.config.versions import digest_without_seed, numbered
from era_cnn.errors import ConfigError, RunFolderError, shortened
from era_cnn.folders.description import parse_description
from era_cnn.folders.record import COMPUTED_BY, OWN_FILES, SCHEMA, Part, Record, RecordedRun, best_of, contradiction
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from era_cnn.output import shown
from era_cnn.reports.compare import rows_of
from era_cnn.reports.rows import Row

Compose = Callable[[Record], RunConfig]
"""Composes the config of a single run from the overrides of a record; only `compose/` knows how.

It raises a `ConfigError`, or a `LacksFilesError` if the cause may be that files of one's own are not given.
"""


class LacksFilesError(RunFolderError):
    """The config of a record can't be composed without the files of one's own that its runs used."""


_NO_SETTING = re.compile(r"[+~]*(seed|data\.root|report|init_from(_checkpoint)?|logger|sweep|hydra)([./=@].*)?$")
"""The overrides that are no part of a setting: the seed, and where and how a run was made."""

_PLACE = re.compile(
    r"[+~]*(data\.root|hydra\.(run|sweep)(\.(sub)?dir)?|sweep\.reuse_from|logger([./].*)?)=|[^=]*=(.*[\[{,:])?(/|~|\w+://)"
)
"""The words of a command that name a folder of one machine, or an address, which may hold a password."""


def collected(paths: Sequence[Path], compose: Compose) -> Record:
    """The record of runs, and of the jobs of sweeps.

    Raises:
        ConfigError: If their settings differ, or their command no longer composes their config.
        RunFolderError: If a run is incomplete, was limited, is damaged, can't be repeated by its command alone, or
            used files of one's own that are not given.
    """
    rows = list({row.outcome.folder: row for path in paths for row in _rows(path)}.values())
    for row in rows:
        _check_complete(row)
        _check_repeatable(row)
    for row in rows[1:]:
        check_same(rows[0].effective, row.effective, f"{_name(rows[0])} and {_name(row)}")
    rows.sort(key=lambda row: row.seed or 0)
    record = merged(_begun(rows[0]), [_run(RunFolder(row.outcome.folder)) for row in rows])
    if why := why_superseded(record, compose):
        rule = "hold runs whose command still composes their config"
        advice = "Give their --config-dir and --plugin, or train them again."
        raise ConfigError([f"RUN_OR_SWEEP must {rule}, got other values: {why}. {advice}"])
    return record


def _rows(path: Path) -> list[Row]:
    if rows := rows_of(path.absolute()):
        return rows
    rule = "hold complete runs"
    raise RunFolderError(f"{shown(path)} must {rule}, got a sweep without any. Resume it before recording.")


def merged(record: Record, runs: Sequence[RecordedRun]) -> Record:
    """A record with further runs, by seed. Equal runs count once.

    A seed may have several runs if they ran on different kinds of machines.

    Raises:
        RunFolderError: If one kind of machine gave two results for one seed.
    """
    kept = list(record.runs)
    for run in runs:
        same_seed = [each for each in kept if each.seed == run.seed]
        if run.weights_sha256 in (each.weights_sha256 for each in same_seed):
            continue
        for other in same_seed:
            if other.kind(portable=record.portable) == run.kind(portable=record.portable):
                raise RunFolderError(
                    f"Seed {run.seed} must have one result on one kind of machine, got the weights "
                    f"{other.weights_sha256[:12]} and {run.weights_sha256[:12]}. Find the cause with era-cnn replay."
                )
        kept.append(run)
    return replace(record, runs=tuple(sorted(kept, key=lambda run: run.seed)))


def check_same(one: Mapping[str, str], other: Mapping[str, str], which: str) -> None:
    """Raises a `ConfigError` that names the keys in which two settings differ, except for what computed them."""
    differing = [
        f"{key} {shortened(one.get(key, 'none'), 40)} and {shortened(other.get(key, 'none'), 40)}"
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key) and key not in COMPUTED_BY
    ]
    if differing:
        advice = "Record each setting in a folder of its own."
        raise ConfigError([f"A record must hold runs of one setting, got {which}: {'; '.join(differing)}. {advice}"])


def why_superseded(record: Record, compose: Compose) -> str | None:
    """Why the overrides of a record no longer compose its config; None if they do.

    Raises:
        LacksFilesError: If it can't be told, since files of one's own are not given.
    """
    try:
        composed = compose(record)
    except ConfigError as error:
        return error.problems[0].rstrip(".")
    if is_of(record, composed):
        return None
    composed = composed.model_copy(update={"device": record.parsed.device})
    now, then = (setting_of(each.model_dump(), type(each)).values for each in (composed, record.parsed))
    keys = [key for key in dict.fromkeys([*now, *then]) if now.get(key) != then.get(key)]
    return "; ".join(f"{key} is now {now.get(key, 'gone')}, was {then.get(key, 'not there')}" for key in keys)


def is_of(record: Record, config: RunConfig) -> bool:
    """Whether a config is that of a record, whatever its seed and device."""
    config = config.model_copy(update={"device": record.parsed.device})
    return digest_without_seed(config) == digest_without_seed(record.parsed)


def _check_complete(row: Row) -> None:
    outcome = row.outcome
    if row.result is None or row.setting is None:
        is_damaged = outcome.state == "damaged"  # then the message says what to do
        why = f" ({outcome.message.rstrip('.')})" if outcome.message else ""
        advice = f"{'Name' if is_damaged else 'Resume it, or name'} only the runs that are complete."
        raise RunFolderError(f"{_name(row)} must be a complete run, got one that is {outcome.state}{why}. {advice}")
    for key, limit in read_config(RunFolder(outcome.folder)).config.limits.items():
        rule = "be a run on all images and of all epochs"
        raise RunFolderError(f"{_name(row)} must {rule}, got trainer.{key}={limit}. Train it without that limit.")


def _check_repeatable(row: Row) -> None:
    """Raises a `RunFolderError` if the command of a complete run alone does not repeat it."""
    name, values = _name(row), row.effective
    if values.get("init_from_sha256", "null") != "null":
        rule = "be a run from random weights, so that its command alone repeats it"
        raise RunFolderError(f"{name} must {rule}, got one with init_from. Record the run that it began from.")
    if any(key.startswith("data.contents") for key in values):
        rule = "be a run on a published data set, so that others can repeat it"
        raise RunFolderError(f"{name} must {rule}, got data={values['data']}. Keep its folder instead.")
    if not (row.outcome.folder / ".hydra").exists():
        rule = "be a run of overrides, so that a command repeats it"
        raise RunFolderError(f"{name} must {rule}, got one of a config from Python. Train the overrides.")


def _name(row: Row) -> str:
    return str(shown(row.outcome.folder))


def _begun(row: Row) -> Record:
    """A record without runs yet: what all runs of the setting of a row have in common."""
    folder = RunFolder(row.outcome.folder)
    config, result = read_config(folder).config, row.result
    assert result is not None, "it was checked"
    return Record(
        schema=SCHEMA,
        experiment=config.name,
        superseded=None,
        overrides=tuple(word for word in folder.read_task()[1] if not _NO_SETTING.match(word)),
        config_sha256=digest_without_seed(config),
        data_sha256=result["data_sha256"],
        plugins=dict(folder.read_json("provenance.json").get("plugins", {})),
        runs=(),
        config=_without_places(numbered(config)),
        network=folder.read("summary.json", parse_description),
    )


def _without_folders(command: Sequence[str]) -> Iterator[str]:
    """A command without paths of a machine: of a config folder or a plugin, the name is enough to tell which one."""
    for last, word in pairwise(("", *command)):
        option, is_joined, path = word.partition("=")
        if option in OWN_FILES and is_joined:
            yield f"{option}={_relative(path)}"
        elif last in OWN_FILES or word.startswith(("/", "~/")):
            yield _relative(word)
        elif not _PLACE.match(word):
            yield word


def _relative(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() or path.startswith("~") else path


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    """A config as it is recorded: without the seed and without paths of a machine."""
    kept = {key: value for key, value in values.items() if key not in ("seed", "logger", "report", "init_from")}
    return {**kept, "data": {**kept["data"], "root": "data"}} if "root" in kept["data"] else kept


def _run(folder: RunFolder) -> RecordedRun:
    """A run as its folder tells it.

    Raises:
        RunFolderError: If a file is missing or damaged, or the files contradict each other.
    """
    result, origin = folder.result(), folder.read_json("provenance.json")
    fingerprints, curves = folder.read_fingerprints(), _curves(folder.read_metrics())
    assert result is not None, "it was checked"
    best, epoch = best_of(curves.get("test_accuracy", ()))
    run = RecordedRun(
        seed=result["seed"],
        best_test_accuracy=best,
        best_test_epoch=epoch,
        final_test_accuracy=result["final_test_accuracy"],
        ema_test_accuracy=result.get("ema_test_accuracy"),
        best_train_accuracy=result["best_train_accuracy"],
        final_train_accuracy=result["final_train_accuracy"],
        weights_sha256=result["weights_sha256"],
        first_epoch_sha256=fingerprint_sha256(fingerprints.get(1, {})),
        seconds=result["seconds"],
        end_reason=result.get("end_reason"),
        parts=tuple(_parts(folder, origin)),
        command=tuple(_without_folders(origin.get("command", ()))),
        curves=curves,
    )
    why = contradiction(run) or ("other epochs than fingerprints.jsonl" if len(fingerprints) != run.epochs else None)
    if why or run.epochs != result["epochs"]:
        why = why or "another number of epochs than metrics.csv"
        raise RunFolderError(f"{folder.path} must hold the files of one run, got {why}. The folder was changed.")
    return run


def fingerprint_sha256(digests: Mapping[str, str]) -> str:
    """The digest of all fingerprints of an epoch."""
    return hashlib.sha256(json.dumps(dict(sorted(digests.items())), separators=(",", ":")).encode()).hexdigest()


def _curves(rows: Sequence[Mapping[str, str]]) -> dict[str, tuple[float | None, ...]]:
    columns = [key for key in rows[0] if key != "epoch"] if rows else []
    return {key: tuple(float(row[key]) if row[key] else None for row in rows) for key in columns}


def _parts(folder: RunFolder, origin: Mapping[str, Any]) -> Iterator[Part]:
    for each in (origin, *origin.get("resumed", ())):
        try:
            yield Part.of(each)
        except ValueError as error:
            path = folder.path / "provenance.json"
            raise RunFolderError(f"{path} must say where the run was trained, got {error}. Train it again.") from error
