"""What stands in experiments/, and what README and docs/ quote from there, is what the runs gave."""

from __future__ import annotations

import csv
import json
import re
import runpy
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import era_cnn
from era_cnn.compose.composition import compose_run
from era_cnn.compose.words import Words
from era_cnn.reports.evidence import check
from era_cnn.reports.marked import blocks_in
from era_cnn.reports.record_charts import frontier
from era_cnn.reports.recorded import public_runs

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
EARLIER = sorted(EXPERIMENTS.glob("*/*seed*.json"))
"""The results of runs from before there were records."""


def pages_with_figures() -> Iterator[Path]:
    """The pages that hold figures of records, besides those of experiments/."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if blocks_in(path.read_text(encoding="utf-8")):
            yield path


@pytest.mark.slow
def test_every_claim_is_that_of_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    """`make records` fixes it. The config of each record composes to its digest, or it says that it is superseded."""
    pages = [*pages_with_figures()]
    assert ROOT / "docs" / "tasks" / "reproduce.md" in pages
    code = check([EXPERIMENTS, *pages], lambda overrides: compose_run(Words(list(overrides))))
    assert code == 0, capsys.readouterr().out


@pytest.mark.draw
def test_the_frontier_can_be_drawn_without_records() -> None:
    assert b"5,196, n = 1" in frontier({}, public_runs()).svg_on_white()


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_the_page_of_an_earlier_run_has_its_figures(path: Path) -> None:
    page = (path.parent / "README.md").read_text(encoding="utf-8")
    siblings = sorted(path.parent.glob(re.sub(r"seed\d+", "seed*", path.name)))
    finals = [json.loads(each.read_text(encoding="utf-8"))["final_test_accuracy"] for each in siblings]
    assert f"{spread(finals)}%" in page


def test_the_twenty_seeds_on_a_gpu_have_their_figures() -> None:
    rows = rows_of(EXPERIMENTS / "model_4" / "seeds_cuda.csv")
    assert len(rows) == 20
    page = (EXPERIMENTS / "model_4" / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    for which in ("best", "final"):
        values = [float(row[f"{which}_test_accuracy"]) for row in rows]
        assert f"{spread(values)}%, from {100 * min(values):.2f} to {100 * max(values):.2f}" in page


def test_the_page_of_the_search_has_the_figures_of_its_runs() -> None:
    candidates = rows_of(EXPERIMENTS / "search" / "candidates.csv")
    runs = {row["experiment"]: row for row in candidates if row["seed"] == "1"}
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    assert {row[0].strip("`") for row in rows} == runs.keys() - {"r8_smooth"}
    for name, _, *figures in rows:
        run = runs[name.strip("`")]
        loss, accuracies = (
            f"{float(run['val_loss']):.4f}",
            [f"{100 * float(run[key]):.2f}%" for key in ("val_accuracy", "train_accuracy")],
        )
        assert figures == [f"{int(run['parameters']):,}", accuracies[0], loss, accuracies[1]]


def test_the_page_of_the_search_names_each_experiment_and_those_that_were_not_trained() -> None:
    folder = EXPERIMENTS / "search"
    page = (folder / "README.md").read_text(encoding="utf-8")
    trained = {row["experiment"] for name in ("candidates", "screening") for row in rows_of(folder / f"{name}.csv")}
    trained |= {row["network"] for row in rows_of(folder / "designs.csv")}
    files = {path.stem for path in (folder / "conf" / "experiment").iterdir()}
    assert trained <= files
    assert {name for name in files if f"`{name}`" not in page} == {"r8_smooth"}
    (line,) = re.findall(r"^- Not trained to the end: (?:.*\n)(?:  .*\n)*", page, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == files - trained


def test_the_effects_on_the_page_of_the_search_are_those_of_its_runs() -> None:
    effects = runpy.run_path(str(EXPERIMENTS / "search" / "effects.py"))
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    runs = rows_of(EXPERIMENTS / "search" / "designs.csv")
    for design in effects["FACTORS"]:
        assert effects["table"](design, runs) in page


def test_the_page_of_the_search_has_the_runs_below_8000_parameters() -> None:
    rows = [row for row in rows_of(EXPERIMENTS / "search" / "designs.csv") if row["design"] == "6"]
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    pattern = r"^\| (as Model-5|more) \| `(\w+)`(: Model-5)? \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$"
    suffixes = {("max", "relu", "64"): ": Model-5", ("average", "silu", "128"): ""}
    expected = [
        (
            {"8": "as Model-5", "10": "more"}[row["degrees"]],
            row["network"],
            suffixes[row["pool"], row["activation"], row["batch_size"]],
            *(row[key] for key in ("lr", "weight_decay")),
            *(f"{float(row[key]):.4f}" for key in ("val_loss", "train_loss")),
        )
        for row in rows
    ]
    assert sorted(re.findall(pattern, page, re.MULTILINE)) == sorted(expected)


def test_each_loss_that_the_page_of_the_third_search_names_is_that_of_a_run() -> None:
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    text = page.partition("## Third search")[2].partition("## Second search")[0]
    losses = [
        float(row[key])
        for name in ("designs", "screening")
        for row in rows_of(EXPERIMENTS / "search" / f"{name}.csv")
        for key in ("val_loss", "train_loss")
    ]
    named = set(re.findall(r"\b0\.0\d{2,3}\b", text))
    assert len(named) > 30
    assert named - {f"{loss:.{digits}f}" for loss in losses for digits in (3, 4)} == set()


def test_the_figures_of_the_screening_are_those_of_its_runs() -> None:
    rows = rows_of(EXPERIMENTS / "search" / "screening.csv")
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    best = {row["seed"]: row for row in rows if row["experiment"] == "r1_wd0"}
    others = [row for row in rows if row["experiment"] != "r1_wd0" and row["seed"] == "1"]
    for key, shape in (("train_loss", "{} with seed 1 and {} with seed 2"), ("val_loss", "validation loss {} and {}")):
        assert shape.format(*(f"{float(best[seed][key]):.3f}" for seed in "12")) in page
    ranges = [sorted(f"{float(row[key]):.3f}" for row in others) for key in ("train_loss", "val_loss")]
    assert len(others) == 15
    assert "range from {} to {} ({} to {})".format(*(losses[i] for losses in ranges for i in (0, -1))) in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((EXPERIMENTS / "search" / "conf" / "experiment").iterdir()), ids=lambda path: path.stem
)
def test_what_was_searched_still_composes(path: Path) -> None:
    config = era_cnn.compose([f"experiment={path.stem}"], config_dir=EXPERIMENTS / "search" / "conf")
    assert (config.name, config.data.val_size) == (path.stem, 10_000)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation in percent, as the pages have it."""
    sd = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{sd}"
