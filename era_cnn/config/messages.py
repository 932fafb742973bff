"""Turns pydantic's validation errors into messages of the form in `era_cnn.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from era_cnn.config.groups import LISTED
from era_cnn.config.synonyms import suggestion
from era_cnn.errors import one_of, problem
from era_cnn.nearest import asked

TAGS = {"[one]", "[each]", "[name]", "[list]"}
"""The tags of the forms that a field may have, such as a number or a list; no key as it is typed holds them."""


def field_problems(error: ValidationError, schema: type[BaseModel], prefix: str = "") -> list[str]:
    """A message for each of pydantic's errors, with keys as they are typed on the command line."""
    problems = [_field_problem(details, schema, prefix) for details in error.errors(include_url=False)]
    return list(dict.fromkeys(problems))


def _field_problem(details: ErrorDetails, schema: type[BaseModel], prefix: str) -> str:
    path, owner, description = _locate(details, schema)
    key = prefix + ".".join(path)
    kind, context, got = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        known = list(owner.model_fields) if owner else []
        where = (prefix + ".".join(path[:-1])).rstrip(".") or "the config"
        rule = f"be a key of {where} ({', '.join(known)})"
        elsewhere = _elsewhere(path[-1], schema) or of_other_choices(key, path[-1])
        return problem(key, rule, got, suggestion(path[-1], known, "Remove it.", elsewhere))
    if kind == "missing" and len(path) == 3 and path[0] in LISTED and "transform" not in got:
        section = ".".join(path[:2])
        rule = f"must be chosen to have keys, got {', '.join(map(str, got)) or 'none'} alone"
        return f"{section} {rule}. Choose it ({path[0]}={path[1]}), or remove them: ~{section}"
    if kind == "missing":
        example = "." if ": " in description else f": {key}=…"
        return f"{key} must be given, got nothing. Give {description}{example}"
    if kind == "literal_error":
        names = [name.strip("' ") for name in str(context["expected"]).replace(" or ", ",").split(",")]
        return problem(key, one_of(names), got, suggestion(str(got), names, f"Choose one: {key}={names[0]}"))
    return problem(key, _rule(kind, context, details["msg"]), got, f"Give {description}.")


def _elsewhere(name: str, schema: type[BaseModel]) -> str:
    """Suggests the section that has a key which another one lacks, as trainer.lr is optimizer.lr."""
    sections = ((key, _section(field.annotation)) for key, field in schema.model_fields.items())
    found = [f"{key}.{name}" for key, section in sections if section and name in section.model_fields]
    return asked(found) if found else ""


def of_other_choices(key: str, name: str) -> str:
    """Suggests the choices that have a field which the chosen one lacks, as only one_cycle has scheduler.pct_start."""
    from era_cnn.config.choices import OPTIMIZERS, SCHEDULERS  # imports this module

    registry = {f"optimizer.{name}": OPTIMIZERS, f"scheduler.{name}": SCHEDULERS}.get(key)
    if registry is None:
        return ""
    found = [each for each, section in registry.built_in_sections().items() if name in section.model_fields]
    if not found:
        return ""
    choices = " or ".join(f"{registry.kind}={each}" for each in found)
    return f"It belongs to {', '.join(found)}: choose {choices}."


_RULES = {
    "greater_than_equal": "be at least {ge:,g}",
    "greater_than": "be greater than {gt:,g}",
    "less_than_equal": "be at most {le:,g}",
    "less_than": "be less than {lt:,g}",
    "int_type": "be a whole number",
    "float_type": "be a number",
    "bool_type": "be true or false",
    "string_type": "be a string",
    "finite_number": "be a finite number",
    "dict_type": "be a mapping",
    "model_type": "be a mapping",
    "model_attributes_type": "be a mapping",
    "list_type": "be a list",
    "too_short": "have at least {min_length} entries",
    "too_long": "have at most {max_length} entries",
    "string_too_short": "not be empty",
    "string_too_long": "have at most {max_length} characters",
    "string_pattern_mismatch": "be a name",
}


def _rule(kind: str, context: Mapping[str, Any], message: str) -> str:
    # For a kind that is not in the table, the message quotes pydantic.
    return _RULES[kind].format(**context) if kind in _RULES else f"be valid ({message})"


def _locate(details: ErrorDetails, schema: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None, str]:
    """The path of the key as it is typed, the section that holds the key, and the description of its field."""
    path: list[str] = []
    description = "a value"
    owner: type[BaseModel] | None = schema
    section: type[BaseModel] | None = schema
    for part in details["loc"]:
        if part == "[key]":  # pydantic's marker for an invalid key of a mapping
            break
        if part in TAGS:
            continue
        path.append(str(part))
        owner = section
        field = owner.model_fields.get(str(part)) if owner else None
        section = _section(field.annotation) if field else None
        description = (field.description if field else None) or description
    return path, owner, description


def _section(annotation: Any) -> type[BaseModel] | None:
    members = get_args(annotation) or (annotation,)
    return next((each for each in members if isinstance(each, type) and issubclass(each, BaseModel)), None)
