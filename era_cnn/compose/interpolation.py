"""What `${…}` may stand for in a config: other values, the time, and little else.

OmegaConf's own resolvers read any variable of the environment, where secrets are, make configs out of texts, and have
no bound: thirty values, each naming the next one twice, come to a billion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omegaconf import Container

from era_cnn.compose.hydra_door import Interpolations, content_of, select
from era_cnn.errors import ConfigError, problem

VARIABLES = ("ERA_CNN_DATA",)
"""Variables of the environment that a config may read. What it reads ends in the files of the run."""

REFUSED = ("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values")
"""OmegaConf's resolvers that make new configs out of texts: what is checked would not be what is used."""

MAX_SIZE = 10_000
"""Values and characters that all interpolations of a config may come to together."""

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


@contextmanager
def limited() -> Iterator[None]:
    """Interpolations that are resolved within are few, and answered from what a config may read.

    Elsewhere, in other threads too, they are OmegaConf's own. Whatever resolves a value belongs within, and OmegaConf
    resolves a value when it is looked at. A context within a context has a limit of its own.
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
    """The refusal of an interpolation that led to `error`: OmegaConf wraps what a resolver raises, at times twice."""
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
    """The problem of a config that reads a variable that it may not, by its name; its value is nobody's business."""
    advice = "Write the value itself: what a config reads is kept in the files of its run."
    return problem(key, f"read no variable of the environment but {', '.join(VARIABLES)}", name, advice)


def _env(name: object, *default: object) -> str | None:
    if name not in VARIABLES:
        raise ConfigError([from_environment(name)])
    if str(name) in os.environ or not default:
        return os.environ[str(name)]
    return None if default[0] is None else str(default[0])


def _select(key: str, *default: object, _parent_: Container) -> Any:
    if default and isinstance(default[0], dict | list):
        raise ConfigError(
            [problem("${oc.select:…}", "have one plain value as default", default[0], "Write it as one.")]
        )
    return select(_parent_, key, *default)


def _refusal(name: str) -> Any:
    def refuse(*arguments: object) -> None:
        advice = "Write the value itself."
        raise ConfigError([problem(f"${{{name}:…}}", "not be used: it makes a config of a text", name, advice)])

    return refuse


def _count(value: object) -> None:
    """Takes what an interpolation resolved to off what is left."""
    left = _left.get()
    assert left is not None
    left[0] -= _size(value)
    if left[0] < 0:
        rule = f"come to at most {MAX_SIZE:,} values and characters in all"
        raise ConfigError([f"Interpolations must {rule}, got more. Write the values themselves."])


def _size(value: object) -> int:
    content = content_of(value)
    if isinstance(content, dict):
        return 1 + sum(map(_size, content.values()))
    if isinstance(content, list):
        return 1 + sum(map(_size, content))
    return 1 + (len(content) if isinstance(content, str) else 0)


_INTERPOLATIONS = Interpolations(
    {"oc.env": _env, "oc.select": _select, **{name: _refusal(name) for name in REFUSED}}, _is_limited, _count
)
