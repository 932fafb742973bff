"""Builds the site: `make docs`. Fails if a page warns, links to nothing, or would load anything from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SITE = ROOT / "site"
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the theme loads for the search of pages that are opened from disk; ours is assets/file-worker.js."""


def build() -> None:
    """Generates the reference pages, builds the site into site/, and takes out what it would load from elsewhere."""
    subprocess.run([sys.executable, DOCS / "generate.py"], check=True)
    subprocess.run([Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"], check=True, cwd=ROOT)
    for path in SITE.rglob("*.html"):
        own = os.path.relpath(SITE / "assets" / "file-worker.js", path.parent)
        path.write_text(path.read_text(encoding="utf-8").replace(SHIM, own), encoding="utf-8")
    for path in SITE.rglob("*.py"):
        path.unlink()


class Page(HTMLParser):
    """The anchors, links and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects what a tag names."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.loaded.append(values.get("href", ""))
        else:
            self.loaded += [values[name] for name in ("src", "srcset", "data") if name in values and tag != "meta"]


def faults(site: Path) -> Iterator[str]:
    """Links to pages, anchors and files that are not there, and files that would be loaded from elsewhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for url in page.loaded + page.links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in page.loaded and parts.scheme != "data":
                    yield f"{path.name} loads {url}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() and path.name != "404.html":
                yield f"{path.name} names {url}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.name} names {url}, which has no such anchor"


def main() -> int:
    """Builds and checks; returns the exit code."""
    build()
    found = list(faults(SITE))
    for text in found:
        print(text, file=sys.stderr)
    pages = len(list(SITE.rglob("*.html")))
    css = [
        path.name for path in SITE.rglob("*.css") if re.search(r"url\([\"']?https?:", path.read_text(encoding="utf-8"))
    ]
    print(f"{pages} pages in {SITE.relative_to(ROOT)}/, {len(found) + len(css)} faults")
    return 1 if found or css else 0


if __name__ == "__main__":
    sys.exit(main())
