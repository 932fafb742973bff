"""Finds the known names that a mistyped one may mean."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

MAX_SUGGESTED = 3
"""The most names that are suggested at once: of more, none is likelier than the others."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str, prefix: str = "") -> str:
    """Suggests the known names that are closest to `name`; `otherwise` if none is close, or too many are.

    Args:
        name: What was typed.
        known: The names that are possible here.
        otherwise: What to say if nothing is close.
        prefix: What to write before each of the names, such as their section.
    """
    near = nearest(name, known)
    return asked(near, prefix) if 0 < len(near) <= MAX_SUGGESTED else otherwise


def asked(names: Iterable[str], prefix: str = "") -> str:
    """Asks whether one of the names was meant."""
    return f"Did you mean {' or '.join(prefix + name for name in names)}?"


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
