"""Names to things: how a config chooses without ever holding a dotted path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping that is filled by a decorator and refuses to overwrite."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Enters what it decorates under `name`.

        Raises:
            ValueError: If the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice; rename one of the two.")

        def enter(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


def load_plugins(paths: Sequence[str]) -> None:
    """Runs files of the user's own code, which register what a config can then name."""
    if paths:
        raise NotImplementedError("--plugin")
