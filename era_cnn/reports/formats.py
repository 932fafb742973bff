"""Tables as aligned text, Markdown and CSV. Their text comes from folders, so it is made harmless for each of them."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from era_cnn.errors import MAX_LENGTH, harmless, shortened

Table = tuple[list[str], list[list[str]]]
"""The header and the rows."""


def plain(text: str) -> str:
    """Text for a terminal, on one line and not too long."""
    return harmless(shortened(text, MAX_LENGTH))


def aligned(table: Table) -> str:
    """A table for a terminal."""
    head, rows = table
    lines = [[plain(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(_padded, line, widths)).rstrip() for line in lines)


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
