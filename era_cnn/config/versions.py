"""Reads configs of earlier versions, and computes digests that new keys do not change.

`config.yaml` carries a schema number. An older file is upgraded by one small step for each number in between. A key
whose default is its neutral value needs no step: see `Section`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from era_cnn.config.schema import Augmentation, RunConfig
from era_cnn.config.sections import NoEffect, Section, values_of

SCHEMA = 2
"""The schema number of config.yaml. Raise it, and add a step, when a key is renamed, moved or changes its meaning."""

NUMERICS = 1
"""The version of the arithmetic, raised whenever a change on purpose gives other bits. See `NUMERICS_CHANGES`."""

NUMERICS_CHANGES: dict[int, str] = {}
"""What changed with each numerics version after the first."""


def numbered(config: RunConfig) -> dict[str, Any]:
    """A config as plain values with its schema number, as it is stored in config.yaml."""
    return {"schema": SCHEMA, **config.model_dump()}


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config.yaml of any version, upgraded to this version, without the schema number.

    Raises:
        ValueError: If a newer version wrote them, or the schema number is invalid.
    """
    current = {key: value for key, value in values.items() if key != "schema"}
    for number in range(schema_of(values), SCHEMA):
        current = STEPS[number](current)
    return current


def schema_of(values: Mapping[str, Any]) -> int:
    """The schema number of a config.yaml; 1 for files without one, which are older.

    Raises:
        ValueError: If a newer version wrote it, or it is invalid.
    """
    number = values.get("schema", 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"a schema number {number!r}")
    if number > SCHEMA:
        raise ValueError(f"schema {number}, which a newer version of era_cnn wrote: update era_cnn")
    return number


def _to_2(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 has transforms by name instead of one augmentation, and a mean and deviation for each channel.

    A section that is missing or not a mapping is left alone: the schema reports it.
    """
    current = dict(values)
    if isinstance(data := values.get("data"), dict):
        per_channel = {key: [data[key]] for key in ("mean", "std") if isinstance(data.get(key), int | float)}
        current["data"] = {**data, **per_channel}
    if isinstance(augmentation := values.get("augmentation"), dict) and "name" in augmentation:
        fields = {key: value for key, value in augmentation.items() if key != "name"}
        current["augmentation"] = {} if augmentation["name"] == "none" else {augmentation["name"]: fields}
    return current


STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_2}
"""Maps each schema number to the step that upgrades to the next one."""


def digest(config: RunConfig) -> str:
    """SHA-256 over all values that can change the result and differ from their neutral value.

    New keys at their defaults and the order of keys do not change it; the order of layers and transforms does.
    """
    return _sha256(_essence(config))


def digest_without_seed(config: RunConfig) -> str:
    """As `digest`, without the seed: equal for the runs of one setting."""
    return _sha256({key: value for key, value in _essence(config).items() if key != "seed"})


def _essence(section: Section) -> Any:
    """The fields of a section that are part of the digest, sorted by name; transforms and layers as ordered pairs."""
    neutral = _neutral_values(type(section))
    found: dict[str, Any] = {}
    for name, value in values_of(section).items():
        if name not in neutral or value == neutral[name]:
            continue
        if isinstance(value, Augmentation):
            if not value.chosen():  # as if the key did not exist
                continue
            found[name] = [[chosen, _essence(each)] for chosen, each in value.chosen().items()]
        elif isinstance(value, Section):
            found[name] = _essence(value)
        elif name == "layers":
            found[name] = [[layer, dict(sorted(spec.items()))] for layer, spec in value.items()]
        else:
            found[name] = value
    return dict(sorted(found.items()))


@cache
def _neutral_values(section: type[Section]) -> dict[str, Any]:
    """The values with which the fields of a section are left out of the digest; a field without effect always is."""
    return {
        name: _NOTHING if field.is_required() else field.get_default()
        for name, field in section.model_fields.items()
        if not any(isinstance(each, NoEffect) for each in field.metadata)
    }


_NOTHING = object()


def stored_digest(values: Mapping[str, Any], config: RunConfig) -> str:
    """The digest of a config.yaml by the rules of the version that wrote it, as the other files of its folder hold it.

    Args:
        values: The content of the file.
        config: The config that was parsed from it.
    """
    former = FORMER_DIGESTS.get(schema_of(values))
    return former(values) if former else digest(config)


def digest_as_schema_1(config: RunConfig) -> str | None:
    """The digest that the first version gave a config; None if it could not express the config."""
    if not _could_express(_essence(config)):
        return None
    values = _known(config.model_dump())
    for section in _SECTIONS_OF_SCHEMA_1:
        values[section] = _known(values[section])
    data, chosen = values["data"], [(name, _known(fields)) for name, fields in values["augmentation"].items()]
    if len(chosen) > 1 or len(data["mean"]) > 1:
        return None
    order = [key for key in ("name", "root", "train_size", "mean", "std", "val_size") if key in data]
    per_channel = {key: data[key][0] for key in ("mean", "std")}
    values["data"] = {key: {**data, **per_channel}[key] for key in order}
    values["augmentation"] = {"name": chosen[0][0], **chosen[0][1]} if chosen else {"name": "none"}
    return _digest_of_schema_1(values)


_SECTIONS_OF_SCHEMA_1 = ("model", "optimizer", "scheduler", "trainer", "target")
_KEYS_OF_SCHEMA_1 = frozenset({
    *("name", "seed", "device", "threads", "precision", "data", "augmentation", *_SECTIONS_OF_SCHEMA_1),
    *("dropout", "norm", "activation", "bias", "order", "layers"),
    *("lr", "momentum", "weight_decay", "nesterov", "betas", "eps"),
    *("every_epochs", "gamma", "warmup_epochs", "div_factor", "final_div_factor", "final_factor"),
    *("epochs", "batch_size", "eval_batch_size", "eval_every_epochs", "label_smoothing", "checkpoint_every_seconds"),
    *("cuda_graphs", "limit_epochs", "limit_train_images", "limit_test_images"),
    *("max_params", "max_epochs", "test_accuracy"),
    *("degrees", "translate", "scale", "shear", "fill"),
})  # fmt: skip
"""The keys of a config of schema 1, of its sections and of its transforms; its files had no others."""

_LATER = {("constant", "warmup_epochs"), ("step", "warmup_epochs")}
"""The keys that an entry, by its name, did not have in schema 1, although others had."""


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if _is_known(values, key)}


def _is_known(section: Mapping[str, Any], key: str) -> bool:
    return key in _KEYS_OF_SCHEMA_1 and (section.get("name"), key) not in _LATER


def _could_express(essence: Mapping[str, Any]) -> bool:
    """Whether schema 1 had all keys that differ from their neutral values."""
    sections = [essence.get(section, {}) for section in _SECTIONS_OF_SCHEMA_1]
    transforms = [fields for _, fields in essence.get("augmentation", [])]
    return all(_is_known(each, key) for each in (essence, *sections, *transforms) for key in each)


def _digest_of_schema_1(values: Mapping[str, Any]) -> str:
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items() if key != "name"}
    for section, key in (
        ("data", "root"),
        ("model", "name"),
        ("trainer", "name"),
        ("trainer", "checkpoint_every_seconds"),
    ):
        kept[section].pop(key, None)
    return _sha256(kept)


FORMER_DIGESTS: dict[int, Callable[[Mapping[str, Any]], str]] = {1: _digest_of_schema_1}
"""Maps each former schema number to the digest of its files, which their folders hold."""


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()
