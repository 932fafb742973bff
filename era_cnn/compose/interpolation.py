"""Limits the interpolations `${…}` of a config to other values, the time, and little else.

OmegaConf's own resolvers read any environment variable, which may hold a secret, create configs from strings, and have
no size limit: thirty values that each refer to the next one twice expand to a billion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omegaconf import Container
from omegaconf.errors import MissingMandatoryValue

from era_cnn.compose.hydra_door import Interpolations, content_of, select
from era_cnn.errors import ConfigError, problem

VARIABLES = ("ERA_CNN_DATA",)
"""Environment variables that a config may read. Their values are stored in the files of the run."""

REFUSED = ("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values")
"""OmegaConf's resolvers that create new configs from strings: the config in use would not be the one checked."""

MAX_SIZE = 10_000
"""The most values and characters that all interpolations of a config may expand to."""

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


@contextmanager
def limited() -> Iterator[None]:
    """Within the context, interpolations are limited in size and read only what a config may read.

    Elsewhere, including other threads, OmegaConf's own resolvers apply. Any code that resolves values must be within
    the context; OmegaConf resolves a value when it is accessed. A nested context has its own limit.
    """
    token = _left.set([MAX_SIZE])
    try:
        with _INTERPOLATIONS.replaced():
            yield
    finally:
        _left.reset(token)


def _is_limited() -> bool:
    return _left.get() is not None


def refusal_in(error: BaseException) -> ConfigError | None:
    """The `ConfigError` of a resolver that led to `error`: OmegaConf wraps what a resolver raises, sometimes twice."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, ConfigError):
            return each
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            pending += [each.__context__, each.__cause__]
    return None


def from_environment(name: object, key: str = "${oc.env:…}") -> str:
    """The message about a config that reads a variable it may not; names the variable, never its value."""
    advice = "Write the value itself: what a config reads is kept in the files of its run."
    return problem(key, f"read no environment variable but {', '.join(VARIABLES)}", name, advice)


def _env(name: object, *default: object) -> str | None:
    if name not in VARIABLES:
        raise ConfigError([from_environment(name)])
    if str(name) in os.environ or not default:
        return os.environ[str(name)]
    return None if default[0] is None else str(default[0])


def _default_threads(portable: object) -> int:
    """The default of `threads`: two, for the sake of speed, and one where the bits must not depend on the machine."""
    return 1 if portable is True else 2


def _select(key: str, *default: object, _parent_: Container) -> Any:
    if default and isinstance(default[0], dict | list):
        raise ConfigError(
            [problem("${oc.select:…}", "have a plain value as its default", default[0], "Give a single value.")]
        )
    return select(_parent_, key, *default)


def _refusal(name: str) -> Any:
    def refuse(*arguments: object) -> None:
        advice = "Write the value itself."
        raise ConfigError([problem(f"${{{name}:…}}", "not be used: it creates a config from a string", name, advice)])

    return refuse


def _count(value: object) -> None:
    """Subtracts the size of a resolved value from the limit."""
    left = _left.get()
    assert left is not None
    left[0] -= _size(value)
    if left[0] < 0:
        rule = f"expand to at most {MAX_SIZE:,} values and characters in all"
        raise ConfigError([f"Interpolations must {rule}, got more. Write the values themselves."])


def _size(value: object) -> int:
    content = content_of(value)
    if isinstance(content, dict):
        return 1 + sum(map(_size, content.values()))
    if isinstance(content, list):
        return 1 + sum(map(_size, content))
    return 1 + (len(content) if isinstance(content, str) else 0)


_INTERPOLATIONS = Interpolations(
    {
        "oc.env": _env,
        "oc.select": _select,
        "default_threads": _default_threads,
        **{name: _refusal(name) for name in REFUSED},
    },
    _is_limited,
    _count,
)


def unresolved(error: Exception, section: str) -> ConfigError:
    """The error of a value that is missing or can't be resolved, with its key or that of its section."""
    if refused := refusal_in(error):
        return refused
    key = getattr(error, "full_key", None) or section
    if isinstance(error, MissingMandatoryValue):
        return ConfigError([f"{key} must be given, got nothing. Give it: {key}=…"])
    return ConfigError([problem(key, "have a value", str(error).splitlines()[0], f"Give one: {key}=…")])
