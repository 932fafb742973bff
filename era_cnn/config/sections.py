"""What every part of the config is: a section, typed, read-only and strict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from era_cnn.errors import problem

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""What a name may be: it becomes part of a folder's name."""

Name = Annotated[str, Field(pattern=NAME, max_length=80, description="letters, digits, _, - and . only")]
Count = Annotated[int, Field(ge=1, le=2**31)]


class Section(BaseModel):
    """A part of the config: read-only, nothing unknown, nothing converted silently.

    A field with a default behaves, at that value, as if the field did not exist. It then adds nothing to the digest of
    the config. So a new field with a default changes no old digest, and configs from before it can still be read.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Choice(Section):
    """A section that names an entry of a registry; its other keys are fields of that entry."""

    name: str


@dataclass(frozen=True)
class NoEffect:
    """Marks a field that changes no result, such as a folder. It is not part of the digest of a config."""


class FieldError(ValueError):
    """A field that does not fit the others or its place; whoever catches it adds where the field is."""

    def __init__(self, field: str, rule: str, got: object, advice: str) -> None:
        super().__init__(field, rule, got, advice)
        self.field, self.rule, self.got, self.advice = field, rule, got, advice

    def at(self, key: str) -> str:
        """The message about the field of the section at `key`."""
        return problem(f"{key}.{self.field}", self.rule, self.got, self.advice)


def values_of(section: Section) -> dict[str, Any]:
    """The fields of a section by name, sections within it as they are."""
    return {name: getattr(section, name) for name in type(section).model_fields}
