"""Writes the reports of runs and sweeps into their folders."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

from era_cnn.errors import ConfigError, EraCnnError, RunFolderError, StorageError, problem
from era_cnn.folders.claims import claim
from era_cnn.folders.run import RunFolder, is_sweep
from era_cnn.folders.storage import write_atomically, write_shared
from era_cnn.folders.stored import run_folder
from era_cnn.output import complain, say, shown
from era_cnn.reports import pictures
from era_cnn.reports.compare import refuse, rows_of
from era_cnn.reports.content import RunContent, read_run
from era_cnn.reports.handin import analysis_in, as_markdown
from era_cnn.reports.rows import Row
from era_cnn.reports.run_report import RunCharts, filters_sheet, run_page
from era_cnn.reports.side_by_side import MOST_RUNS, Side, runs_page
from era_cnn.reports.sweep_report import sweep_page


def write_run_report(folder: RunFolder) -> Path:
    """Writes report.html, report.md and plots/ into the folder of a run; returns the path of the page.

    It needs neither the data nor torch. The analysis in a report.md that is already there is kept.

    Raises:
        RunFolderError: If a file of the run is missing or damaged.
        StorageError: If a file can't be written.
    """
    content = read_run(folder)
    path = folder.path / "report.html"
    before = folder.read("report.md", str) if os.path.lexists(folder.path / "report.md") else None
    drawn = RunCharts(content)
    write_atomically(path, run_page(content, drawn).encode())
    if before is None or analysis_in(before) is not None:
        write_atomically(folder.path / "report.md", as_markdown(content, before).encode())
    else:
        advice = "It was left as it is; remove it to have it written anew."
        complain(f"{folder.path / 'report.md'} must hold a section ## Analysis, got none. {advice}")
    plots_dir = folder.subfolder("plots")
    for name, picture in _plots(content, drawn):
        write_atomically(plots_dir / name, picture)
    return path


def try_to_report(write: Callable[[], Path], folder: Path, *, quiet: bool = False) -> None:
    """Writes a report at the end of a run or sweep, which is done without it: whatever goes wrong is only a warning.

    Args:
        write: Writes the report and returns its path.
        folder: The folder of the run or sweep.
        quiet: Whether to print nothing if all goes well.
    """
    try:
        path = write()
    except Exception as error:  # noqa: BLE001 - fonts, libraries and disks fail in many ways
        reason = (str(error) if isinstance(error, EraCnnError) else f"{type(error).__name__}: {error}").rstrip(".")
        again = f"era-cnn report {shlex.quote(str(shown(folder)))}"
        complain(f"The report must be written, got: {reason}. To try again: {again}")
        return
    if not quiet:
        say(f"Report: {shown(path)}")


def write_sweep_report(rows: Sequence[Row], sweep_dir: Path) -> Path:
    """Writes report.html into the folder of a sweep; returns its path.

    Raises:
        StorageError: If it can't be written.
    """
    path = sweep_dir / "report.html"
    write_shared(path, sweep_page(rows, sweep_dir).encode())
    return path


def write_reports(paths: Sequence[Path], to: Path | None = None) -> int:
    """Writes the report of each run or sweep; of several, also a page that shows them side by side.

    Args:
        paths: The folders of runs and sweeps.
        to: A new folder for the page of several; None for `reports/<date>/<time>`.

    Raises:
        ConfigError: If `to` is given for a single one.
        RunFolderError: If one is missing or damaged; raised after the others are written.
    """
    paths = list(dict.fromkeys(each.absolute() for each in paths))
    if to is not None and len(paths) == 1:
        advice = "Leave it out: the report of a single one is written into its folder."
        raise ConfigError([problem("--to", "go with several runs or sweeps", str(to), advice)])
    whole: list[Path] = []
    problems: list[str] = []
    for path in paths:
        try:
            say(f"Report: {shown(_written(path))}")
            whole.append(path)
        except (ConfigError, RunFolderError, StorageError) as error:
            problems.append(str(error))
    if len(whole) > 1:
        say(f"Side by side: {shown(write_runs_report(whole, to))}")
    refuse(problems)
    return 0


def write_runs_report(paths: Sequence[Path], to: Path | None = None) -> Path:
    """Writes a page that shows runs, and the jobs of sweeps, side by side; returns its path.

    Raises:
        RunFolderError: If a sweep is damaged, or the folder can't be created.
        StorageError: If the page can't be written.
    """
    rows = list({row.outcome.folder: row for path in paths for row in rows_of(path)}.values())
    base = Path(os.path.commonpath([row.outcome.folder for row in rows]))
    page = runs_page(rows, base, list(islice(_sides(rows, base), MOST_RUNS)))
    wanted = to or Path("reports") / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"
    path = claim(wanted, advice="Give another folder with --to.").path / "report.html"
    write_atomically(path, page.encode())
    return path


def _sides(rows: Sequence[Row], base: Path) -> Iterator[Side]:
    """The runs that can be read, by their numbers among all; what is wrong with the others is printed."""
    for number, row in enumerate(rows, start=1):
        try:
            yield Side(f"{number}: {row.folder(base)}", row, read_run(RunFolder(row.outcome.folder)))
        except (ConfigError, RunFolderError) as error:
            complain(str(error))


def _written(path: Path) -> Path:
    if is_sweep(path):
        return write_sweep_report(rows_of(path), path)
    return write_run_report(run_folder(path))


def _plots(content: RunContent, drawn: RunCharts) -> Iterator[tuple[str, bytes]]:
    """The files of plots/: each chart as SVG and PNG, and the images."""
    for chart in drawn:
        yield f"{chart.name}.svg", chart.svg()
        yield f"{chart.name}.png", chart.png()
    for name, key in (("augmented", "augmented"), ("errors", "error_images")):
        if key in content.samples and len(images := content.samples[key]):
            yield f"{name}.png", pictures.png(pictures.grid(images[:60], 12))
    if "filters" in content.samples:
        yield "filters.png", pictures.png(filters_sheet(content.samples["filters"]))
