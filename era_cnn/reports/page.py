"""`report.html`: one page that opens from disk, without a server, a network or a script that it does not hold itself.

Whatever comes from a folder is text that Jinja escapes. The page's policy allows only its own style and script, which
are named by their digests, and pictures within it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from era_cnn.errors import amount, harmless, shortened
from era_cnn.folders.notes import MAX_LENGTH, Notes
from era_cnn.reports import charts, pictures
from era_cnn.reports.formats import Section

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Fact:
    """A key figure: its label, its value, a note below it, and `good` or `bad` for its colour."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart in a page, for light and dark screens."""

    light: str
    dark: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An image in a page."""

    src: str
    alt: str
    caption: str = ""
    heat: str = ""
    heat_alt: str = ""


@dataclass(frozen=True)
class Head:
    """The header of a column."""

    text: str
    is_number: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `value` is what it is sorted by if that is not its text."""

    text: str
    value: str | None = None
    link: str = ""


@dataclass(frozen=True)
class Grid:
    """A table."""

    head: Sequence[Head]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Pair:
    """A row of a table of keys and values."""

    key: str
    value: str
    is_changed: bool = False


@dataclass(frozen=True)
class NotesShown:
    """Notes and tags as a page shows them.

    Attributes:
        lines: The newest ones, the newest last.
        more: What is said about those that are left out.
        damage: Why they can't be read.
    """

    tags: Sequence[str]
    lines: Sequence[str]
    more: str
    damage: str


MOST_NOTES = 20
"""The most notes that a page shows."""


def notes(found: Notes) -> NotesShown | None:
    """The notes of a run or a sweep, the newest of many; None if there are none."""
    if found == Notes():
        return None
    rest = len(found.lines) - MOST_NOTES
    more = f"Before them, notes.md has {amount(rest, 'more line')}." if rest > 0 else ""
    lines = [text(shortened(line, MAX_LENGTH)) for line in found.lines[-MOST_NOTES:]]
    tags = [text(shortened(tag, MAX_LENGTH)) for tag in found.tags[:MOST_NOTES]]
    return NotesShown(tags, lines, more, text(found.damage))


def render(template: str, **values: Any) -> str:
    """A page from one of the templates beside this module."""
    from markupsafe import Markup

    style, script = _own("page.css"), _own("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    found = _environment().get_template(template)
    return found.render(style=Markup(style), script=Markup(script), policy=policy, **values)


def page(sections: Sequence[Section]) -> str:
    """Sections of tables and sentences as a page; the first one gives it its title."""
    shown = [
        {
            "title": text(section.title),
            "grid": grid(*section.table) if section.table else None,
            "sentences": [text(sentence) for sentence in section.sentences if sentence],
        }
        for section in sections
    ]
    return render("sections.html", title=text(sections[0].title), sections=shown)


def figure(chart: charts.Chart, caption: str = "") -> Figure:
    """A chart as part of a page."""
    light, dark = (pictures.data_uri("image/svg+xml", each) for each in (chart.svg(), chart.dark_svg()))
    return Figure(light, dark, harmless(chart.alt), harmless(caption))


def text(value: object) -> str:
    """A value as one line of harmless text."""
    return harmless(value if isinstance(value, str) else str(value))


def grid(head: Iterable[str], rows: Iterable[Sequence[object]], numbers: Iterable[str] = ()) -> Grid:
    """A table of values; the columns called `numbers` are aligned to the right."""
    right = set(numbers)
    return Grid([Head(text(name), name in right) for name in head], [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Cell(f"{value:,}", str(value))
    return Cell("" if value is None else text(value))


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("era_cnn.reports", "web")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@functools.cache
def _own(name: str) -> str:
    return resources.files("era_cnn.reports").joinpath("web").joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
