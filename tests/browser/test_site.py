"""The documentation, opened from disk: nothing is requested from elsewhere, and the search finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from docs import build

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def site() -> Path:
    """The built site, whose links were checked."""
    assert build.main() == 0
    return build.SITE


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["index.html", "tasks/sweep.html", "reference/transforms.html", "recipes.html"])
def test_a_page_fits_and_requests_nothing(
    name: str, width: int, scheme: str, site: Path, opened: Callable[..., Page]
) -> None:
    page = opened(site / name, width=width, scheme=scheme)
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_search_works_from_disk(site: Path, opened: Callable[..., Page]) -> None:
    page = opened(site / "tasks" / "sweep.html")
    page.keyboard.press("/")
    page.get_by_role("combobox").fill("plateau")
    found = page.get_by_role("option", name="plateau").first.get_attribute("href")
    assert found is not None
    assert "reference/schedules.html" in found


def test_a_link_to_nothing_and_a_file_from_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="here"></h1><a href="b.html"></a><a href="#there"></a><a href="#here"></a><a href="https://x.org"></a>'
        '<script src="https://x.org/y.js"></script><img src="data:image/png;base64,">',
        encoding="utf-8",
    )
    assert list(build.faults(tmp_path)) == [
        "a.html loads https://x.org/y.js",
        "a.html names b.html, which is not there",
        "a.html names #there, which has no such anchor",
    ]
