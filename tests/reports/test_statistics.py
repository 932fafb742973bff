from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from era_cnn.reports.rows import Row
from era_cnn.reports.statistics import Group, best, criterion, groups, repeats, why_no_best
from tests.reports.made import row_of

VAL = {"data.val_size": 100}


def runs(base: Path, *all_changes: dict[str, Any], **how: Any) -> list[Row]:
    """A run for each config."""
    first = len(list(base.iterdir()))
    return [row_of(base / str(number), changes, **how) for number, changes in enumerate(all_changes, start=first)]


def test_runs_that_differ_in_anything_but_the_seed_are_never_averaged(tmp_path: Path) -> None:
    """As two experiments whose YAML differs in the learning rate, which nobody typed."""
    rows = runs(tmp_path, {"optimizer.lr": 0.01}, {"optimizer.lr": 0.1}, {"optimizer.lr": 0.1, "seed": 2})
    assert [group.n for group in groups(rows)] == ["1", "2"]


def test_what_changes_no_result_makes_no_setting(tmp_path: Path) -> None:
    rows = runs(tmp_path, {"name": "a"}, {"name": "b", "seed": 2}, {"trainer.checkpoint_every_seconds": 1.0, "seed": 3})
    assert [group.n for group in groups(rows)] == ["3"]


def test_equal_results_count_once(tmp_path: Path) -> None:
    """A run that is given twice, a copy, and a job that reused a run."""
    rows = runs(tmp_path, {}, {}, {"seed": 2}, {"name": "reuse"})
    assert repeats([*rows, rows[0]]) == 3
    (group,) = groups([*rows, rows[0]])
    assert (group.n, group.spread("final_test_accuracy")) == ("2", "50.00 ± 0.00")
    (group,) = groups([rows[0], rows[0], rows[1]])
    assert (group.n, group.spread("final_test_accuracy")) == ("1", "50.00")


def test_different_results_of_one_seed_are_runs_of_their_own(tmp_path: Path) -> None:
    rows = [
        *runs(tmp_path, {}, {"seed": 2}, final=0.9), *runs(tmp_path, {}, final=0.6, machine="elsewhere"),
    ]  # fmt: skip
    (group,) = groups(rows)
    assert (group.n, group.seeds) == ("3 (2 seeds)", 2)
    # (90 + 90 + 60) / 3 = 80; sd = sqrt((100 + 100 + 400) / 2) = 17.32
    assert group.spread("final_test_accuracy") == "80.00 ± 17.32"
    assert repeats(rows) == 0


def test_seeds_without_a_result_are_counted(tmp_path: Path) -> None:
    rows = [*runs(tmp_path, {}, {"seed": 2}), *runs(tmp_path, {"seed": 2}, {"seed": 3}, final=None)]
    assert [group.n for group in groups(rows)] == ["2 of 3"]


def test_a_number_that_not_all_results_have_has_no_mean(tmp_path: Path) -> None:
    rows = runs(tmp_path, {})
    assert [group.spread("best_val_accuracy") for group in groups(rows)] == [""]


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({}, {"data.name": "mnist", "data.root": "/data", "data.train_size": None}, "the data differs"),
        ({}, {"data.train_size": 1400}, "data.train_size differs"),
        ({}, VAL, "data.val_size differs"),
        (VAL, {"data.val_size": 200}, "data.val_size differs"),
        ({}, {"trainer.limit_test_images": 50}, "trainer.limit_test_images differs"),
        ({}, {"trainer.limit_train_images": 50}, "trainer.limit_train_images differs"),
        ({}, {"trainer.limit_epochs": 1}, "trainer.limit_epochs differs"),
        ({}, {"trainer.limit_epochs": 1, "data.val_size": 100}, "data.val_size, trainer.limit_epochs differ"),
        ({}, {"optimizer.lr": 0.02}, None),
        ({}, {"trainer.epochs": 5}, None),
        ({}, {"data.mean": [0.0]}, None),
        ({}, {"model.layers.conv1.out_channels": 6}, None),
    ],
)
def test_no_best_is_chosen_where_other_things_were_measured(
    one: dict[str, Any], other: dict[str, Any], reason: str | None, tmp_path: Path
) -> None:
    found = groups(runs(tmp_path, one, other))
    assert list(why_no_best(found)) == ([reason] if reason else [])
    assert bool(best(found)) == (reason is None)


def test_no_best_is_chosen_among_results_of_other_data_of_the_same_name(tmp_path: Path) -> None:
    rows = [*runs(tmp_path, {"optimizer.lr": 0.02}), *runs(tmp_path, {}, data_sha256="f" * 64)]
    assert list(why_no_best(groups(rows))) == ["the data differs"]


def test_no_best_is_chosen_where_seeds_are_missing(tmp_path: Path) -> None:
    """A mean over the seeds that did not fail is too high."""
    rows = runs(tmp_path, {}, {"seed": 2}, {"optimizer.lr": 0.02})
    assert list(why_no_best(groups(rows))) == ["the settings have different numbers of results"]
    rows += runs(tmp_path, {"optimizer.lr": 0.02, "seed": 2}, {"seed": 3}, final=None)
    assert best(groups(rows)) == []
    rows += runs(tmp_path, {"optimizer.lr": 0.02, "seed": 2})
    assert list(why_no_best(groups(rows))) == ["some runs have no result"]


def test_settings_that_share_the_highest_mean_are_all_the_best(tmp_path: Path) -> None:
    rows = runs(tmp_path, {"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}) + runs(
        tmp_path, {"optimizer.lr": 0.3}, final=0.4
    )
    assert best(groups(rows)) == groups(rows)[:2]
    assert best(groups(rows[:1])) == []


def test_validation_images_make_the_choice_where_there_are_any(tmp_path: Path) -> None:
    rows = [
        *runs(tmp_path, {**VAL, "optimizer.lr": 0.1}, final=0.9, best_val_accuracy=0.8, final_val_accuracy=0.8),
        *runs(tmp_path, {**VAL, "optimizer.lr": 0.2}, final=0.8, best_val_accuracy=0.9, final_val_accuracy=0.9),
    ]
    found = groups(rows)
    assert criterion(found) == "final_val_accuracy"
    assert best(found) == found[1:]


@pytest.mark.parametrize("number", range(20))
def test_means_are_those_of_the_different_results_of_each_setting(number: int, tmp_path: Path) -> None:
    """However often, where and in which order runs are given."""
    pick = random.Random(number)
    accuracies: dict[tuple[float, int, str], float] = {}
    rows = []
    for index in range(9):
        lr, seed, machine = key = pick.choice([0.1, 0.2]), pick.randrange(3), pick.choice(["here", "here", "elsewhere"])
        accuracy = accuracies.setdefault(key, pick.random())
        label = {"name": pick.choice(["a", "b"])}
        changes = {"optimizer.lr": lr, "seed": seed, **label}
        rows.append(row_of(tmp_path / str(index), changes, final=accuracy, machine=machine))
    pick.shuffle(rows)
    expected = {}
    for lr in (0.1, 0.2):
        if values := [accuracy for (each, _, _), accuracy in accuracies.items() if each == lr]:
            sd = statistics.stdev(values) if len(values) > 1 else None
            expected[str(lr)] = len(values), pytest.approx(statistics.fmean(values)), sd and pytest.approx(sd, abs=1e-4)
    assert {group.rows[0].values["optimizer.lr"]: numbers(group) for group in groups(rows)} == expected
    assert repeats(rows) == len(rows) - len(accuracies)


def numbers(group: Group) -> tuple[int, float, float | None]:
    spread = group.spread("final_test_accuracy").split(" ± ")
    return len(group.rows), group.mean("final_test_accuracy"), float(spread[1]) / 100 if len(spread) > 1 else None
