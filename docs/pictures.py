"""Makes the pictures of the README and the pages from a real run: `make pictures`. Needs Chromium."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import era_cnn

PICTURES = Path(__file__).absolute().parent / "pictures"
WIDTH, HEIGHT = 1000, 640


def main() -> None:
    """Trains Model-4 on the embedded digits, and photographs its report."""
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, browsers), None)
    if path is None:
        sys.exit("make pictures needs Chromium. On Debian: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.chdir(folder)  # so that the report shows the path that a reader would see
        run = era_cnn.train(["experiment=model_4_digits"], quiet=True)
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto((run.path / "report.html").absolute().as_uri())
        photograph(page, "report.png")
        browser.close()


def photograph(page: Page, name: str) -> None:
    """The top of a page, as a PNG."""
    page.wait_for_load_state()
    page.screenshot(path=PICTURES / name, clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT * 2}, full_page=True)


if __name__ == "__main__":
    main()
