"""The values that an override sweeps over, without Hydra's classes."""

from __future__ import annotations

from dataclasses import dataclass

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

__all__ = ["Choices", "Interval", "Override", "Range", "swept"]


@dataclass(frozen=True)
class Choices:
    """A list of values, as they are typed."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """All numbers from `start` to `end`."""

    start: float
    end: float
    is_log: bool


@dataclass(frozen=True)
class Range:
    """Numbers from `start` up to, but excluding, `stop`."""

    start: float
    stop: float
    step: float
    is_log: bool


def swept(override: Override) -> Choices | Interval | Range | None:
    """The values that an override sweeps over; None if it has one value.

    Raises:
        ValueError: If its values can't be listed.
    """
    if not override.is_sweep_override():
        return None
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return Interval(value.start, value.end, "log" in value.tags)
    if isinstance(value, RangeSweep):
        return Range(value.start or 0, value.stop or 0, value.step, "log" in value.tags)
    assert isinstance(value, ChoiceSweep)
    return Choices(tuple(override.sweep_string_iterator()))
