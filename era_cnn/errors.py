"""The errors that a user can cause, and the form of their messages.

Every message has one form: `<key> must <rule>, got <value>. <What to do.>`
"""

from __future__ import annotations

import errno
import re
import reprlib
from collections.abc import Iterable, Sequence

MAX_PROBLEMS = 20
MAX_LENGTH = 1_000
"""The most problems in one message, and characters in each: more would flood the terminal."""

MAX_LINE = 10_000
"""The most characters in a line of any output; more than any text of our own has."""


class EraCnnError(ValueError):
    """Ends a command with one message, no traceback and its `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        """The message on one line, without terminal commands: it may quote text from outside."""
        return harmless(_with_single_stops(super().__str__()))


class ConfigError(EraCnnError):
    """The command or the config is wrong; holds every problem that was found."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "a ConfigError needs a problem"
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """A line for each problem, without terminal commands."""
        lines = [harmless(shortened(_with_single_stops(each), MAX_LENGTH)) for each in self.problems[:MAX_PROBLEMS]]
        more = len(self.problems) - MAX_PROBLEMS
        return "\n".join([*lines, f"There are {more:,} more problems."] if more > 0 else lines)


class DataError(EraCnnError):
    """The data is missing or damaged."""

    exit_code = 3


class RunFolderError(EraCnnError):
    """A run folder can't be used: it is damaged, or holds something else."""

    exit_code = 4


class TrainingError(EraCnnError):
    """The training can't continue: a loss or a weight is no longer finite."""

    exit_code = 1


class PluginError(EraCnnError):
    """The code of a plugin returns something that nobody can use, found while a run trains."""

    exit_code = 1


class ReplayError(EraCnnError):
    """A replay gave a different result from the recorded one."""

    exit_code = 1


class ExportError(EraCnnError):
    """A network can't be exported, or an exported file gives other logits."""

    exit_code = 1


class StorageError(EraCnnError):
    """A file can't be written: the disk is full, read-only or broken."""

    exit_code = 1

    @classmethod
    def of(cls, path: object, error: OSError) -> StorageError:
        """The error for a file, with the reason that the operating system gave."""
        is_refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        advice = "Check who may write there." if is_refused else "Free some space, or check the disk."
        return cls(f"{path} must be written, got: {error.strerror or error}. {advice}")


class ProcessError(EraCnnError):
    """A worker process can't be started."""

    exit_code = 1


class LauncherError(EraCnnError):
    """A launcher takes no jobs, as when the controller of a cluster is down."""

    exit_code = 1


class OutputError(EraCnnError):
    """Standard output is closed, or its disk is full."""

    exit_code = 1


class ClosedOutputError(OutputError):
    """Whoever read standard output has ended, as `head` does."""


def problem(key: str, rule: str, got: object, advice: str) -> str:
    """One problem, in the form that all messages share; see the module docstring."""
    return f"{shortened(key, 80)} must {rule}, got {show(got)}. {advice}"


def show(value: object) -> str:
    """A value as it is typed in YAML, shortened to fit on one line of a terminal."""
    words = {True: "true", False: "false", None: "null"}
    try:
        text = words[value] if value is None or isinstance(value, bool) else repr(value)
    except ValueError:  # Python refuses to print integers with more than 4,300 digits
        text = "a number with thousands of digits"
    return shortened(text, 80)


def _with_single_stops(text: str) -> str:
    """The sentences without the full stop of what they quote, if that comes right before their own."""
    return re.sub(r"(?<=[^\s./\\])\.\.(?= |$)", ".", text)


def described(value: object) -> str:
    """What code returned, on one line: tensors and arrays by their type and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)}"
    return shortened(" ".join(reprlib.repr(value).split()), 80)  # of a long list, repr would take gigabytes


def shortened(text: str, length: int) -> str:
    """The string, cut to `length` characters if it is longer."""
    return text if len(text) <= length else text[: length - 3] + "..."


def harmless(text: str) -> str:
    """Text from outside on one line, of at most `MAX_LINE` characters.

    Line breaks, terminal commands and invisible characters are escaped.
    """
    line = shortened(text, MAX_LINE)
    if line.isprintable():  # as nearly all are: this takes a hundredth of the time
        return line
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def block(text: str) -> str:
    """Text from outside on several lines: harmless, and indented, so that none can pass for a message of ours."""
    return "\n    ".join(map(harmless, text.split("\n")))


def amount(number: int, noun: str) -> str:
    """A number with its noun in the singular or plural: 1 epoch, 7,616 parameters."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_of(names: Iterable[str]) -> str:
    """The rule `be one of a, b, c`, in the given order."""
    return "be one of " + ", ".join(names)
