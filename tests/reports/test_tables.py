from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from era_cnn.folders.outcome import Outcome
from era_cnn.reports.tables import as_csv, as_markdown, as_text, criterion, groups, varied_keys

BASE = Path("/sweep")


def outcome(number: int, *overrides: str, best: float | None = None, final: float = 0.5, **more: Any) -> Outcome:
    values = dict(override.split("=") for override in overrides)
    result = None
    if best is not None:
        result = {
            "seed": int(values.get("seed", 1)), "params": 7616, "seconds": 1.25, "best_test_accuracy": best,
            "best_test_epoch": 2, "final_test_accuracy": final, "final_train_accuracy": 0.9, "best_val_accuracy": None,
            "final_val_accuracy": None, **more,
        }  # fmt: skip
    state, message = ("completed", "") if result else ("failed", "The loss must stay finite, got nan.")
    return Outcome(number, values, state, message, result, BASE / f"{number}_x")


RECORDS = [
    outcome(0, "lr=0.1", "seed=1", best=0.98, final=0.96),
    outcome(1, "lr=0.1", "seed=2", best=0.96, final=0.95),
    outcome(2, "lr=0.2", "seed=1", best=0.99, final=0.91),
    outcome(3, "lr=0.2", "seed=2"),
]


def test_a_setting_is_what_was_varied_but_for_the_seed() -> None:
    keys, found = groups(RECORDS)
    assert varied_keys(RECORDS) == ["lr", "seed"]
    assert keys == ["lr"]
    assert [(group.settings, len(group.outcomes)) for group in found] == [(("0.1",), 2), (("0.2",), 1)]
    # (98 + 96) / 2 = 97; deviations ± 1, so sd = sqrt((1 + 1) / (2 - 1)) = 1.41
    assert found[0].spread("best_test_accuracy") == "97.00 ± 1.41"
    assert found[1].spread("best_test_accuracy") == "99.00"


def test_the_table_shows_every_job_its_fate_and_the_spread_of_each_setting() -> None:
    lines = as_text(RECORDS, BASE).splitlines()
    assert lines[0].split() == ["job", "lr", "seed", "state", "best", "test", "final", "test", "seconds", "folder"]
    assert lines[2].split() == ["0", "0.1", "1", "completed", "98.00%", "96.00%", "1.2", "0_x"]
    assert lines[5].split() == ["3", "0.2", "2", "failed", "3_x"]
    assert lines[6] == "job 3: The loss must stay finite, got nan."
    assert lines[8].split() == ["lr", "n", "best", "test", "final", "test", "params"]
    assert lines[10].split() == ["0.1", "2", "97.00", "±", "1.41", "95.50", "±", "0.71", "7,616", "best"]
    assert lines[11].split() == ["0.2", "1", "99.00", "91.00", "7,616"]
    assert "chosen on the test set" in lines[12]


def test_validation_images_make_the_choice_where_there_are_any() -> None:
    outcomes = [
        outcome(0, "lr=0.1", best=0.9, final=0.9, best_val_accuracy=0.8, final_val_accuracy=0.8),
        outcome(1, "lr=0.2", best=0.8, final=0.8, best_val_accuracy=0.9, final_val_accuracy=0.9),
    ]
    assert criterion(outcomes) == "final_val_accuracy"
    text = as_text(outcomes, BASE)
    assert "Best setting: lr=0.2 (job 1)." in text
    assert "chosen on the test set" not in text
    assert criterion([*outcomes, outcome(2, "lr=0.3", best=0.9)]) == "final_test_accuracy"


def test_the_csv_has_a_row_a_job() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(RECORDS, BASE))))
    assert list(rows[0]) == [
        "job", "lr", "seed", "state", "best_val_accuracy", "final_val_accuracy", "best_test_accuracy",
        "final_test_accuracy", "best_test_epoch", "final_train_accuracy", "params", "seconds", "folder", "message",
    ]  # fmt: skip
    assert [row["job"] for row in rows] == ["0", "1", "2", "3"]
    assert (rows[0]["best_test_accuracy"], rows[0]["params"], rows[0]["folder"]) == ("0.98", "7616", "0_x")
    assert (rows[3]["state"], rows[3]["seed"], rows[3]["best_test_accuracy"]) == ("failed", "2", "")
    assert rows[3]["message"].startswith("The loss must stay finite")


def test_the_page_has_both_tables() -> None:
    page = as_markdown(RECORDS, BASE, "12-00-00")
    assert page.startswith("# 12-00-00\n\n| job | lr | seed | state | best test | final test | seconds | folder |\n|")
    assert "| 0.1 | 2 | 97.00 ± 1.41 | 95.50 ± 0.71 | 7,616 | best |" in page
    assert "- job 3: The loss must stay finite" in page


@pytest.mark.parametrize("outcomes", [[], [outcome(0, "lr=0.1")], [outcome(0, best=0.9)]])
def test_few_jobs_or_none_make_tables_too(outcomes: list[Outcome]) -> None:
    assert as_text(outcomes, BASE).startswith("job")
    assert as_markdown(outcomes, BASE, "x").startswith("# x")
    assert as_csv(outcomes, BASE).startswith("job,")
