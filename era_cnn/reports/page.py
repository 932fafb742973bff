"""Sections as a page of HTML that needs no other file, no script and no network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from era_cnn.reports.formats import Section, plain

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; padding: 0 1rem; max-width: 80rem }
div { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #8888; white-space: nowrap }
"""

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(sections: Sequence[Section]) -> str:
    """The page; the first section gives it its title. Text from folders is escaped."""
    levels = ["h1", *("h2" for _ in sections[1:])]
    body = "\n".join(_section(section, level) for section, level in zip(sections, levels, strict=True))
    return _HEAD.format(title=_text(sections[0].title), style=_STYLE, body=body)


def _section(section: Section, level: str) -> str:
    parts = [f"<{level}>{_text(section.title)}</{level}>"]
    if section.table:
        head, rows = section.table
        lines = [_line("th", head), *(_line("td", row) for row in rows)]
        parts.append("\n".join(["<div><table>", *lines, "</table></div>"]))
    parts += [f"<p>{_text(sentence)}</p>" for sentence in section.sentences if sentence]
    return "\n".join(parts)


def _line(kind: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{_text(cell)}</{kind}>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return html.escape(plain(text))
