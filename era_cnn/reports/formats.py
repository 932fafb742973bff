"""Tables as aligned text, Markdown and CSV. Their text comes from folders, so it is made harmless for each of them."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from era_cnn import output
from era_cnn.errors import MAX_LENGTH, harmless, shortened

Table = tuple[list[str], list[list[str]]]
"""The header and the rows."""

GAP = "  "


@dataclass(frozen=True)
class Section:
    """A part of a page: a table, if there is one, and sentences about it.

    Attributes:
        labels: The number of leading columns that say what a row is about.
        are_listed: Whether the sentences are the items of a list.
    """

    title: str
    table: Table | None
    sentences: tuple[str, ...]
    labels: int = 1
    are_listed: bool = False


def plain(text: str) -> str:
    """Text for a terminal, on one line and not too long."""
    return harmless(shortened(text, MAX_LENGTH))


def aligned(table: Table, width: int | None = None, labels: int = 1) -> str:
    """A table for a terminal.

    If it is wider than `width`, its columns are continued below, each time after the first ones, which are its `labels`
    if those leave room. A single column may still be wider.
    """
    head, rows = table
    lines = [[plain(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n\n".join(
        "\n".join(GAP.join(_padded(line[column], widths[column]) for column in block).rstrip() for line in lines)
        for block in _blocks(widths, width or sum(widths) + len(GAP) * len(widths), labels)
    )


def columns_of(table: Table) -> int:
    """The width of a table for a terminal, as far as it is aligned in one piece."""
    return max(map(_width, aligned(table).split("\n")))


def _blocks(widths: Sequence[int], width: int, labels: int) -> list[list[int]]:
    """The columns that stand beside each other."""
    taken = [each + len(GAP) for each in widths]  # the last gap may stand out
    first = labels if sum(taken[:labels]) <= width / 2 else 1
    blocks = [list(range(first))]
    for column in range(first, len(widths)):
        if sum(taken[each] for each in [*blocks[-1], column]) - len(GAP) > width and len(blocks[-1]) > first:
            blocks.append(list(range(first)))
        blocks[-1].append(column)
    return blocks


def wrapped(text: str, width: int | None) -> str:
    """A sentence for a terminal, on lines that fit into it."""
    return output.wrapped(plain(text), width) if width else plain(text)


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval of fractions, in percent; empty if there is none."""
    return f"[{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]" if interval else ""


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no tags, links, formulas or other formatting, and no end of a cell."""
    text = html.escape(plain(text), quote=False)
    text = re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return re.sub(r"(?<=:)//|(?<=\bwww)\.", r"\\\g<0>", text, flags=re.IGNORECASE)


def markdown_table(table: Table) -> str:
    """A table in Markdown."""
    head, rows = table
    lines = [list(map(markdown, line)) for line in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_section(section: Section, level: int) -> str:
    """A section in Markdown, under a heading of this level."""
    said = [f"{'#' * level} {markdown(section.title)}", ""]
    if section.table:
        said += [markdown_table(section.table), ""]
    for sentence in filter(None, section.sentences):
        said += [f"- {markdown(sentence)}"] if section.are_listed else [markdown(sentence), ""]
    return "\n".join(said).rstrip() + "\n"


def csv_text(head: Iterable[object], rows: Iterable[Sequence[object]]) -> str:
    """A table in CSV; None is an empty cell. A spreadsheet takes no cell for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_csv_cell(cell) for cell in line] for line in (list(head), *rows))
    return text.getvalue()


def _csv_cell(value: object) -> object:
    """The value, after an apostrophe if it begins like a formula (OWASP, "CSV Injection") and is not a number."""
    if value is None or isinstance(value, int | float):
        return "" if value is None else value
    text = harmless(str(value))
    return f"'{text}" if re.match(r"\s*[=+\-@＝＋－＠]", text) and not re.fullmatch(_NUMBER, text) else text


_NUMBER = r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """The columns that a text takes in a terminal: East Asian characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)
