"""Conditions as they are typed, `key=value`, on what runs are and hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from era_cnn.errors import ConfigError, problem


@dataclass(frozen=True)
class Condition:
    """A key and the value that it must have."""

    key: str
    value: str

    def __str__(self) -> str:
        """The condition as it was typed."""
        return f"{self.key}={self.value}"

    def holds(self, values: Iterable[str]) -> bool:
        """Whether one of the values is this one, as text or as a number: `1e-2` is `0.01`."""
        return any(value == self.value or _number(value) == _number(self.value) is not None for value in values)


def conditions(option: str, typed: Iterable[str]) -> list[Condition]:
    """The conditions that were typed after an option.

    Raises:
        ConfigError: If one is not of the form `key=value`.
    """
    parts = [(text, *text.partition("=")) for text in typed]
    if wrong := [text for text, key, equals, _ in parts if not (key and equals)]:
        advice = f"For example: {option} optimizer.lr=0.01."
        raise ConfigError([problem(option, "be followed by KEY=VALUE", text, advice) for text in wrong])
    return [Condition(key, value) for _, key, _, value in parts]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
