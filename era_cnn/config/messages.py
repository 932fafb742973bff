"""Pydantic's findings as messages in our form, each key as it is typed on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from era_cnn.errors import did_you_mean, one_of, problem


def field_problems(error: ValidationError, schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Pydantic's findings in our form, each key as it is typed on the command line."""
    return [_field_problem(details, schema, prefix) for details in error.errors(include_url=False)]


def _field_problem(details: ErrorDetails, schema: type[BaseModel], prefix: str) -> str:
    path, owner, description = _locate(details, schema)
    key = prefix + ".".join(path)
    kind, context, got = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        known = list(owner.model_fields) if owner else []
        where = (prefix + ".".join(path[:-1])).rstrip(".") or "the config"
        return problem(
            key,
            f"be a key of {where} ({', '.join(known)})",
            got,
            did_you_mean(path[-1], known, "Remove it."),
        )
    if kind == "missing":
        example = "." if ": " in description else f": {key}=…"
        return f"{key} must be given, got nothing. Give {description}{example}"
    if kind in ("literal_error", "union_tag_invalid"):
        if kind == "union_tag_invalid":
            key, got = f"{key}.name", context["tag"]
            names = [name.strip("' ") for name in str(context["expected_tags"]).split(",")]
        else:
            names = [name.strip("' ") for name in str(context["expected"]).replace(" or ", ",").split(",")]
        return problem(key, one_of(names), got, did_you_mean(str(got), names, f"Choose one: {key}={names[0]}"))
    if kind == "union_tag_not_found":
        return f"{key}.name must be given, got nothing. Choose one: {key}=…"
    return problem(key, _rule(kind, context, details["msg"]), got, f"Give {description}.")


_RULES = {
    "greater_than_equal": "be at least {ge:,g}",
    "greater_than": "be greater than {gt:,g}",
    "less_than_equal": "be at most {le:,g}",
    "less_than": "be less than {lt:,g}",
    "int_type": "be a whole number",
    "float_type": "be a number",
    "bool_type": "be true or false",
    "string_type": "be a text",
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
    # A kind that is not in the table still gets pydantic's own words rather than an internal error.
    return _RULES[kind].format(**context) if kind in _RULES else f"be valid ({message})"


def _locate(details: ErrorDetails, schema: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None, str]:
    """The path as typed, the section that the last key belongs to, and the description of its field.

    Pydantic puts the tag of a tagged union into the path (optimizer, sgd, lr); nobody types it.
    """
    path: list[str] = []
    description = "a value"
    owner: type[BaseModel] | None = schema
    sections: tuple[type[BaseModel], ...] = (schema,)  # several: a choice that the next part, a tag, decides
    for part in details["loc"]:
        if part == "[key]":  # pydantic's mark of a mapping's key that is wrong itself
            break
        if len(sections) > 1:
            sections = tuple(section for section in sections if part in _tags(section))
            continue
        path.append(str(part))
        owner = sections[0] if sections else None
        field = owner.model_fields.get(str(part)) if owner else None
        sections = _sections(field.annotation) if field else ()
        description = (field.description if field else None) or description
    return path, owner, description


def _tags(section: type[BaseModel]) -> tuple[str, ...]:
    return get_args(section.model_fields["name"].annotation)


def _sections(annotation: Any) -> tuple[type[BaseModel], ...]:
    members = get_args(annotation) or (annotation,)
    return tuple(member for member in members if isinstance(member, type) and issubclass(member, BaseModel))
