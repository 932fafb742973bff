"""Sets plain values in the config of a sweep's jobs without OmegaConf, which takes ten times as long.

A sweep mostly sets one number or string in place of another, as in `seed=range(100)`. What OmegaConf makes of that is
known without it, as long as no interpolation refers to the value. `Template` sets such values, and refuses all others.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from era_cnn.compose.composition import plain, resolved_values, resolving, without_hydra
from era_cnn.compose.hydra_door import Composed, override_dirname
from era_cnn.errors import ConfigError

_KEY = r"\w+(?:\.\w+)*"
_OF_KEY = rf"default_threads:\$\{{{_KEY}\}}"
_UNDERSTOOD = re.compile(rf"(?:[^$\\]|\$\{{(?:{_KEY}|oc\.env:[^${{}}]*|{_OF_KEY})\}})*")
"""Text whose interpolations, if any, are `${a.key}`, `${oc.env:…}` or `${default_threads:${a.key}}`."""

_REFERENCE = re.compile(rf"\$\{{({_KEY})\}}")
_NUMBER_OR_NAME = re.compile(r"\$\{(hydra[.:]job\.num|name)\}")


@dataclass(frozen=True)
class Template:
    """A composed config in which plain values can be set.

    Attributes:
        resolved: The pickled values of a run, interpolations resolved: a copy that way takes a fifth of the time.
        unresolved: All pickled values, including those of `hydra`, with their interpolations.
        referenced: The keys that interpolations refer to.
        subdir: The folder of a job within the sweep, in which `${hydra.job.num}` and `${name}` may occur.
    """

    resolved: bytes
    unresolved: bytes
    referenced: frozenset[str]
    subdir: str

    @classmethod
    def of(cls, composed: Composed) -> Template | None:
        """The template of a config; None if it has interpolations that are not understood, or is incomplete."""
        values = plain(composed)
        hydra = values["hydra"]
        subdir, texts = hydra["sweep"]["subdir"], list(_texts({**values, "hydra": None}))
        is_understood = all(map(_UNDERSTOOD.fullmatch, texts)) and isinstance(subdir, str)
        if not is_understood or "$" in _NUMBER_OR_NAME.sub("", subdir) + str(hydra["job"]["config"]):
            return None
        try:
            with resolving(composed):
                resolved = resolved_values(without_hydra(composed))
        except ConfigError:
            return None
        referenced = frozenset(key for text in texts for key in _REFERENCE.findall(text))
        return cls(pickle.dumps(resolved), pickle.dumps(values), referenced, subdir)

    def values(self, changes: Mapping[str, Any]) -> dict[str, Any] | None:
        """The resolved values of a run in which others are set by key; None if a change is refused."""
        values = pickle.loads(self.resolved)
        return values if all(self._set(values, key, value) for key, value in changes.items()) else None

    def folder(self, number: int, name: str) -> str:
        """The folder of a job."""
        return _NUMBER_OR_NAME.sub(lambda match: name if match[1] == "name" else str(number), self.subdir)

    def with_hydra(self, number: int, overrides: Sequence[Override], changes: Mapping[str, Any]) -> dict[str, Any]:
        """All values of a job, unresolved, with what Hydra records; `values` accepted these changes."""
        values: dict[str, Any] = pickle.loads(self.unresolved)
        for key, value in changes.items():
            self._set(values, key, value)
        job = values["hydra"]["job"]
        job |= {"num": number, "id": str(number)}
        job["override_dirname"] = override_dirname(overrides, job["config"]["override_dirname"])
        values["hydra"]["overrides"]["task"] = [override.input_line for override in overrides]
        return values

    def _set(self, values: Any, key: str, value: Any) -> bool:
        """Sets a plain value in place of another, unless an interpolation refers to it; returns whether it did."""
        *above, last = key.split(".")
        for part in above:
            values = values.get(part) if isinstance(values, dict) else None
        is_referenced = any(key == each or key.startswith(f"{each}.") for each in self.referenced)
        if not isinstance(values, dict) or last not in values or is_referenced:
            return False
        if not (_is_plain(values[last]) and _is_plain(value)) or "$" in str(value) or value == "???":
            return False
        values[last] = value
        return True


def _is_plain(value: object) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _texts(values: Any) -> Iterator[str]:
    """All strings in plain values, at any depth."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict | list):
        for each in values.values() if isinstance(values, dict) else values:
            yield from _texts(each)
