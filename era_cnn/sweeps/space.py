"""The search space of a search by Optuna, read from the overrides that sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from era_cnn.compose.swept import Choices, Interval, Override, Range, swept
from era_cnn.errors import ConfigError, problem

if TYPE_CHECKING:
    import optuna


class Space:
    """The search space: maps the key of each override that sweeps to a distribution.

    `a,b,c` and `choice(…)` are categories, `range(…)` numbers in steps, `interval(…)` all numbers between two, on a
    logarithmic scale if it is tagged `log`.

    Raises:
        ConfigError: If nothing is searched, or a key has no values.
    """

    def __init__(self, overrides: Iterable[Override]) -> None:
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        self.fixed: list[str] = []
        problems = []
        for override in overrides:
            try:
                if (values := swept(override)) is None:
                    self.fixed.append(override.input_line or "")
                else:
                    self.distributions[override.get_key_element()] = _distribution(values)
            except ValueError as error:
                got = (override.input_line or "").partition("=")[2]
                reason = " ".join(str(error).split()).rstrip(".")
                problems.append(
                    problem(override.key_or_group, f"have values to choose from ({reason})", got, "Fix the range.")
                )
        if problems:
            raise ConfigError(problems)
        if not self.distributions:
            rule = "search over at least one key"
            raise ConfigError(
                [problem("hydra/sweeper=optuna", rule, "none", "Give one, as model.dropout='interval(0, 0.2)'.")]
            )

    def overrides(self, values: dict[str, Any]) -> tuple[str, ...]:
        """The overrides of a trial with these values."""
        return (*self.fixed, *(f"{name}={typed(value)}" for name, value in values.items()))

    def corners(self) -> Iterator[dict[str, Any]]:
        """The values at which configs are likeliest to be invalid: the bounds of each key, one key at a time."""
        ends = {name: _ends(distribution) for name, distribution in self.distributions.items()}
        first = {name: values[0] for name, values in ends.items()}
        yield first
        for name, values in ends.items():
            yield from ({**first, name: value} for value in values[1:])


def _distribution(values: Choices | Interval | Range) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution(list(values.values))
    if isinstance(values, Interval):
        return FloatDistribution(float(values.start), float(values.end), log=values.is_log)
    start, step = values.start, values.step
    count = math.ceil((values.stop - start) / step) if step else 0
    if count < 1 or step < 0:
        raise ValueError("an ascending range")
    last = start + (count - 1) * step
    if isinstance(start, int) and isinstance(step, int):
        return IntDistribution(start, int(last), step=step, log=values.is_log)
    return FloatDistribution(float(start), float(last), step=float(step), log=values.is_log)


def typed(value: Any) -> str:
    """A value as it is typed in an override; a float has six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def untyped(text: str, distribution: Any) -> Any:
    """The value of a typed string."""
    if hasattr(distribution, "choices"):
        return text
    return int(text) if isinstance(distribution.low, int) else float(text)


def _ends(distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    return list(choices) if choices is not None else list(dict.fromkeys([distribution.low, distribution.high]))
