"""Each contender of the benchmarks gets ready, trains a round when it is asked to, and ends; so does each part's page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.networks import NETWORKS
from benchmarks.operations import STEPS, era, plain
from benchmarks.report import DISAGREE, QUOTES, SECTIONS, _beside_plain, _figure, write_pages
from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.models.build import build_from_config, count_params

pytestmark = pytest.mark.process  # each contender is a process of its own


@pytest.mark.parametrize("name", ["era_cnn", "plain", "floor"])
def test_a_contender_trains_a_round(name: str) -> None:
    contender = benchmarks.Contender(name, model="cifar10_dilated", images=8, batch_size=4, threads=1)
    assert contender.round() > 0
    assert contender.close() > 2**20
    assert contender.process.returncode == 0


@pytest.mark.parametrize("name", ["pipeline", "step", "batches", "loader", "workers"])
def test_a_contender_of_augmentation_makes_a_round(name: str) -> None:
    contender = benchmarks.Contender("augmentation", model=name, images=8, batch_size=4, threads=1)
    assert contender.round() > 0
    contender.close()


def test_images_are_mapped_or_held_in_memory() -> None:
    found = benchmarks.large(2, count=40)
    assert found["images_per_second"].keys() == found["anonymous_bytes"].keys() == {"mapped", "memory"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_networks_are_those_of_the_experiments(name: str) -> None:
    ours = build_from_config(validated(compose(Words([f"experiment={name}"]))))
    theirs = NETWORKS[name]()
    assert sum(each.numel() for each in theirs.parameters()) == count_params(ours)
    assert sum(each.numel() for each in theirs.buffers()) == sum(each.numel() for each in ours.buffers())


def test_the_pages_are_written_from_the_record(tmp_path: Path) -> None:
    record = json.loads(Path(benchmarks.__file__).with_name("record.json").read_text(encoding="utf-8"))
    assert record.keys() <= SECTIONS.keys() == benchmarks.PARTS.keys()
    pages = ["benchmarks/README.md", *(f"docs/{name}" for name in QUOTES)]
    for page in pages:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(benchmarks.ROOT / page, tmp_path / page)
    write_pages(record, tmp_path)
    for page in pages:
        assert (tmp_path / page).read_text(encoding="utf-8") == (benchmarks.ROOT / page).read_text(encoding="utf-8")


def test_a_figure_whose_rounds_disagree_is_refused() -> None:
    assert _figure([2.0, 1.9, 2.2], ".1f") == "2.0 (1.9 to 2.2)"
    assert _figure([2.0, 1.0, 2.0 + 2 * DISAGREE], ".1f") == "refused"


def test_no_page_has_a_figure_whose_rounds_disagree(tmp_path: Path) -> None:
    """Nor its range; where all ratios disagree, no sentence and no row has any."""
    record = json.loads(Path(benchmarks.__file__).with_name("record.json").read_text(encoding="utf-8"))

    def spoilt(values: Any) -> Any:
        if isinstance(values, dict):
            return {key: spoilt(value) for key, value in values.items()}
        is_spread = isinstance(values, list) and len(values) >= 3  # a figure with its range, or its rounds
        return [[7.77, 1.11, 9.99][number % 3] for number in range(len(values))] if is_spread else values

    for page in ("benchmarks/README.md", *(f"docs/{name}" for name in QUOTES)):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(benchmarks.ROOT / page, tmp_path / page)
    seeds = record.pop("seeds")
    write_pages({part: spoilt(values) for part, values in record.items()} | {"seeds": seeds}, tmp_path)
    for path in tmp_path.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "refused" in text
        assert not re.search(r"7\.77|777|1\.11|9\.99|0\.13|0\.90", text), path


def test_a_contender_is_compared_with_the_plain_loop_round_by_round() -> None:
    contenders = {
        "plain": {"ratio": [2.0, 1.9, 2.1], "rounds": [10.0, 20.0, 30.0]},
        "compiled": {"ratio": [0.8, 0.7, 0.9], "rounds": [25.0, 50.0, 84.0]},
    }
    assert _beside_plain("compiled", contenders) == "2.50 (2.50 to 2.80)"
    del contenders["compiled"]["rounds"]
    assert _beside_plain("compiled", contenders) == "≈ 2.50"


def test_operators_are_counted() -> None:
    """The same each time, and none of those within a loader among those of a step."""
    counts = [plain("cifar10_dilated", "", 4) for _ in range(2)]
    assert counts[0] == counts[1]
    (whole, loading) = counts[0]
    assert loading["aten::convolution"] == 0 < loading.total() < whole.total()
    assert whole["aten::convolution"] == 16 * STEPS  # one for each of its convolutions
    whole, loading = era("cifar10_dilated", "", 4)
    assert whole["aten::convolution"] == 16 * STEPS
    assert 0 < loading.total() < whole.total()


def test_how_busy_a_machine_is_is_a_share() -> None:
    assert 0 <= benchmarks.busy_share(0.05) <= 1
