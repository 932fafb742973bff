"""Labels beside the points of a chart that keep clear of each other, and of the points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT = 7.0
"""The size of labels, in points."""


@dataclass(frozen=True)
class Label:
    """The label of a point, whose bar reaches `half` above and below it."""

    text: str
    x: float
    y: float
    half: float
    colour: str


def write_beside(axes: Axes, labels: Sequence[Label]) -> None:
    """Writes labels beside their points, each where it covers the fewest points, bars and labels before it."""
    to_points = 72 / axes.figure.dpi
    at = {label: axes.transData.transform((label.x, label.y)) * to_points for label in labels}
    taken = []
    for label, (x, y) in at.items():
        half = abs(axes.transData.transform((label.x, label.y + label.half))[1] * to_points - y)
        taken.append((x - 4, y - half - 4, x + 4, y + half + 4))
    for label, (x, y) in at.items():
        width, boxes = 0.6 * FONT * len(label.text), []
        for left, up in itertools.product((False, True), (0.0, 8.0, -8.0, 16.0, -16.0)):
            start = x - 6 - width if left else x + 6
            boxes.append((left, up, (start, y + up - FONT / 2, start + width, y + up + FONT / 2)))
        left, up, box = min(boxes, key=lambda each: sum(_overlap(each[2], other) for other in taken))
        taken.append(box)
        style: dict[str, Any] = {
            "fontsize": FONT,
            "color": label.colour,
            "ha": "right" if left else "left",
            "va": "center",
        }
        offset = -6 if left else 6, up
        axes.annotate(label.text, (label.x, label.y), xytext=offset, textcoords="offset points", **style)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)
