"""The errors that a user can cause, and the form of their messages.

Every message has one form: `<key> must <rule>, got <value>. <What to do.>`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

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
        return harmless(super().__str__())


class ConfigError(EraCnnError):
    """The command or the config is wrong; holds every problem that was found."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "a ConfigError needs a problem"
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """A line for each problem, without terminal commands."""
        lines = [harmless(shortened(each, MAX_LENGTH)) for each in self.problems[:MAX_PROBLEMS]]
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
        return cls(f"{path} must be written, got: {error.strerror or error}. Free some space, or check the disk.")


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


def shortened(text: str, length: int) -> str:
    """The string, cut to `length` characters if it is longer."""
    return text if len(text) <= length else text[: length - 3] + "..."


def harmless(text: str) -> str:
    """Text from outside on one line, of at most `MAX_LINE` characters.

    Line breaks, terminal commands and invisible characters are escaped.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in shortened(text, MAX_LINE))


def block(text: str) -> str:
    """Text from outside on several lines: harmless, and indented, so that none can pass for a message of ours."""
    return "\n    ".join(map(harmless, text.split("\n")))


def amount(number: int, noun: str) -> str:
    """A number with its noun in the singular or plural: 1 epoch, 7,616 parameters."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_of(names: Iterable[str]) -> str:
    """The rule `be one of a, b, c`, in the given order."""
    return "be one of " + ", ".join(names)


MAX_SUGGESTED = 3
"""The most names that are suggested at once: of more, none is likelier than the others."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Suggests the known names that are closest to `name`; `otherwise` if none is close, or too many are."""
    near = nearest(name, known)
    return f"Did you mean {' or '.join(near)}?" if 0 < len(near) <= MAX_SUGGESTED else otherwise


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that `name` is a slip of, or else those that it shortens or lengthens.

    In a dotted key each part must be close, and a name without dots may be the last part of one. A short name has no
    room for slips: `nope` and `npz` differ in half of their letters.
    """
    slips: dict[str, tuple[int, int]] = {}
    parts: list[str] = []
    for each in known:
        of_name = name.lower().split(".")
        of_each = each.lower().split(".")[-1:] if len(of_name) == 1 else each.lower().split(".")
        if len(of_name) != len(of_each):
            continue
        pairs = list(zip(of_name, of_each, strict=True))
        counts = [_slips(*pair) for pair in pairs]
        if all(count <= _tolerated(*pair) for count, pair in zip(counts, pairs, strict=True)):
            slips[each] = sum(counts), each.count(".")
        elif all(_is_part(*pair) for pair in pairs):
            parts.append(each)
    return [each for each, count in slips.items() if count == min(slips.values())] or parts


def _tolerated(one: str, other: str) -> int:
    """How many slips two words may be apart: one from three letters on, and one more for every four."""
    return (max(len(one), len(other)) + 1) // 4


def _is_part(one: str, other: str) -> bool:
    """Whether one of two words begins with the other, or has it between underscores; or they begin alike for half."""
    short, long = sorted((one, other), key=len)
    begins = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    if len(short) < 3:
        return one == other
    return begins >= min(len(short), max(3, len(long) / 2)) or short in long.split("_")


def _slips(one: str, other: str) -> int:
    """The letters to add, remove, replace or swap with their neighbour to turn one word into the other."""
    if abs(len(one) - len(other)) > _tolerated(one, other):
        return len(one) + len(other)  # no need to count: a name from outside may be very long
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one):
        row = [i + 1]
        for j, b in enumerate(other):
            costs = [last[j] + (a != b), last[j + 1] + 1, row[j] + 1]
            if i and j and (a, b) == (other[j - 1], one[i - 1]):
                costs.append(before[j - 1] + 1)
            row.append(min(costs))
        before, last = last, row
    return last[-1]
