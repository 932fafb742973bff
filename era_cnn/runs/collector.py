"""Collects values of which none is worth a failed run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class NotCollectedError(Exception):
    """A value can't be collected, for the reason in the message."""


class Collector:
    """Collects what it can, and holds in `missing` what it could not, with the reasons."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def get(self, what: str, read: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
        """The value that `read` returns; None, with an entry in `missing`, if it raises any error."""
        try:
            return read(*args, **options)
        except NotCollectedError as error:
            self.missing.append(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001 - metadata, drivers and file systems fail in many ways
            self.missing.append(f"{what}: {type(error).__name__}: {error}")
        return None
