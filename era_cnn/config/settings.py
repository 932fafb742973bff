"""Settings: what a run trained, without its seed. Only results of equal settings may be averaged.

A setting is read off the resolved config, so it does not matter whether a value was typed, or comes from a group or an
experiment. Values that change no result, such as folders and names, are not part of it; see `NoEffect`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from era_cnn.config.schema import RunConfig
from era_cnn.config.sections import NoEffect, Section


@dataclass(frozen=True)
class Setting:
    """The values of a config, by the keys as they are typed: `optimizer` for its name, `optimizer.lr` for its field."""

    seed: int
    values: dict[str, str]
    """All values that can change the result, except the seed."""

    labels: dict[str, str]
    """The values that change no result, such as `experiment`, the name of the experiment."""

    @cached_property
    def sha256(self) -> str:
        """The digest of `values`; the order of layers and transforms is part of it."""
        return _sha256(sorted(self.values.items()))

    def on(self, device: str) -> Setting:
        """The same setting on a device, for a run that has not begun: its config may still say `auto`."""
        return replace(self, values={**self.values, "device": device}) if self.values.get("device") == "auto" else self


def setting_of(values: Mapping[str, Any], schema: type[Section] = RunConfig) -> Setting:
    """The setting of a config.

    Args:
        values: The config as plain values, with its seed.
        schema: The class of the config. The default is for a config whose plugins are missing.
    """
    flat = dict(_flat({key: value for key, value in values.items() if key != "logger"}))
    seed = flat.pop("seed")
    layers = (values.get("model") or {}).get("layers") or {}
    chosen = list(values.get("augmentation") or {}) or ["none"]
    flat["augmentation"] = chosen[0] if len(chosen) == 1 else chosen
    flat["model.layers"] = _sha256([list(layers), sorted(_flat(layers))])[:8]
    ignored = {"data.root", *_keys_without_effect(schema)}
    labels = {as_typed_key(key): as_typed_value(flat.pop(key)) for key in list(flat) if key in ignored}
    typed = {as_typed_key(key): as_typed_value(value) for key, value in flat.items()}
    return Setting(seed, typed, labels)


def flat_settings(values: Mapping[str, Any]) -> dict[str, str]:
    """All values of a config as text, by the keys as they are typed."""
    return {as_typed_key(key): as_typed_value(value) for key, value in _flat(values)}


def as_typed_key(key: str) -> str:
    """The key as it is typed to choose a name: `optimizer` for `optimizer.name`, and `experiment` for `name`."""
    return "experiment" if key == "name" else key.removesuffix(".name")


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _keys_without_effect(schema: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in schema.model_fields.items():
        if any(isinstance(each, NoEffect) for each in field.metadata):
            yield f"{prefix}{name}"
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys_without_effect(field.annotation, f"{prefix}{name}.")


def as_typed_value(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_typed_value, value))}]"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()
