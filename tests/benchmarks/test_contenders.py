"""Each contender of the benchmarks gets ready, trains a round when it is asked to, and ends; so does each part's page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.networks import NETWORKS
from benchmarks.report import DISAGREE, SECTIONS, _figure, write_readme
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


def test_the_page_is_written_from_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads(Path(benchmarks.__file__).with_name("record.json").read_text(encoding="utf-8"))
    assert record.keys() <= SECTIONS.keys() == benchmarks.PARTS.keys()
    monkeypatch.setattr("benchmarks.report.__file__", str(tmp_path / "report.py"))
    write_readme(record)
    kept = Path(benchmarks.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == kept


def test_a_figure_whose_rounds_disagree_is_refused() -> None:
    assert _figure([2.0, 1.9, 2.2], ".1f") == "2.0 (1.9 to 2.2)"
    assert _figure([2.0, 1.0, 2.0 + 2 * DISAGREE], ".1f") == "– (1.0 to 3.0)"


def test_how_busy_a_machine_is_is_a_share() -> None:
    assert 0 <= benchmarks.busy_share(0.05) <= 1
