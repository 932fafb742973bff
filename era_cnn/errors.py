"""What a user can get wrong, and how it is said.

Every message has one form: `<key> must <rule>, got <value>. <What to do.>`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_PROBLEMS = 20
MAX_LENGTH = 1_000
"""Problems that one message says, and characters of each: more is no help, and floods the terminal."""


class EraCnnError(ValueError):
    """Ends a command with one message, no traceback and its `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        """The message, in which what a terminal would obey is written out: it quotes what was typed."""
        return "\n".join(map(_written_out, super().__str__().split("\n")))


class ConfigError(EraCnnError):
    """The command or the config is wrong; holds every problem that was found."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "a ConfigError needs a problem"
        self.problems = tuple(problems)
        said = [shortened(each.replace("\n", "\\n"), MAX_LENGTH) for each in self.problems[:MAX_PROBLEMS]]
        more = len(self.problems) - MAX_PROBLEMS
        super().__init__("\n".join([*said, f"There are {more:,} more problems."] if more > 0 else said))


class DataError(EraCnnError):
    """The data is missing or damaged."""

    exit_code = 3


class RunFolderError(EraCnnError):
    """A run folder can't be used: it is damaged, or something else lies there."""

    exit_code = 4


class TrainingError(EraCnnError):
    """The training can't go on: its numbers are no longer finite."""

    exit_code = 1


class ReplayError(EraCnnError):
    """A repetition came to something else than what was recorded."""

    exit_code = 1


class StorageError(EraCnnError):
    """A file can't be written: the disk is full, read-only or broken."""

    exit_code = 1

    @classmethod
    def of(cls, path: object, error: OSError) -> StorageError:
        """Says which file, and what the operating system said."""
        return cls(f"{path} must be written, got: {error.strerror or error}. Make room, or mend the disk.")


class ProcessError(EraCnnError):
    """A process that is needed can't be started."""

    exit_code = 1


class OutputError(EraCnnError):
    """Standard output is closed or full, so nobody can follow the run."""

    exit_code = 1


def problem(key: str, rule: str, got: object, advice: str) -> str:
    """One problem, in the form that all messages share."""
    return f"{shortened(key, 80)} must {rule}, got {show(got)}. {advice}"


def show(value: object) -> str:
    """A value as it would be typed in YAML, shortened to one line that fits a terminal."""
    words = {True: "true", False: "false", None: "null"}
    try:
        text = words[value] if value is None or isinstance(value, bool) else repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        text = "a number of thousands of digits"
    return shortened(text, 80)


def shortened(text: str, length: int) -> str:
    """A text, or its beginning if it is too long."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _written_out(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def one_of(names: Iterable[str]) -> str:
    """`be one of a, b, c`, in the order given."""
    return "be one of " + ", ".join(names)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Points to the known name that is nearest to `name`; says `otherwise` where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else otherwise
