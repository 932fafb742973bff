"""Several runs in one report: what differs, their curves, each class, and the test images that they get wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from era_cnn.folders.outcome import read_outcome
from era_cnn.folders.run import RunFolder
from era_cnn.reports import charts, side_by_side
from era_cnn.reports.content import read_run
from era_cnn.reports.rows import read_rows
from era_cnn.reports.side_by_side import Side, curves, differences, runs_page
from tests.reports.made import SCHEMA_1, write_run
from tests.reports.test_report import HOSTILE, Tags, whole_run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts.Chart, "_saved", lambda chart, kind, **options: b"<svg/>")


def sides_of(paths: Sequence[Path]) -> list[Side]:
    rows = read_rows([read_outcome(path, None, ()) for path in paths])
    return [
        Side(f"{number}: {row.outcome.folder.name}", row, read_run(RunFolder(row.outcome.folder)))
        for number, row in enumerate(rows, start=1)
    ]


def html_of(paths: Sequence[Path]) -> str:
    sides = sides_of(paths)
    return runs_page([side.row for side in sides], paths[0].parent, sides)


def page_of(paths: Sequence[Path]) -> Tags:
    return Tags(html_of(paths))


def test_several_runs_get_a_page_in_a_new_folder(tmp_path: Path, command: Command) -> None:
    for name in ("first", "second"):
        whole_run(tmp_path / name)
    code, out, _ = command("report", "first", "second", "first", "--to", "both")
    assert (code, out.splitlines()[-1]) == (0, "Side by side: both/report.html")
    assert "2 runs side by side" in Tags(Path("both/report.html").read_text(encoding="utf-8")).text
    before = Path("both/report.html").read_bytes()
    assert command("report", "first", "second", "--to", "both")[1].endswith("Side by side: both_2/report.html\n")
    assert Path("both/report.html").read_bytes() == before
    assert command("report", "first", "second")[0] == 0
    assert len(list(Path("reports").glob("*/*/report.html"))) == 1


def test_a_page_of_one_run_lies_in_its_folder(tmp_path: Path, command: Command) -> None:
    whole_run(tmp_path / "first")
    code, out, err = command("report", "first", "first", "--to", "both")
    assert (code, out) == (2, "")
    assert err.startswith("--to must go with several runs or sweeps, got 'both'. Leave it out")
    assert not Path("both").exists()


def test_what_is_damaged_leaves_the_rest_side_by_side(tmp_path: Path, command: Command) -> None:
    for name in ("first", "second", "third"):
        whole_run(tmp_path / name)
    (tmp_path / "third" / "summary.json").write_text("[]")
    code, out, err = command("report", "first", "third", "second", "nowhere", "--to", "both")
    assert code == 4
    assert out.endswith("Side by side: both/report.html\n")
    assert "third/summary.json" in err
    assert "nowhere" in err
    page = Tags(Path("both/report.html").read_text(encoding="utf-8"))
    assert "2 of 2 runs done" in page.text
    assert command("report", "first", "third", "--to", "alone")[0] == 4
    assert not Path("alone").exists()


def test_the_keys_that_differ_stand_beside_each_other(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "other"]
    write_run(paths[0], {"optimizer.lr": 0.1, "seed": 1})
    write_run(paths[1], {"optimizer.lr": 0.2, "seed": 7, "model.layers.gap": None})
    found = {row[0]: row[1:] for row in differences(sides_of(paths))}
    assert found["optimizer.lr"] == ["0.1", "0.2"]
    assert found["seed"] == ["1", "7"]
    assert found["model.layers.gap.block"][1] == ""
    assert not {"model.layers", "trainer.epochs"} & set(found)


def test_runs_of_one_config_say_so(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name).path for name in ("one", "other")]
    assert "The configs are the same." in page_of(paths).text


def test_errors_are_counted_on_the_same_images(tmp_path: Path) -> None:
    paths = [whole_run(tmp_path / name).path for name in ("one", "other")]
    labels = np.arange(30) % 3
    predicted = labels.copy()
    predicted[[0, 7]] = (labels[[0, 7]] + 2) % 3  # image 0 is wrong in both, 7 only here
    logits = np.eye(3, dtype=np.float32)[predicted]
    RunFolder(paths[1]).write_predictions({"labels": labels, "predicted": predicted, "logits": logits})
    html = html_of(paths)
    page, cells = Tags(html), " ".join(re.sub("<[^>]*>", " ", html).split())
    assert "Of 30 test images, 7 are wrong in at least one of 2 runs, and 1 in all of them." in page.text
    assert "1: one 0 5 6 2: other 1 0 2" in cells
    assert "no. 0: cat, taken for dog or <b>bird</b>" in page.text
    assert "cat 80.00% 90.00% dog 80.00% 90.00%" in cells


def _other_labels(path: Path) -> None:
    logits = np.zeros((30, 3), np.float32)
    ones = np.ones(30, np.int64)
    RunFolder(path).write_predictions({"labels": ones, "predicted": ones, "logits": logits})


def _no_predictions(path: Path) -> None:
    (path / "predictions.npz").unlink()


@pytest.mark.parametrize("change", [_other_labels, _no_predictions])
def test_other_test_images_are_not_compared(change: Callable[[Path], None], tmp_path: Path) -> None:
    paths = [whole_run(tmp_path / name).path for name in ("one", "other")]
    assert "The same test images" in page_of(paths).text
    change(paths[1])
    assert "The same test images" not in page_of(paths).text


def test_classes_of_other_names_are_not_compared(tmp_path: Path) -> None:
    paths = [whole_run(tmp_path / "one").path, whole_run(tmp_path / "other", names=["x", "y", "z"]).path]
    assert "Each class" not in page_of(paths).text


def test_each_curve_has_a_line_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, dict[str, list[tuple[float, float]]]] = {}
    monkeypatch.setattr(charts, "lines", lambda name, alt, series, **options: drawn.update({name: series}))
    paths = [whole_run(tmp_path / "one", epochs=2).path, whole_run(tmp_path / "other").path]
    list(curves(sides_of(paths)))
    assert set(drawn) == {"test_accuracy", "train_accuracy", "test_loss", "train_loss"}
    assert {name: len(points) for name, points in drawn["test_accuracy"].items()} == {"1: one": 2, "2: other": 3}


def test_only_the_first_runs_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command) -> None:
    monkeypatch.setattr("era_cnn.reports.report.MOST_RUNS", 2)
    for number in range(3):
        write_run(tmp_path / f"run{number}", {"seed": number})
    assert command("report", "run0", "run1", "run2", "--to", "all")[0] == 0
    page = Tags(Path("all/report.html").read_text(encoding="utf-8"))
    assert "2 of 3 runs are shown here." in page.text
    assert "3 of 3 runs done" in page.text
    assert len(charts.LIGHT.series) * len(charts.DASHES) >= side_by_side.MOST_RUNS  # each line has a look of its own


@pytest.mark.parametrize("name", ["completed", "interrupted", "sweep"])
def test_folders_of_earlier_versions_stand_beside_new_ones(name: str, tmp_path: Path, command: Command) -> None:
    whole_run(tmp_path / "new")
    shutil.copytree(SCHEMA_1 / name, tmp_path / "old")
    code, _, err = command("report", "new", "old", "--to", "both")
    assert (code, err) == (0, "")
    assert Path("both/report.html").exists()


def test_a_run_that_failed_is_listed_with_its_reason(tmp_path: Path) -> None:
    paths = [whole_run(tmp_path / "one").path, write_run(tmp_path / "other", {"seed": 9}, final=None).path]
    assert "other: failed – The loss must stay finite" in page_of(paths).text


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_text(tmp_path: Path, text: str) -> None:
    paths = [whole_run(tmp_path / name, names=[text, "b", "c"]).path for name in ("one", "other")]
    for path in paths:
        RunFolder(path).write_json("status.json", {"state": "completed", "message": text})
    page = page_of(paths)
    assert len(page.all("script")) == 1
    assert not {"b", "iframe", "svg", "object"} & {tag for tag, _ in page.tags}
    addresses = [attributes.get("src") or attributes.get("srcset") or "" for _, attributes in page.tags]
    assert not [each for each in addresses if each and not each.startswith("data:image/")]
