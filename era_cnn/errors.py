"""What a user can get wrong, and how it is said.

Every message has one form: `<key> must <rule>, got <value>. <What to do.>`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EraCnnError(ValueError):
    """Ends a command with one message, no traceback and its `exit_code`."""

    exit_code = 1


class ConfigError(EraCnnError):
    """The command or the config is wrong; holds every problem that was found."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "a ConfigError needs a problem"
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(EraCnnError):
    """The data is missing or damaged."""

    exit_code = 3


class RunFolderError(EraCnnError):
    """A run folder can't be used: it is damaged, or something else lies there."""

    exit_code = 4


class TrainingError(EraCnnError):
    """The training can't go on: its numbers are no longer finite."""

    exit_code = 1


def problem(key: str, rule: str, got: object, advice: str) -> str:
    """One problem, in the form that all messages share."""
    return f"{key} must {rule}, got {show(got)}. {advice}"


def show(value: object) -> str:
    """A value as it would be typed in YAML, shortened to one line that fits a terminal."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def one_of(names: Iterable[str]) -> str:
    """`be one of a, b, c`, in the order given."""
    return "be one of " + ", ".join(names)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Points to the known name that is nearest to `name`; says `otherwise` where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else otherwise
