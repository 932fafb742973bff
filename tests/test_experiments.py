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
from era_cnn.folders.description import parse_description
from era_cnn.folders.record import read_record
from era_cnn.models.build import build_from_config, count_params
from era_cnn.models.summary import summarise
from era_cnn.reports.evidence import check
from era_cnn.reports.inference import t_interval, welch_t
from era_cnn.reports.marked import blocks_in
from era_cnn.reports.record_charts import frontier
from era_cnn.reports.record_page import NOT_WRITTEN
from era_cnn.reports.recorded import counted, percents, public_runs, reference_of
from era_cnn.reports.recorded import spread as record_spread
from era_cnn.reports.run_report import percent

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
    code = check([EXPERIMENTS, *pages], lambda record: compose_run(Words(list(record.overrides))))
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/record.json")), ids=lambda path: path.parent.name)
def test_the_network_of_a_record_is_the_one_that_is_built(path: Path) -> None:
    """Pages take its layers and its number of parameters from the record."""
    record = read_record(path.parent)
    network = build_from_config(record.parsed)
    summary = summarise(network, record.parsed.info.shape).to_json(record.parsed.info)
    assert parse_description(json.dumps(summary)) == record.network
    assert record.network.params == count_params(network)


@pytest.mark.draw
def test_the_frontier_can_be_drawn_without_records() -> None:
    assert b"5,196, n = 1" in frontier({}, public_runs()).svg_on_white()


SEEDS = {"model_1": 1, "model_5": 20, "model_6": 20, "model_7": 20, "model_8": 20}
"""The fewest seeds that a record must have; five for all others."""


def test_each_network_has_a_record_of_enough_seeds_and_an_analysis() -> None:
    recorded = {path.parent.name: read_record(path.parent) for path in EXPERIMENTS.glob("*/record.json")}
    networks = {path.stem for path in (ROOT / "conf" / "experiment").glob("model_*.yaml")}
    assert {*recorded} == networks - {"model_4_digits"}
    for name, record in recorded.items():
        assert (name, record.superseded) == (record.experiment, None)
        assert len(counted(record)) >= SEEDS.get(name, 5)
        assert NOT_WRITTEN not in page_of(name)


def test_what_was_aimed_at_stands_beside_what_the_records_say() -> None:
    """In experiments/README.md. The aims themselves are those of the search, and stand nowhere else."""
    pattern = r"^\| (model_\d) \| ([\d,]+) \| (\d+) \| (\S+) \| (\S+) \| (.*?%) \| (\d+) \| (.*?%) \| (\d) \|"
    rows = re.findall(pattern, page_of(""), re.MULTILINE)
    assert [row[0] for row in rows] == ["model_5", "model_6", "model_7", "model_8"]
    replaced = {row["recipe"] for row in rows_of(EXPERIMENTS / "search" / "replaced.csv")}
    for name, params, epochs, target, aim, mean, seeds, interval, judged in rows:
        record = read_record(EXPERIMENTS / name)
        wanted = record.parsed.target
        assert (params, epochs) == (f"{wanted.max_params:,}", str(wanted.max_epochs))
        assert (target, mean) == (
            percent(wanted.test_accuracy or 0.0),
            str(record_spread(record, "final_test_accuracy")),
        )
        assert target < aim
        assert int(seeds) == len(counted(record))
        assert interval == percents(t_interval(finals_of(name)) or (0.0, 0.0))
        assert int(judged) == 1 + sum(each.endswith(f" M{name[1:].replace('_', '-')}") for each in replaced)
    missed = [row[0] for row in rows if statistics.fmean(finals_of(row[0])) < float(row[4].rstrip("%")) / 100]
    assert missed == ["model_8"]
    table, _, said = page_of("").partition("## What was aimed at")[2].partition("\n\nModel-8's mean ")
    assert said.startswith("lies below its aim.")
    published = {
        figure for line in table.splitlines()[-4:] for figure in re.findall(r"\d\d\.\d\d%", line.split("|")[-2])
    }
    assert published == {percent(run.final_test_accuracy) for run in public_runs() if run.params <= 8_000}


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_the_page_of_an_earlier_run_has_its_figures(path: Path) -> None:
    results = [
        json.loads(each.read_text(encoding="utf-8"))
        for each in sorted(path.parent.glob(re.sub(r"seed\d+", "seed*", path.name)))
    ]
    page = page_of(path.parent.name).replace("\n", " ")
    assert f"{spread([each['final_test_accuracy'] for each in results])}%" in page
    if path.parent.name.startswith("model_"):
        (result,) = results
        best, final, train = (percent(result[f"{key}_accuracy"]) for key in ("best_test", "final_test", "best_train"))
        epoch = result["best_test_epoch"]
        sentence = f"Best test accuracy {best} in epoch {epoch}, final {final}; best training accuracy {train}."
        assert sentence in page.partition("**Earlier run**")[2]
        name = path.parent.name
        assert f"| [{name}]({name}/README.md) | {best} ({epoch}) | {final} | {train} |" in page_of("")


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
    lines = [line for line in page.splitlines() if line.startswith("| `") and " instead of " not in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
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
    assert {name for name in files if f"`{name}`" not in page} == set()
    (line,) = re.findall(r"^- Not trained to the end: (?:.*\n)(?:  .*\n)*", page, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == files - trained
    (smooth,) = [row for row in rows_of(folder / "candidates.csv") if row["experiment"] == "r8_smooth"]
    figures = " on validation images, ".join(percent(float(smooth[f"{key}_accuracy"])) for key in ("val", "train"))
    assert f"(`r8_smooth`: {figures} in training)" in page.replace("\n", " ")


def test_the_page_of_the_search_has_the_seeds_of_the_recipes_that_were_replaced() -> None:
    rows = rows_of(EXPERIMENTS / "search" / "replaced.csv")
    page = page_of("search")
    assert len(rows) == 57
    for recipe in (
        "first Model-5",
        "second Model-5",
        "third Model-5",
        "first Model-6",
        "first Model-7",
        "first Model-8",
    ):
        runs = [row for row in rows if row["recipe"] == recipe]
        assert [int(row["seed"]) for row in runs] == [*range(1, len(runs) + 1)]
        figures = f"{spread([float(row['final_test_accuracy']) for row in runs])}%"
        target = read_record(EXPERIMENTS / recipe.partition(" ")[2].lower().replace("-", "_")).parsed.target
        cells = [recipe, f"`{runs[0]['experiment']}`", f"{int(runs[0]['parameters']):,}", runs[0]["epochs"]]
        cells += [str(len(runs)), figures, percent(target.test_accuracy or 0.0)]
        assert f"| {' | '.join(cells)} |" in page


def test_the_page_of_the_search_has_the_runs_of_the_first_one() -> None:
    rows = rows_of(EXPERIMENTS / "search" / "runs.csv")
    table = page_of("search").partition("## First search")[2]
    assert len(rows) == 15
    for network in dict.fromkeys(row["network"] for row in rows):
        runs = [row for row in rows if row["network"] == network]
        averaged = [float(row["ema_val_accuracy"]) for row in runs if row["ema_val_accuracy"]]
        cells = [network, f"{int(runs[0]['parameters']):,}", runs[0]["epochs"], str(len(runs))]
        cells += [f"{spread([float(row['val_accuracy']) for row in runs])}%"]
        cells += [f"{spread(averaged)}%" if averaged else ""]
        cells += [percent(statistics.fmean(float(row["train_accuracy"]) for row in runs))]
        shown = " | ".join(cells).replace(
            "conv 12 16, max pool, separable 32 40 48, nearest", "the same, sampling the nearest pixel"
        )
        assert f"| {shown} |" in table


def test_the_effects_on_the_page_of_the_search_are_those_of_its_runs() -> None:
    effects = runpy.run_path(str(EXPERIMENTS / "search" / "effects.py"))
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    runs = rows_of(EXPERIMENTS / "search" / "designs.csv")
    for design in effects["FACTORS"]:
        assert effects["table"](design, runs) in page


def test_the_page_of_the_search_has_the_runs_below_8000_parameters() -> None:
    rows = [row for row in rows_of(EXPERIMENTS / "search" / "designs.csv") if row["design"] == "6"]
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    pattern = r"^\| (±8°|±10°) \| `(\w+)`(: the second Model-5)? \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$"
    suffixes = {("max", "relu", "64"): ": the second Model-5", ("average", "silu", "128"): ""}
    expected = [
        (
            f"±{row['degrees']}°",
            row["network"],
            suffixes[row["pool"], row["activation"], row["batch_size"]],
            *(row[key] for key in ("lr", "weight_decay")),
            *(f"{float(row[key]):.4f}" for key in ("val_loss", "train_loss")),
        )
        for row in rows
    ]
    assert sorted(re.findall(pattern, page, re.MULTILINE)) == sorted(expected)


def test_the_text_of_the_third_search_has_the_losses_of_the_runs_that_it_names() -> None:
    runs = {int(row["seed"]): row for row in rows_of(EXPERIMENTS / "search" / "designs.csv")}

    def losses(*seeds: int, digits: int = 3, key: str = "val_loss") -> list[str]:
        return [f"{float(runs[seed][key]):.{digits}f}" for seed in seeds]

    def of_networks(digits: int, key: str, *seeds: int) -> str:
        found = sorted(losses(*seeds, digits=digits, key=key))
        return f"{found[0]} to {found[-1]}"

    page = " ".join(page_of("search").split())
    for shape, values in (
        ("a peak of 2 was as good as 1 ({} and {})", losses(33, 34, digits=4)),
        ("a peak of 2 came to {} and one of 1 to {}", losses(32, 31, digits=4)),
        ("({}; the same with weight decay 1e-4 and another seed: {})", losses(28, 34, digits=4)),
        ("{} (`n1_sep3`) and {} (`n1_sep4`), where the plain ones had {} and {}", losses(44, 48, 52, 56)),
        ("no better than the best of design 4 ({})", losses(55)),
        ("{} with five separable convolutions (`n1_plain5`), {} with four (`n1_plain4`)", losses(57, 59)),
        ("{} with four of other widths (`n1_plain4b`)", losses(58)),
        ("{} with two before the pooling (`n1_plain_early2`), and {} with those and a peak of 0.7", losses(60, 65)),
        ("`n1_plain3` came to {} and `n1_plain4` to {}", losses(62, 63)),
        ("three and four separable convolutions ({} and {}, one run each)", losses(64, 53, digits=4)),
        ("for the lower training loss ({} and {})", losses(64, 53, key="train_loss")),
        ("differ in the seed alone came to {} and {},", losses(72, 85, digits=4)),
        ("have lower training losses ({})", [of_networks(4, "train_loss", 71, 72, 73, 76, 78, 85)]),
        ("without ({} and {}) and the second Model-5 ({})", losses(79, 80, 81, digits=4, key="train_loss")),
        ("with skips have {} with a peak of 1", [of_networks(4, "val_loss", 72, 76, 78, 85)]),
        (
            "and {} and {} with 0.5; those without, {} and {}; the second Model-5, {}",
            losses(73, 71, 79, 80, 81, digits=4),
        ),
    ):
        assert shape.format(*values) in page


def test_the_page_of_the_search_has_the_runs_that_end_without_augmentation() -> None:
    page = " ".join(page_of("search").split())
    every = rows_of(EXPERIMENTS / "search" / "endings.csv")
    rows = [row for row in every if not row["begun_from"]]
    for row in rows:
        cells = [row["seed"], f"±{row['degrees']}°", row["elastic"], row["lr"], row["weight_decay"]]
        cells += [row["unaugmented_epochs"], f"{float(row['val_loss']):.4f}", percent(float(row["val_accuracy"]))]
        cells += [f"{float(row['train_loss']):.4f}"]
        assert f"| {' | '.join(cells)} |" in page
    assert len(re.findall(r"\| \d+ \| ±\d+° \|", page)) == len(rows)
    usual = [row for row in rows if row["elastic"] == "no"]
    augmented, plain = (
        sorted(float(row["val_loss"]) for row in usual if (row["unaugmented_epochs"] == "0") == is_augmented)
        for is_augmented in (True, False)
    )
    assert (len(augmented), len(plain)) == (2, 6)
    assert f"to the end have {augmented[0]:.4f} and {augmented[1]:.4f}, and the six" in page
    assert f"have none, {plain[0]:.4f} to {plain[-1]:.4f}." in page
    gain = 1 - statistics.fmean(plain) / statistics.fmean(augmented)
    design = {row["seed"]: float(row["val_loss"]) for row in rows_of(EXPERIMENTS / "search" / "designs.csv")}
    apart = abs(design["72"] / design["85"] - 1)
    assert f"The means differ by {gain:.0%}, and two single runs of an equal recipe by {apart:.0%}" in page
    before = {row["seed"]: float(row["val_loss"]) for row in rows}
    for row in every:
        if seed := row["begun_from"]:
            assert re.search(rf"seed {seed} (went )?from {before[seed]:.4f} to {float(row['val_loss']):.4f}", page)


@pytest.mark.parametrize(
    ("one", "other", "shape"),
    [
        ("model_3", "model_4", "(95% interval {} to {} points)"),
        ("model_3_plain", "model_3", "(95% interval of the difference {} to {} points)"),
        ("model_4", "model_4_dropout25", "(95% interval {} to {})"),
        ("model_5", "third Model-5", "points better (95% interval {} to {})"),
        ("model_5", "second Model-5", "points better than the second, too (95% interval {} to {})"),
        ("model_6", "first Model-6", "points better (95% interval {} to {})"),
        ("model_7", "first Model-7", "(95% interval {} to {})"),
        ("model_8", "first Model-8", "(95% interval {} to {}, so it may be chance)"),
    ],
)
def test_the_interval_of_a_difference_is_that_of_welch(one: str, other: str, shape: str) -> None:
    replaced = [row for row in rows_of(EXPERIMENTS / "search" / "replaced.csv") if row["recipe"] == other]
    others = [float(row["final_test_accuracy"]) for row in replaced] or finals_of(other)
    interval = welch_t(finals_of(one), others).interval
    assert interval is not None
    shown = shape.format(*(f"{100 * bound:.2f}".replace("-", "−") for bound in interval))
    page = "model_4_dropout25" if other == "model_4_dropout25" else one
    assert shown in " ".join(page_of(page).split())


def test_the_reference_of_one_network_alone_has_another_gap_than_its_seeds() -> None:
    """Test minus training accuracy in the last epoch. Student's t of 4 degrees of freedom is 2.776 and 4.604."""
    distances, gaps, of_reference = {}, {}, {}
    for name in ("model_2", "model_3", "model_3_plain", "model_4", "model_4_dropout25"):
        runs = counted(record := read_record(EXPERIMENTS / name))
        assert len(runs) == 5
        gaps[name] = [100 * (run.final_test_accuracy - run.final_train_accuracy) for run in runs]
        last = reference_of(record)[-1]
        of_reference[name] = 100 * (last["test_accuracy"] - last["train_accuracy"])
        error = statistics.stdev(gaps[name]) * (1 + 1 / 5) ** 0.5
        distances[name] = (of_reference[name] - statistics.fmean(gaps[name])) / error
    odd = "model_4_dropout25"
    assert distances.pop(odd) > 4.604
    assert all(abs(distance) < 2.776 for distance in distances.values())
    mean, sd = statistics.fmean(gaps[odd]), statistics.stdev(gaps[odd])
    page = " ".join(page_of(odd).split())
    assert f"its test accuracy is {of_reference[odd]:.2f} points above its training accuracy" in page
    assert f"{mean:.2f} points on average and {max(gaps[odd]):.2f} at most" in page
    assert f"less than {mean + 4.604 * sd * (1 + 1 / 5) ** 0.5:.2f} (99% interval)" in page


def finals_of(name: str) -> list[float]:
    return [run.final_test_accuracy for run in counted(read_record(EXPERIMENTS / name))]


def test_each_loss_that_the_page_of_the_third_search_names_is_that_of_a_run() -> None:
    page = (EXPERIMENTS / "search" / "README.md").read_text(encoding="utf-8")
    text = page.partition("## Third search")[2].partition("## Second search")[0]
    losses = [
        float(row[key])
        for name in ("designs", "screening", "endings")
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
    params = count_params(build_from_config(config))
    rows = [row for name in FILES for row in rows_of(EXPERIMENTS / "search" / f"{name}.csv")]
    assert {int(row["parameters"]) for row in rows if row["experiment"] == path.stem} <= {params}


FILES = ("candidates", "screening", "replaced")


def page_of(folder: str) -> str:
    """The page of a record, or, without a name, that of all."""
    return (EXPERIMENTS / folder / "README.md").read_text(encoding="utf-8")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation in percent, as the pages have it."""
    sd = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{sd}"
