from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from era_cnn.folders.outcome import read_outcome
from era_cnn.reports.columns import columns
from era_cnn.reports.rows import SEED, Row, read_rows
from tests.config.test_settings import CHANGES
from tests.reports.made import SCHEMA_1, row_of, write_run

DENSE = {f"d{number}": {"block": "conv", "out_channels": 4} for number in range(30)}
OTHER_NETWORK = {**DENSE, "logits": {"block": "conv", "out_channels": 10, "bare": True}, "gap": {"block": "gap_head"}}
ADAM = {"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"optimizer.lr": 0.02}, {"optimizer.lr": ("0.01", "0.02")}),
        ({"name": "mine", "optimizer.lr": 0.02}, {"experiment": ("model_4_digits", "mine"), "optimizer.lr": ("0.01", "0.02")}),
        ({"name": "mine"}, {"experiment": ("model_4_digits", "mine")}),
        ({"seed": 2}, {"seed": ("1", "2")}),
        ({"augmentation": {}}, {"augmentation": ("rotate", "none")}),
        ({"augmentation.rotate.degrees": 9.0}, {"augmentation.rotate.degrees": ("7", "9")}),
        ({"scheduler": {"name": "constant"}}, {"scheduler": ("step", "constant")}),
        ({"model.layers.conv1.out_channels": 6}, {"model.layers.conv1.out_channels": ("4", "6")}),
        ({"model.name": "m", "model.layers": OTHER_NETWORK}, {"model": ("model_4", "m")}),
        ({"target.test_accuracy": 0.5}, {"target.test_accuracy": ("0.93", "0.5")}),
        ({"target.test_accuracy": 0.5, "optimizer.lr": 0.02}, {"optimizer.lr": ("0.01", "0.02")}),
        ({"threads": 2}, {"threads": ("1", "2")}),
        ({"trainer.checkpoint_every_seconds": 1.0}, {"experiment": ("model_4_digits", "model_4_digits")}),
        ({}, {"experiment": ("model_4_digits", "model_4_digits")}),
    ],
)  # fmt: skip
def test_what_differs_is_shown_wherever_it_was_set(
    changes: dict[str, Any], shown: dict[str, Any], tmp_path: Path
) -> None:
    rows = [row_of(tmp_path / "one"), row_of(tmp_path / "other", changes)]
    assert columns(rows) == list(shown)
    assert [row.cells(shown) for row in rows] == list(zip(*shown.values(), strict=True))


def test_networks_of_one_name_are_told_apart(tmp_path: Path) -> None:
    rows = [row_of(tmp_path / "one"), row_of(tmp_path / "other", {"model.layers": OTHER_NETWORK})]
    assert columns(rows) == ["model.layers"]
    assert len({row.cells(["model.layers"]) for row in rows}) == 2


def test_results_of_other_data_arithmetic_or_code_are_told_apart(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"numerics": 1, "plugins": {"block.x": "a" * 64}}
    rows = [
        row_of(tmp_path / "0", provenance=plain),
        row_of(tmp_path / "1", data_sha256="f" * 64, provenance=plain),
        row_of(tmp_path / "2", provenance={**plain, "numerics": 2}),
        row_of(tmp_path / "3", provenance={**plain, "plugins": {"block.x": "b" * 64}}),
    ]
    assert columns(rows) == ["data_sha256", "numerics", "plugin block.x"]
    assert len({row.identity for row in rows}) == 4


def test_what_was_typed_comes_first_and_shows_what_was_run(tmp_path: Path) -> None:
    typed = ["optimizer.lr=2e-2", "~model.layers.skip", "sweep.retries=2", "threads=1"]
    rows = [
        row_of(tmp_path / "0", {"optimizer.lr": 0.02, "threads": 2}, *typed, number=0),
        row_of(tmp_path / "1", {"threads": 1}, "optimizer.lr=1e-2", "threads=1", number=1),
    ]
    assert columns(rows) == ["optimizer.lr", "threads"]
    assert [row.cells(["optimizer.lr", "threads"]) for row in rows] == [("0.02", "2"), ("0.01", "1")]


def test_a_job_without_a_config_is_shown_as_it_was_typed(tmp_path: Path) -> None:
    rows = [row_of(tmp_path / f"{number}", {"seed": number}, f"seed={number}", number=number) for number in (1, 2)]
    lost = Row(rows[0].outcome, None, {})
    assert columns([lost, rows[1]]) == ["seed"]
    assert lost.cells(["seed", "optimizer.lr"]) == ("1", "")
    assert columns([lost]) == ["seed"]


def test_a_run_that_has_not_begun_is_expected_on_the_device_of_the_others(tmp_path: Path) -> None:
    outcomes = [
        read_outcome(write_run(tmp_path / str(seed), {"seed": seed, "device": device}, final=None).path, seed, ())
        for seed, device in enumerate(["cpu", "auto"])
    ]
    assert columns(read_rows(outcomes)) == ["seed"]
    outcomes.append(read_outcome(write_run(tmp_path / "2", {"seed": 2, "device": "cuda"}).path, 2, ()))
    assert columns(read_rows(outcomes)) == ["device", "seed"]


def test_a_folder_of_an_earlier_version_has_a_setting(tmp_path: Path) -> None:
    (now,) = [row_of(tmp_path / "now")]
    (before,) = read_rows([read_outcome(SCHEMA_1 / "completed", None, ())])
    assert before.setting == now.setting
    assert before.result


@pytest.mark.parametrize("number", range(20))
def test_settings_look_alike_exactly_if_they_are_the_same(number: int, tmp_path: Path) -> None:
    """However many keys differ, and wherever they were set."""
    pick = random.Random(number)
    more = [("model.layers", OTHER_NETWORK), ("model.name", "m"), ("optimizer", ADAM), ("device", "auto")]
    rows = []
    for job in range(pick.randrange(2, 8)):
        changes = dict(pick.sample([*CHANGES, *more], pick.randrange(6)))
        changes = dict(sorted(changes.items(), key=lambda item: item[0].count(".")))  # a section before its keys
        try:
            final = pick.choice([0.5, 0.6, None])
            data = pick.choice(["", "", "f" * 64])
            rows.append(
                row_of(
                    tmp_path / str(job),
                    changes,
                    *pick.sample(["optimizer.lr=1", "seed=2"], 1),
                    final=final,
                    data_sha256=data,
                )
            )
        except KeyError:  # a key of a section that another change replaced
            continue
    keys = [key for key in columns(rows) if key != SEED]
    results = [row for row in rows if row.result]
    assert len({row.cells(keys) for row in rows}) >= len({row.setting and row.setting.sha256 for row in rows})
    assert len({row.cells(keys) for row in results}) >= len({row.identity for row in results})
    assert len({(row.cells(keys), row.identity) for row in results}) == len({row.cells(keys) for row in results})
