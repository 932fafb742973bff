"""Sections, the parts of a config: typed, read-only and strict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from era_cnn.errors import problem

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""The characters of a name, which becomes part of a folder's name."""

Name = Annotated[str, Field(pattern=NAME, max_length=80, description="letters, digits, _, - and . only")]
Count = Annotated[int, Field(ge=1, le=2**31)]


class Section(BaseModel):
    """A part of the config: read-only, without unknown keys, and without silent conversions.

    A field that has its default value behaves as if the field did not exist, and adds nothing to the digest of the
    config. So a new field with a default changes no old digest, and older configs can still be read.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Choice(Section):
    """A section that names an entry of a registry; its other keys are fields of that entry."""

    name: str


@dataclass(frozen=True)
class NoEffect:
    """Marks a field that changes no result, such as a folder. It is not part of a config's digest."""


@dataclass(frozen=True)
class Own:
    """Marks a field of a block that is never taken from the model, only from the layer itself or its default."""


class FieldError(ValueError):
    """A field contradicts others, or does not fit where it is used. The code that catches it adds the field's key."""

    def __init__(self, field: str, rule: str, got: object, advice: str) -> None:
        super().__init__(field, rule, got, advice)
        self.field, self.rule, self.got, self.advice = field, rule, got, advice

    def at(self, key: str) -> str:
        """The message about the field of the section at `key`; about the section itself if the field has no name."""
        return problem(f"{key}.{self.field}".rstrip("."), self.rule, self.got, self.advice)


def values_of(section: Section) -> dict[str, Any]:
    """The fields of a section by name; nested sections stay sections."""
    return {name: getattr(section, name) for name in type(section).model_fields}
