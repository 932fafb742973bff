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

from omegaconf import Container, OmegaConf
from omegaconf._impl import select_value
from omegaconf._utils import _DEFAULT_MARKER_
from omegaconf.base import Node

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

    The resolvers stay for the rest of the process: OmegaConf resolves a value when it is looked at, and Hydra looks at
    a config long after it was composed. The limit on the size ends here.
    """
    OmegaConf.register_new_resolver("oc.env", _env, replace=True)
    OmegaConf.register_new_resolver("oc.select", _select, replace=True)
    for name in REFUSED:
        OmegaConf.register_new_resolver(name, _refusal(name), replace=True)
    Container.resolve_parse_tree = _counted  # type: ignore[method-assign]
    token = _left.set([MAX_SIZE])
    try:
        yield
    finally:
        _left.reset(token)


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
    return select_value(_parent_, key, absolute_key=True, default=default[0] if default else _DEFAULT_MARKER_)


def _refusal(name: str) -> Any:
    def refuse(*arguments: object) -> None:
        advice = "Write the value itself."
        raise ConfigError([problem(f"${{{name}:…}}", "not be used: it makes a config of a text", name, advice)])

    return refuse


_unlimited = Container.resolve_parse_tree


def _counted(
    self: Container, parse_tree: Any, node: Node, memo: set[int] | None = None, key: object | None = None
) -> Any:
    """OmegaConf's method behind each value with an interpolation. It has no hook, and no other place sees them all."""
    left = _left.get()
    value = _unlimited(self, parse_tree, node, memo, key)
    if left is not None:
        left[0] -= _size(value)
        if left[0] < 0:
            rule = f"come to at most {MAX_SIZE:,} values and characters in all"
            raise ConfigError([f"Interpolations must {rule}, got more. Write the values themselves."])
    return value


def _size(value: object) -> int:
    content = value._value() if isinstance(value, Node) else value
    if isinstance(content, dict):
        return 1 + sum(map(_size, content.values()))
    if isinstance(content, list):
        return 1 + sum(map(_size, content))
    return 1 + (len(content) if isinstance(content, str) else 0)
