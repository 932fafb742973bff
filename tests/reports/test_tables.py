from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from era_cnn.folders.notes import add_note
from era_cnn.folders.outcome import Outcome
from era_cnn.reports.rows import Row, read_rows
from era_cnn.reports.tables import note
from era_cnn.reports.views import as_csv, as_html, as_markdown, as_text
from tests.reports.made import row_of


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """The jobs of a sweep over two learning rates and two seeds; the last one failed."""
    numbers: list[dict[str, Any]] = [
        {"best_test_accuracy": 0.98, "final": 0.96}, {"best_test_accuracy": 0.96, "final": 0.95},
        {"best_test_accuracy": 0.99, "final": 0.91}, {"final": None},
    ]  # fmt: skip
    return [
        row_of(
            tmp_path / f"{number}_x", {"optimizer.lr": (0.1, 0.2)[number // 2], "seed": number % 2 + 1},
            f"optimizer.lr={(0.1, 0.2)[number // 2]}", f"seed={number % 2 + 1}", number=number, **each,
        )
        for number, each in enumerate(numbers)
    ]  # fmt: skip


def test_the_table_shows_every_job_and_the_spread_of_each_setting(rows: list[Row], tmp_path: Path) -> None:
    lines = as_text(rows, tmp_path).splitlines()
    assert lines[0].split() == [
        "job", "optimizer.lr", "seed", "state", "best", "test", "final", "test", "seconds", "folder",
    ]  # fmt: skip
    assert lines[2].split() == ["0", "0.1", "1", "completed", "98.00%", "96.00%", "1.2", "0_x"]
    assert lines[5].split() == ["3", "0.2", "2", "failed", "3_x"]
    assert lines[6] == "job 3: The loss must stay finite, got nan."
    assert lines[8] == "optimizer.lr  n       without result  best test     final test    final test 95%   params"
    # t(0.975, 1) = 12.706, so the half width is 12.706 * 0.7071 / sqrt(2) = 6.35; no accuracy is above 100 %
    assert lines[10] == "0.1           2                       97.00 ± 1.41  95.50 ± 0.71  [89.15, 100.00]  1,028"
    assert lines[11] == "0.2           1 of 2  1 failed        99.00         91.00                          1,028"
    assert lines[12] == (
        "Accuracies in percent, mean ± sample standard deviation over seeds. 95%: t interval of the mean over seeds. "
        "The best test accuracy is chosen on the test set, so it is too optimistic. "
        "Seeds that failed have no accuracy, so the means without them may be too high. "
        "No best setting is chosen: the settings have different numbers of results."
    )


def test_the_best_setting_is_marked_where_there_is_one(rows: list[Row], tmp_path: Path) -> None:
    rows[3] = row_of(tmp_path / "again", {"optimizer.lr": 0.2, "seed": 2}, "optimizer.lr=0.2", number=3, final=0.9)
    text = as_text(rows, tmp_path)
    assert [line.split()[0] for line in text.splitlines() if line.endswith("best")] == ["0.1"]
    assert "chosen on the test set" in text


def test_settings_of_one_run_each_have_a_best_one_too(rows: list[Row], tmp_path: Path) -> None:
    text = as_text([rows[0], rows[2]], tmp_path)
    assert "Best setting: optimizer.lr=0.1 (job 0). The best setting has the highest mean final test accuracy" in text
    tied = row_of(tmp_path / "tied", {"optimizer.lr": 0.3}, final=0.96)
    assert "Best setting: optimizer.lr=0.1 (job 0), equal to optimizer.lr=0.3 (run tied)." in as_text(
        [rows[0], tied], tmp_path
    )


def test_the_note_says_what_n_counts(rows: list[Row], tmp_path: Path) -> None:
    again = row_of(tmp_path / "copy", {"optimizer.lr": 0.1})
    other = row_of(tmp_path / "other", {"optimizer.lr": 0.1}, machine="elsewhere")
    assert note([rows[0]]) == ""
    assert note([rows[0], again]) == "1 row repeats a result and counts once."
    assert note([rows[0], again, rows[0]]) == "2 rows repeat a result and count once."
    assert note([rows[0], other]) == (
        "Accuracies in percent, mean ± sample standard deviation over runs. 95%: t interval of the mean over runs. "
        "The best test accuracy is chosen on the test set, so it is too optimistic. "
        "n counts runs and not seeds: runs of the same setting and seed have different results."
    )


def test_the_csv_has_a_row_for_each_job(rows: list[Row], tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(rows, tmp_path))))
    assert list(lines[0]) == [
        "job", "optimizer.lr", "seed", "state", "best_val_accuracy", "final_val_accuracy", "best_test_accuracy",
        "final_test_accuracy", "best_test_epoch", "final_train_accuracy", "params", "seconds", "folder", "message",
        "tags", "note",
    ]  # fmt: skip
    assert [line["job"] for line in lines] == ["0", "1", "2", "3"]
    assert (lines[0]["best_test_accuracy"], lines[0]["params"], lines[0]["folder"]) == ("0.98", "1028", "0_x")
    assert (lines[3]["state"], lines[3]["seed"], lines[3]["best_test_accuracy"]) == ("failed", "2", "")
    assert lines[3]["message"] == "The loss must stay finite, got nan."


def test_the_page_has_both_tables(rows: list[Row], tmp_path: Path) -> None:
    page = as_markdown(rows, tmp_path, "12-00-00")
    head = "| job | optimizer.lr | seed | state | best test | final test | seconds | folder |"
    assert page.startswith(f"# 12-00-00\n\n{head}\n|")
    assert "| 0.1 | 2 |  | 97.00 ± 1.41 | 95.50 ± 0.71 | \\[89.15, 100.00\\] | 1,028 |  |" in page
    assert "- job 3: The loss must stay finite" in page


def test_a_setting_whose_seeds_all_failed_is_counted(rows: list[Row], tmp_path: Path) -> None:
    rows = [
        *rows[:2],
        *(row_of(tmp_path / f"{seed}", {"optimizer.lr": 9.0, "seed": seed}, final=None) for seed in (1, 2)),
    ]
    lines = as_text(rows, tmp_path).splitlines()
    assert [line.split() for line in lines if line.startswith("9  ") and "of" in line] == [
        ["9", "0", "of", "2", "2", "failed"]
    ]
    assert "Seeds that failed have no accuracy" in note(rows)


def test_notes_and_tags_have_columns_if_there_are_any(rows: list[Row], tmp_path: Path) -> None:
    assert "note" not in as_text(rows[1:], tmp_path).split("\n")[0]
    add_note(rows[0].outcome.folder, "<b>odd</b>\x1b[2J", ["a", "b"])
    text, page = as_text(rows, tmp_path), as_html(rows, tmp_path, "x")
    assert text.split("\n")[0].split()[-3:] == ["tags", "note", "folder"]
    assert re.search(r"  a, b  [-0-9]{10} [:0-9]{5} <b>odd</b>\\x1b\[2J  0_x$", text, re.MULTILINE)
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<b>" not in page
    line = next(csv.DictReader(io.StringIO(as_csv(rows, tmp_path))))
    assert (line["tags"], line["note"][17:]) == ("a b", r"<b>odd</b>\x1b[2J")


def test_the_note_of_a_sweep_is_shown(rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").touch()
    add_note(tmp_path, "Of all.", ["a"])
    assert re.search(r"^sweep \.: \[a\] [-0-9]{10} [:0-9]{5} Of all\.$", as_text(rows, tmp_path), re.MULTILINE)


@pytest.mark.parametrize("width", [30, 80])
def test_text_fits_the_terminal(width: int, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    whole = as_text(rows, tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = as_text(rows, tmp_path).split("\n")
    assert max(map(len, whole.split("\n"))) > 80
    assert max(map(len, lines)) <= width
    folders = {"folder", *(row.folder(tmp_path).name for row in rows)}  # the numbers of the jobs tell them
    shown, expected = ({word.strip("-") for word in text.split()} for text in (" ".join(lines), whole))
    assert shown == (expected - folders if width == 30 else expected)


def test_what_changes_no_result_is_a_column_of_jobs_alone(tmp_path: Path) -> None:
    rows = [
        row_of(tmp_path / name, {"name": name, "seed": seed}, f"experiment={name}", number=seed)
        for seed, name in enumerate("ab")
    ]
    page = as_markdown(rows, tmp_path, "x")
    assert "| job | experiment | seed | state |" in page
    assert "## Settings\n\n| n | best test |" in page


def test_few_jobs_or_none_make_tables_too(rows: list[Row], tmp_path: Path) -> None:
    planned = read_rows([Outcome(0, {"lr": "0.1"}, "planned", "", None, tmp_path / "nowhere")])
    for some in ([], planned, rows[:1], rows[3:]):
        assert "state" in as_text(some, tmp_path)
        assert as_markdown(some, tmp_path, "x").startswith("# x")
        assert as_csv(some, tmp_path).startswith("job,")


def test_text_from_folders_is_harmless_everywhere(rows: list[Row], tmp_path: Path) -> None:
    bad = '=HYPERLINK("http://x")|\n| forged | <script>alert(1)</script>\x1b[2J\r`'
    hostile = replace(
        rows[3].outcome, overrides={"experiment": bad, bad: bad}, message=bad, folder=tmp_path / bad, state=bad
    )
    hostile_rows = [*rows, Row(hostile, rows[3].setting, {}), *read_rows([hostile])]
    text, page = as_text(hostile_rows, tmp_path), as_markdown(hostile_rows, tmp_path, bad)
    table = as_csv(hostile_rows, tmp_path)
    web = re.sub("<script>.*</script>\n</body>", "", as_html(hostile_rows, tmp_path, bad), flags=re.DOTALL)  # our own
    for written in (text, page, table, web):
        assert all(line.isprintable() for line in written.split("\n"))
        assert not any(line.startswith("| forged") for line in written.split("\n"))
    assert "<script" not in page
    assert "<script" not in web
    assert (
        len(
            re.findall(
                "<(?!/?(html|head|meta|title|style|body|main|h1|h2|div|table|caption|thead|tbody|tr|th|td|p)[ >]|!DOCTYPE)",
                web,
            )
        )
        == 0
    )
    cells = [cell for line in csv.reader(io.StringIO(table)) for cell in line]
    assert not any(cell.startswith("=") for cell in cells)
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
