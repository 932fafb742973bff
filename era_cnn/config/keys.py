"""The keys of a config, each with its value, what it may be, and its meaning: from the schemas."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from era_cnn.config.choices import BLOCKS
from era_cnn.config.sections import Own, Section, values_of
from era_cnn.config.settings import as_typed_value
from era_cnn.errors import ConfigError, problem
from era_cnn.nearest import did_you_mean

FILLED_IN = ("contents", "init_from_sha256")
"""The fields that nobody types: the program fills them in."""

LAYERS = "model.layers"

WITH_KEYS = {"hydra.launcher": "hydra/launcher=local", "hydra.sweeper": "hydra/sweeper=optuna"}
"""The sections whose default option has no keys, with one that has some."""

OF_A_SWEEP = ("sweep", *WITH_KEYS)
"""The sections that only a sweep has."""

AN_OPTION = "an option of a group; era-cnn --help lists all of them"


@dataclass(frozen=True)
class Key:
    """A key as it is typed, its value, the values that it may have, and its meaning."""

    name: str
    value: str
    values: str
    meaning: str


def keys_below(sections: Mapping[str, Section], prefix: str) -> list[Key]:
    """The keys that begin with a prefix, such as `trainer`; fields of layers only if they are asked for.

    Args:
        sections: By the key under which each stands: "" for the config of a run, `sweep`, `hydra.launcher`.
        prefix: A key, or what begins several; all of them if it is empty.

    Raises:
        ConfigError: If there is no such key.
    """
    with_layers = f"{prefix}.".startswith(f"{LAYERS}.")
    keys = [key for at, section in sections.items() for key in _keys_at(at, section, with_layers=with_layers)]
    found = [key for key in keys if not prefix or f"{key.name}.".replace("/", ".").startswith(f"{prefix}.")]
    options = [option for section, option in WITH_KEYS.items() if f"{section}.".startswith(f"{prefix}.")]
    if not found and options:
        advice = f"Add one, such as {options[0]}"
        raise ConfigError([problem("--keys", "be used with an option that has keys", prefix, advice)])
    if not found:
        known = {key.name.rsplit(".", depth)[0] for key in keys for depth in range(3)} | set(OF_A_SWEEP)
        advice = did_you_mean(prefix, sorted(known), "Leave it out to see all keys.")
        raise ConfigError([problem("--keys", "be a group or a key of this config", prefix, advice)])
    return found


def _keys_at(at: str, section: Section, *, with_layers: bool) -> Iterator[Key]:
    """The keys of a section, after the option that was chosen where it is one of a group."""
    if at and (chosen := getattr(section, "name", "")):
        yield Key(at.replace(".", "/"), chosen, "", AN_OPTION)
    yield from _keys(section, f"{at}." if at else "", with_layers=with_layers)


def _keys(section: Section, prefix: str = "", *, with_layers: bool) -> Iterator[Key]:
    """The keys of a section; its name is the option that was chosen, and stands for the section itself."""
    allowed = values_allowed(type(section))
    for name, value in values_of(section).items():
        key, field = f"{prefix}{name}", type(section).model_fields[name]
        if name in FILLED_IN or (name == "name" and prefix):
            continue
        if isinstance(value, Section):
            if chosen := getattr(value, "name", ""):
                yield Key(key, chosen, "", AN_OPTION)
            yield from _keys(value, f"{key}.", with_layers=with_layers)
        elif key == LAYERS and with_layers:
            yield from _keys_of_layers(value, section)
        else:
            typed = ", ".join(value) if key == LAYERS else as_typed_value(value)
            yield Key(key, typed, allowed[name], str(field.description))


def _keys_of_layers(layers: Mapping[str, Mapping[str, Any]], model: Section) -> Iterator[Key]:
    """The fields of each layer; without a value, those for which it takes that of the model."""
    of_model = set(type(model).model_fields)
    for layer, stated in layers.items():
        schema = BLOCKS.section(stated["block"])
        allowed = values_allowed(schema)
        for name, field in schema.model_fields.items():
            is_inherited = name in of_model and not any(isinstance(each, Own) for each in field.metadata)
            value = stated.get(name, None if is_inherited else field.get_default())
            typed = "" if value in (None, PydanticUndefined) else as_typed_value(value)
            yield Key(f"{LAYERS}.{layer}.{name}", typed, allowed[name], str(field.description))


def values_allowed(model: type[BaseModel]) -> dict[str, str]:
    """What each field of a section may be, in a few words."""
    schema = model.model_json_schema()

    def defined(reference: re.Match[str]) -> str:
        return json.dumps(schema["$defs"][reference[1]])

    reference = functools.partial(re.sub, r'\{"\$ref": "#/\$defs/(\w+)"\}', defined)
    return {name: _range(json.loads(reference(json.dumps(field)))) for name, field in schema["properties"].items()}


def _range(schema: Mapping[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(map(_range, schema.get("anyOf", schema.get("oneOf")))))
    if "enum" in schema or "const" in schema:
        return ", ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or ([schema["items"]] if "items" in schema else [])
        return f"[{', '.join(dict.fromkeys(map(_range, items)))}]"
    name = {"integer": "whole number", "boolean": "true, false", "object": "mapping"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:,}" for key, sign in signs.items() if key in schema and abs(schema[key]) < 1e6]
    return " ".join([name.get(schema.get("type", ""), schema.get("type", "")), ", ".join(limits)]).strip()
