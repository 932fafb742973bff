"""The reports of runs and sweeps: clicking, sorting, screens of all kinds, and names that try to run code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from era_cnn.folders.outcome import read_outcome
from era_cnn.reports.report import write_run_report, write_runs_report, write_sweep_report
from era_cnn.reports.rows import read_rows
from tests.reports.made import write_run
from tests.reports.test_report import HOSTILE, whole_run

Opened = Callable[..., Page]


@pytest.fixture
def run_page(tmp_path: Path) -> Path:
    return write_run_report(whole_run(tmp_path / "run"))


@pytest.fixture
def sweep_page(tmp_path: Path) -> Path:
    settings = [({"optimizer.lr": lr, "seed": seed}, lr + seed / 100) for lr in (0.1, 0.02, 0.3) for seed in (1, 2)]
    for number, (changes, final) in enumerate(settings):
        write_run(tmp_path / f"{number}", changes, final=final)
    write_run(tmp_path / "failed", {"seed": 9}, final=None)
    rows = read_rows([read_outcome(path, None, ()) for path in sorted(tmp_path.iterdir())])
    return write_sweep_report(rows, tmp_path)


@pytest.fixture
def runs_page(tmp_path: Path) -> Path:
    return write_runs_report([whole_run(tmp_path / f"a_run_with_a_long_name_{number}").path for number in range(4)])


def test_a_cell_of_the_matrix_shows_its_images(run_page: Path, opened: Opened) -> None:
    page = opened(run_page)
    cell = page.locator("#cell-0-1")
    assert not cell.is_visible()
    page.click("a[href='#cell-0-1']")
    assert cell.is_visible()
    assert cell.locator("img").count() == 2
    page.click("a[href='#cell-1-2']")
    assert not cell.is_visible()


def test_a_cell_can_be_reached_by_keyboard(run_page: Path, opened: Opened) -> None:
    page = opened(run_page)
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == "#cell-0-1":
            break
    page.keyboard.press("Enter")
    assert page.locator("#cell-0-1").is_visible()


def test_a_table_is_sorted_by_number(sweep_page: Path, opened: Opened) -> None:
    page = opened(sweep_page)
    header = page.locator("section:last-of-type th", has_text="final test")
    column = page.locator("section:last-of-type table").evaluate(
        "(table) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === 'final test')"
    )

    def values() -> list[str]:
        cells = page.locator(f"section:last-of-type tbody tr td:nth-child({column + 1})")
        return [text for text in cells.all_inner_texts() if text]

    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert list(map(float, values())) == sorted(map(float, values()))
    header.locator("button").click()
    assert list(map(float, values())) == sorted(map(float, values()), reverse=True)


@pytest.mark.parametrize("width", [360, 390, 768, 1400])
@pytest.mark.parametrize("kind", ["run_page", "sweep_page", "runs_page"])
def test_no_page_is_wider_than_its_screen(
    kind: str, width: int, opened: Opened, request: pytest.FixtureRequest
) -> None:
    page = opened(request.getfixturevalue(kind), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(run_page: Path, scheme: str, opened: Opened) -> None:
    """A contrast of at least 4.5 to 1, as WCAG 2.2 asks for (success criterion 1.4.3)."""
    page = opened(run_page, scheme=scheme)
    program = """() => {
      const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => { x /= 255;
        return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$|0\\.\\d+\\)$/.test(c)) return c; } return "rgb(255, 255, 255)"; };
      return [...document.querySelectorAll("main *")].filter((e) => e.childElementCount === 0 && e.textContent.trim())
        .map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
          return [(a + 0.05) / (b + 0.05), e.tagName, e.textContent.slice(0, 30)]; })
        .filter(([ratio]) => ratio < 4.5);
    }"""
    assert page.evaluate(program) == []


def test_dark_screens_get_dark_charts(run_page: Path, opened: Opened) -> None:
    sources = [
        opened(run_page, scheme=scheme).locator("picture img").first.evaluate("(image) => image.currentSrc")
        for scheme in ("light", "dark")
    ]
    assert sources[0] != sources[1]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_run_no_code(tmp_path: Path, text: str, opened: Opened) -> None:
    folder = whole_run(tmp_path / "run", names=[text, "b", "c"])
    folder.write_json("provenance.json", {"command": ["era-cnn", text], "numerics": 1})
    page = opened(write_run_report(folder))
    assert page.locator("h1").count() == 1
    assert page.locator("script").count() == 1


def test_a_foreign_script_is_refused_by_the_policy(run_page: Path, browser, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    text = run_page.read_text(encoding="utf-8")
    changed.write_text(text.replace("<main>", "<main><script>document.title = 'taken'</script>"), encoding="utf-8")
    page = browser.new_context().new_page()
    page.goto(changed.as_uri())
    assert page.title() != "taken"
