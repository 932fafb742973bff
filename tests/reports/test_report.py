"""Reports: what stands in them, that nothing from outside can act in them, and that they never harm a run."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from era_cnn.errors import RunFolderError
from era_cnn.folders.arrays import write_arrays
from era_cnn.folders.outcome import read_outcome
from era_cnn.folders.run import RunFolder
from era_cnn.reports import charts
from era_cnn.reports.answers import MOST_IMAGES
from era_cnn.reports.content import read_run, reference_curve
from era_cnn.reports.handin import BEGIN, END, as_markdown, draft
from era_cnn.reports.report import write_run_report
from era_cnn.reports.rows import read_rows
from era_cnn.reports.run_report import RunCharts, confusion_chart, curves, filters_sheet, network_chart, run_page
from era_cnn.reports.sweep_report import sweep_charts, sweep_page
from era_cnn.training.history import EpochMetrics, Scores
from era_cnn.training.windows import Steps
from tests.reports.made import SCHEMA_1, row_of, write_run

Command = Callable[..., tuple[int, str, str]]
CLASSES = ["cat", "dog", "<b>bird</b>"]
HOSTILE = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--", "\"onload='alert(1)'", "javascript:alert(1)",
    "{{ 7 * 7 }}", "{% raw %}", "\u202egnp.exe", "\x1b[31mred", "a\u2028b", "$x^2$", "日本語 émoji 🐈",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a report, so only tests of charts draw."""
    if "draw" not in request.keywords:
        monkeypatch.setattr(charts.Chart, "_saved", lambda chart, kind, **options: b"<svg/>")


def whole_run(path: Path, *, names: list[str] = CLASSES, always: int | None = None, epochs: int = 3) -> RunFolder:
    """The folder of a run with all that a report shows: 30 images of three classes, every fifth of them wrong.

    Args:
        path: The folder.
        names: The names of the classes.
        always: The class that is always predicted; None for right answers with some errors.
        epochs: The number of epochs.
    """
    folder = write_run(path, {"data.train_size": 1437}, provenance={"command": ["era-cnn", "experiment=made"]})
    history = [
        EpochMetrics(
            epoch,
            0.1,
            1 / epoch,
            1 - 0.1 / epoch,
            2.0,
            None,
            Scores(0.5, 0.8 + 0.05 * (epoch == 2), 8, 10),
            {"order": "0"},
            steps=Steps([5, 9], [40, 30], [1.5 / epoch, 1 / epoch], [0.1, 0.1]),
        )
        for epoch in range(1, epochs + 1)
    ]
    folder.write_metrics(history, with_val=False)
    folder.write_steps(history)
    labels = np.arange(30) % 3
    predicted = np.where(np.arange(30) % 5 == 0, (labels + 1) % 3, labels) if always is None else np.full(30, always)
    logits = np.eye(3, dtype=np.float32)[predicted] * (1 + np.arange(30)[:, None] / 10).astype(np.float32)
    folder.write_predictions({"labels": labels, "predicted": predicted, "logits": logits})
    (wrong,) = np.nonzero(predicted != labels)
    images = (np.arange(len(wrong) * 5 * 7) % 256).astype(np.uint8).reshape(-1, 1, 5, 7)
    folder.write_samples({
        "augmented": np.zeros((6, 1, 5, 7), np.uint8), "augmented_labels": np.zeros(6, np.int64),
        "error_index": wrong, "error_images": images,
        "explained_index": wrong[:2], "explained_maps": np.ones((min(2, len(wrong)), 2, 3), np.float32),
        "filters": np.ones((4, 1, 3, 3), np.float32),
    })  # fmt: skip
    layers = [
        {
            "name": "conv",
            "type": "Conv2d",
            "output_shape": [4, 3, 5],
            "params": 36,
            "mult_adds": 540,
            "receptive_field": 3,
        },
        {"name": "gap", "type": "AvgPool2d", "output_shape": [4, 1, 1], "params": 0, "receptive_field": 7},
    ]
    totals = {"params": 36, "mult_adds": 540, "receptive_field": 3}
    folder.write_json("summary.json", {"image_shape": [1, 5, 7], "class_names": names, "layers": layers, **totals})
    return folder


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder: RunFolder) -> Tags:
    content = read_run(folder)
    return Tags(run_page(content, RunCharts(content)))


def test_a_report_has_the_numbers_of_the_run(tmp_path: Path) -> None:
    page = page_of(whole_run(tmp_path / "run"))
    for expected in ("50.00%", "1,028", "6 of 30 test images are wrong", "era-cnn experiment=made", "era-cnn replay"):
        assert expected in page.text
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for attributes in page.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(image.get("alt") for image in page.all("img"))


def test_a_report_has_the_recipe_at_a_glance(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    content = read_run(folder)
    images = "640 of 1,437 training + 100 of 360 test images"
    assert content.recipe["Data"] == f"digits, {images} of 1×28×28 in 10 classes"
    assert list(content.recipe) == ["Data", "Augmentation", "Optimizer", "Schedule", "Training"]
    page = page_of(folder)
    assert all(values in page.text for values in content.recipe.values())
    _changed(folder.path / "config.yaml", "name: digits", "name: unheard_of")
    assert read_run(folder).recipe == {}
    assert "Optimizer" not in page_of(folder).text


COMPOSED = """hydra:
  job: {num: null}
  overrides: {task: [experiment=mine, +optimizer@_here_=sgd, trainer.epochs=6, "~model.layers.gone"]}
  runtime:
    config_sources: [{path: /my/<i>conf, provider: command-line}, {path: era_cnn.conf, provider: main}]
"""


def test_what_differs_from_the_experiment_is_marked(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    assert "does not record what was typed" in page_of(folder).text
    (folder.path / ".hydra" / "hydra.yaml").write_text(COMPOSED, encoding="utf-8")
    page = page_of(folder)
    for said in (
        "experiment=mine +optimizer@_here_=sgd",
        "Config files in /my/<i>conf took part",
        "A dot marks what was",
    ):
        assert said in page.text
    marked = re.findall(r"^(\S+) •", page.text, flags=re.MULTILINE)
    assert {key.partition(".")[0] for key in marked} == {"optimizer", "trainer"}
    assert {"optimizer.lr", "trainer.epochs"} <= set(marked)
    assert "trainer.batch_size" not in marked
    text = COMPOSED.replace("experiment=mine", "").replace("+optimizer@_here_=sgd, trainer.epochs=6, ", "")
    (folder.path / ".hydra" / "hydra.yaml").write_text(text.replace('[, "~model.layers.gone"]', "[]"), encoding="utf-8")
    assert "Nothing was typed" in page_of(folder).text


def test_a_report_has_the_notes_of_the_run(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    assert "Tags" not in run_page(read_run(folder), RunCharts(read_run(folder)))
    lines = "".join(f"- 2026-11-26 11:31 note {number}\n" for number in range(30))
    (folder.path / "notes.md").write_text(f"Tags: good, <b>x</b>\n\n{lines}- <script>alert(1)</script> a*b\n", "utf-8")
    page, text = page_of(folder), as_markdown(read_run(folder))
    for said in ("<b>x</b>", "note 29", "<script>alert(1)</script> a*b", "Before them, notes.md has 11 more lines."):
        assert said in page.text
        assert said in text or "<" in said
    assert "note 10" not in page.text
    assert "Tags: good, &lt;b&gt;x&lt;/b&gt;\n\n- 2026-11-26 11:31 note 11\n" in text
    assert "- &lt;script&gt;alert(1)&lt;/script&gt; a\\*b\n\nBefore" in text
    (folder.path / "notes.md").write_bytes(b"\xff")
    said = "notes.md must be a text file, got: bytes that are not UTF-8."
    assert said in page_of(folder).text
    assert said in as_markdown(read_run(folder))


def test_a_report_requests_nothing(tmp_path: Path) -> None:
    page = page_of(whole_run(tmp_path / "run"))
    addresses = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "action", "data", "poster")
    ]
    assert len(addresses) > 10
    assert [each for each in addresses if not each.startswith(("data:image/", "#"))] == []
    assert not [name for _, attributes in page.tags for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.draw
@pytest.mark.parametrize("always", [0, 1, 2])
def test_the_picture_of_the_confusion_matrix_has_the_same_column(tmp_path: Path, always: int) -> None:
    from matplotlib.figure import Figure

    (chart,) = confusion_chart(read_run(whole_run(tmp_path / "run", always=always)))
    chart.draw(figure := Figure())
    axes = figure.axes[0]
    shares = np.asarray(axes.images[0].get_array())
    assert shares[:, always].tolist() == [1, 1, 1]
    assert shares.sum() == 3
    assert {each.get_position()[0] for each in axes.texts} == {always}  # (x, y): the column
    assert axes.images[0].get_clim() == (0, 1)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert axes.get_title() == "30 test images, final weights"


def test_many_classes_have_no_picture_of_their_matrix(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    labels = np.arange(31)
    folder.write_predictions({"labels": labels, "predicted": labels, "logits": np.eye(31, dtype=np.float32)})
    (folder.path / "samples.npz").unlink()
    assert list(confusion_chart(read_run(folder))) == []


def test_the_filters_of_colour_images_are_in_colour() -> None:
    red = np.zeros((17, 3, 2, 2), np.float32)
    red[:, 0] = 0.5
    sheet = filters_sheet(red)
    assert sheet.shape == (3, 50, 470)  # two rows, each weight 10 pixels high
    assert sheet[:, 0, 0].tolist() == [255, 128, 128]
    grey = filters_sheet(-red[:, :2])  # of other numbers of channels, their mean
    assert grey.shape == (1, 50, 470)
    assert grey[:, 0, 0].tolist() == [0]
    assert filters_sheet(np.zeros((1, 1, 2, 2), np.float32)).tolist() == np.full((1, 20, 20), 128).tolist()


def test_the_commonest_errors_of_many_classes_stand_in_place_of_a_matrix(tmp_path: Path) -> None:
    folder, size = whole_run(tmp_path / "run", names=[f"class {number}" for number in range(40)]), 40
    labels = np.repeat(np.arange(size), 3)
    predicted = np.where(labels == 7, 9, labels)
    predicted[:2] = [1, 2]
    folder.write_predictions({"labels": labels, "predicted": predicted, "logits": np.eye(size)[predicted]})
    folder.write_samples({"error_index": np.array([21, 22]), "error_images": np.zeros((2, 1, 5, 7), np.uint8)})
    content = read_run(folder)
    page = page_of(folder)
    assert content.predictions is not None
    assert content.predictions.errors() == [(7, 9, 3), (0, 1, 1), (0, 2, 1)]
    assert [link["href"] for link in page.all("a") if str(link["href"]).startswith("#cell")] == [
        "#cell-7-9", "#cell-0-1", "#cell-0-2"
    ]  # fmt: skip
    assert "class 7 taken for class 9 (3)" in " ".join(str(each.get("aria-label")) for each in page.all("section"))
    assert "1 more image is not shown" in page.text
    assert not any(table.get("class") == "confusion" for table in page.all("table"))


@pytest.mark.parametrize("always", [None, 1])
def test_the_counts_of_each_class_are_those_of_the_matrix(tmp_path: Path, always: int | None) -> None:
    found = read_run(whole_run(tmp_path / "run", always=always)).predictions
    assert found is not None
    counts = found.confusion
    assert found.by_class.T.tolist() == [counts.sum(1).tolist(), counts.sum(0).tolist(), counts.diagonal().tolist()]


def test_a_network_of_very_many_layers_is_not_drawn(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    assert network_chart(read_run(folder))
    values = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    folder.write_json("summary.json", {**values, "layers": values["layers"] * 251})
    assert network_chart(read_run(folder)) is None
    assert "Height: pixels" not in page_of(folder).text


@pytest.mark.parametrize("always", [0, 1, 2])
def test_one_answer_for_everything_fills_one_column(tmp_path: Path, always: int) -> None:
    content = read_run(whole_run(tmp_path / "run", always=always))
    assert content.predictions is not None
    counts = content.predictions.confusion
    assert counts[:, always].tolist() == [10, 10, 10]
    assert counts.sum() == 30
    links = {link["href"] for link in Tags(run_page(content, RunCharts(content))).all("a")}
    assert {f"#cell-{label}-{always}" for label in range(3) if label != always} <= links
    assert f"#cell-{always}-{(always + 1) % 3}" not in links


def test_at_most_twelve_images_of_a_cell_are_shown(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    labels, predicted = np.zeros(40, np.int64), np.ones(40, np.int64)
    logits = np.tile(np.array([0, 1, 0], np.float32), (40, 1))
    folder.write_predictions({"labels": labels, "predicted": predicted, "logits": logits})
    folder.write_samples({"error_index": np.arange(40), "error_images": np.zeros((40, 1, 5, 7), np.uint8)})
    page = page_of(folder)
    assert "28 more images are not shown" in page.text
    assert len(page.all("img")) < 40


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_text(tmp_path: Path, text: str) -> None:
    folder = whole_run(tmp_path / "run", names=[text, "b", "c"])
    provenance = {"command": ["era-cnn", text], "code": {"git": {"branch": text}}, "numerics": 1}
    folder.write_json("provenance.json", provenance)
    folder.write_json("status.json", {"state": "failed", "message": text})
    page = page_of(folder)
    assert len(page.all("script")) == 1
    assert not {"b", "iframe", "svg", "object"} & {tag for tag, _ in page.tags}
    assert "49" not in re.findall(r"\d+", page.text) or "{{" not in text
    markdown = as_markdown(read_run(folder))
    assert not re.search(r"<(?!!--)", markdown)


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("predictions.npz", "predictions.npz"),
        ("samples.npz", "samples.npz"),
        ("summary.json", "summary.json"),
        ("provenance.json", "provenance.json"),
    ],
)
def test_what_a_folder_lacks_is_said(tmp_path: Path, missing: str, what: str) -> None:
    folder = whole_run(tmp_path / "run")
    (folder.path / missing).unlink()
    assert f"The folder does not have: {what}" in page_of(folder).text
    assert as_markdown(read_run(folder))


@pytest.mark.parametrize("name", ["completed", "interrupted", "sweep/0_model_4_digits"])
def test_folders_of_earlier_versions_have_reports(name: str) -> None:
    content = read_run(RunFolder(SCHEMA_1 / name))
    assert {"samples.npz", "steps.csv"} <= set(content.missing)
    assert Tags(run_page(content, RunCharts(content))).text


def test_the_loss_within_epochs_lies_behind_its_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(
        charts, "lines", lambda name, alt, series, **options: drawn.update({name: {"alt": alt, **options}})
    )
    folder = whole_run(tmp_path / "run", epochs=2)
    list(curves(read_run(folder)))
    assert drawn["loss"]["faint"] == {"train, within epochs": [(5 / 9, 1.5), (1.0, 1.0), (1 + 5 / 9, 0.75), (2.0, 0.5)]}
    assert "within epochs" in drawn["loss"]["alt"]
    (folder.path / "steps.csv").unlink()
    list(curves(read_run(folder)))
    assert drawn["loss"]["faint"] == {}
    assert "within epochs" not in drawn["loss"]["alt"]


def test_a_run_that_failed_has_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", final=None)
    page = page_of(folder)
    assert "This run is not complete: failed after 0 of" in page.text
    assert "The loss must stay finite" in page.text
    assert "era-cnn resume" in page.text


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("predictions.npz", lambda path: path.write_bytes(b"PK\x03\x04 no archive")),
        ("predictions.npz", lambda path: write_arrays(path, {"labels": np.zeros(3, np.int64)})),
        ("predictions.npz", lambda path: write_arrays(path, _predictions(labels=np.array([0, 3])))),
        ("predictions.npz", lambda path: write_arrays(path, _predictions(predicted=np.array([-1, 0])))),
        ("predictions.npz", lambda path: write_arrays(path, _predictions(logits=np.full((2, 3), np.nan)))),
        ("predictions.npz", lambda path: np.savez(path, **_predictions(labels=np.array([None, {}], object)))),
        ("samples.npz", lambda path: write_arrays(path, {"error_images": np.zeros((2, 5, 7), np.uint8)})),
        ("samples.npz", lambda path: _with_samples(path, error_index=np.full(6, 30))),
        ("samples.npz", lambda path: _with_samples(path, error_index=np.full(6, -1))),
        ("samples.npz", lambda path: _with_samples(path, error_images=np.zeros((5, 1, 5, 7), np.uint8))),
        ("samples.npz", lambda path: _with_samples(path, error_images=np.zeros((6, 1, 0, 7), np.uint8))),
        ("samples.npz", lambda path: _with_samples(path, error_images=np.zeros((6, 0, 5, 7), np.uint8))),
        ("samples.npz", lambda path: _with_samples(path, error_images=np.zeros((6, 1, 5, 7), np.uint32))),
        ("samples.npz", lambda path: _with_samples(path, error_images=np.zeros((6, 1, 5, 97), np.uint8))),
        ("samples.npz", lambda path: _with_samples(path, error_images=None)),
        ("samples.npz", lambda path: _with_samples(path, augmented=np.zeros((0, 1, 5, 7), np.uint8))),
        ("samples.npz", lambda path: _with_samples(path, filters=np.zeros((0, 1, 3, 3), np.float32))),
        ("samples.npz", lambda path: _with_samples(path, explained_maps=np.full((2, 2, 3), np.nan, np.float32))),
        ("samples.npz", lambda path: _with_samples(path, explained_maps=np.ones((1, 2, 3), np.float32))),
        ("samples.npz", lambda path: _with_samples(path, augmented=np.zeros((MOST_IMAGES + 1, 1, 5, 7), np.uint8))),
        ("samples.npz", lambda path: _with_samples(path, filters=np.ones((MOST_IMAGES + 1, 1, 3, 3), np.float32))),
        ("samples.npz", lambda path: _with_samples(path, filters=np.full((4, 1, 3, 3), np.nan, np.float32))),
        ("predictions.npz", lambda path: write_arrays(path, _predictions(logits=np.zeros((2, 2**16 + 1), np.float16)))),
        ("provenance.json", lambda path: path.write_text('{"command": 5}')),
        ("provenance.json", lambda path: path.write_text('{"command": [1]}')),
        ("config.yaml", lambda path: path.write_text("schema: 99\n")),
        ("config.yaml", lambda path: _changed(path, "data:\n", "data: 5\nelse:\n")),
        ("config.yaml", lambda path: _with_unknown_plugin(path, ("trainer:\n", "trainer: 5\nelse:\n"))),
        ("config.yaml", lambda path: _with_unknown_plugin(path, ("target:\n", "target: 5\nelse:\n"))),
        ("summary.json", lambda path: path.write_text("{}")),
        ("summary.json", lambda path: path.write_text('{"layers": ' + "[" * 50_000)),
        ("summary.json", lambda path: path.write_text(json.dumps({"image_shape": [1, "a", 2]}))),
        ("metrics.csv", lambda path: path.write_text("epoch\n1\n")),
        ("steps.csv", lambda path: path.write_text("epoch,step,images,loss,lr\n1,1,1,nan,1\n")),
    ],
)
def test_damage_is_refused_with_the_name_of_the_file(tmp_path: Path, name: str, damage: Any, command: Command) -> None:
    folder = whole_run(tmp_path / "run")
    damage(folder.path / name)
    code, out, err = command("report", str(folder.path))
    assert (code, out) == (4, "")
    assert name in err
    assert err.count("\n") == 1


def _with_samples(path: Path, **changes: Any) -> None:
    with np.load(path) as file:
        arrays = {**file, **changes}
    write_arrays(path, {name: array for name, array in arrays.items() if array is not None})


def _changed(path: Path, *changes: str) -> None:
    text = path.read_text(encoding="utf-8")
    old, new = changes
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _with_unknown_plugin(path: Path, change: tuple[str, str]) -> None:
    """A config whose data set no plugin here has, so that its schema is not known, and with something else wrong."""
    _changed(path, "name: digits", "name: unheard_of")
    _changed(path, *change)


def _predictions(**changes: Any) -> dict[str, Any]:
    return {
        "labels": np.array([0, 1]),
        "predicted": np.array([0, 1]),
        "logits": np.zeros((2, 3), np.float32),
        **changes,
    }


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = whole_run(tmp_path / "run")
    folder.write_samples({"filters": np.zeros((1000, 1, 30, 30), np.float32)})
    assert (folder.path / "samples.npz").stat().st_size < 100_000
    monkeypatch.setattr("era_cnn.folders.arrays.MOST_BYTES", 100_000)
    with pytest.raises(RunFolderError, match="an archive that unpacks to 3,6"):
        read_run(folder)


def test_the_verb_writes_all_files_and_handles_the_rest(tmp_path: Path, command: Command) -> None:
    first, second = whole_run(tmp_path / "first"), whole_run(tmp_path / "second")
    (first.path / "summary.json").write_text("[]")
    code, out, err = command("report", str(first.path), str(second.path), str(tmp_path / "nowhere"))
    assert code == 4
    assert out == "Report: second/report.html\n"
    assert "summary.json" in err
    assert "nowhere" in err
    names = {path.relative_to(second.path).as_posix() for path in second.path.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "plots/accuracy.svg", "plots/confusion.png", "plots/errors.png"} <= names


def test_the_analysis_of_a_person_is_kept(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    write_run_report(folder)
    path = folder.path / "report.md"
    drafted = path.read_text(encoding="utf-8")
    assert "The best epoch on the test images is 2" in drafted
    mine = f"{drafted[: drafted.index(BEGIN)]}{BEGIN}\nIt was the *weather*. <b>\n\nSecond.\n{drafted[drafted.index(END) :]}"
    path.write_text(mine.replace("## Result", "## Something else"), encoding="utf-8")
    write_run_report(folder)
    assert path.read_text(encoding="utf-8") == mine


def test_the_analysis_of_a_person_who_removed_its_marks_is_kept(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    write_run_report(folder)
    path = folder.path / "report.md"
    drafted = path.read_text(encoding="utf-8")
    path.write_text(f"# Mine\n\n## Analysis\n\nThe weather.\n\n### More\n\n{drafted[drafted.index('## Layers') :]}")
    write_run_report(folder)
    mine = drafted[: drafted.index(BEGIN)] + f"{BEGIN}\nThe weather.\n\n### More\n" + drafted[drafted.index(END) :]
    assert path.read_text(encoding="utf-8") == mine


def test_a_page_without_an_analysis_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = whole_run(tmp_path / "run")
    path = folder.path / "report.md"
    path.write_text("# All mine\n")
    write_run_report(folder)
    assert path.read_text() == "# All mine\n"
    assert capsys.readouterr().err.endswith(
        "report.md must hold a section ## Analysis, got none. It was left as it is; remove it to have it written anew.\n"
    )


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([0.9, 0.999], [0.9, 0.95], "It overfits from epoch 2 on"),
        (
            [0.9, 0.999],
            [0.85, 0.999],
            "In 1 of 2 epochs, the first of them epoch 1, the training accuracy is more than",
        ),
        ([0.9, 0.95], [0.9, 0.95], "It does not overfit"),
        ([0.9, 0.95], [0.95, 0.9], "The best epoch on the test images is 1; the epoch after that did not improve it"),
        ([0.9, 0.95], [0.9, 0.95], "The last epoch is the best on the test images"),
        ([0.9, 0.95], [0.9, 0.96], "1.00 points below that on the test images"),
    ],
)
def test_the_draft_says_what_the_numbers_say(tmp_path: Path, train: list[float], test: list[float], said: str) -> None:
    folder = whole_run(tmp_path / "run")
    history = [
        EpochMetrics(number, 0.1, 1.0, seen, 1.0, None, Scores(0.5, score, 1, 2), {"order": "0"})
        for number, (seen, score) in enumerate(zip(train, test, strict=True), start=1)
    ]
    folder.write_metrics(history, with_val=False)
    assert said in as_markdown(read_run(folder))


@pytest.mark.parametrize(
    ("config", "is_said"),
    [
        ({"augmentation": {"rotate": {}}, "trainer": {}}, True),
        ({"augmentation": {"rotate": {}}, "trainer": {"epochs": 3, "unaugmented_epochs": 1}}, False),
        ({"augmentation": {"rotate": {}}, "trainer": {"epochs": 4, "unaugmented_epochs": 1}}, True),  # it ended early
        (
            {"augmentation": {"rotate": {}}, "trainer": {"epochs": 3, "unaugmented_epochs": 1, "label_smoothing": 0.1}},
            True,
        ),
        ({"augmentation": {}, "model": {"layers": {"conv": {"dropout": 0.1}}}}, True),
        ({"augmentation": {}}, False),
    ],
)
def test_the_draft_says_what_lowers_the_training_accuracy_of_the_last_epoch(
    config: dict[str, Any], is_said: bool, tmp_path: Path
) -> None:
    content = replace(read_run(whole_run(tmp_path / "run")), config=config)
    assert ("lower the training accuracy itself" in " ".join(draft(content))) == is_said


@pytest.mark.parametrize(
    "experiment", ["model_1", "model_2", "model_3", "model_3_plain", "model_4", "model_4_dropout25"]
)
def test_the_reference_runs_have_curves(experiment: str) -> None:
    curve = reference_curve(experiment)
    assert [row["epoch"] for row in curve] == list(range(1, len(curve) + 1))
    assert max(row["test_accuracy"] for row in curve) > 0.989


def test_a_report_draws_no_picture_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, str]] = []

    def draw(chart: charts.Chart, kind: str, **options: object) -> bytes:
        drawn.append((chart.name, kind))
        return f"<svg>{len(drawn)}</svg>".encode()

    monkeypatch.setattr(charts.Chart, "_saved", draw)
    write_run_report(whole_run(tmp_path / "run"))
    names = {path.stem for path in (tmp_path / "run" / "plots").glob("*.svg")}
    assert names >= {"accuracy", "calibration", "confusion", "network"}
    assert sorted(drawn) == sorted((name, kind) for name in names for kind in ("svg", "png"))


@pytest.mark.process
def test_a_chart_is_the_same_in_every_process() -> None:
    program = (
        "import hashlib; from era_cnn.reports import charts;"
        "chart = charts.lines('loss', 'alt', {'a $b$': [(1, 0.5), (2, 0.25)]}, x='epoch', y='loss', log=True);"
        "print(hashlib.sha256(chart.svg() + chart.png()).hexdigest())"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1


@pytest.mark.draw
def test_a_chart_leaves_matplotlib_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    small, usual = (charts.lines("loss", "alt", {"a": [(1, 0.5)]}, x="epoch", y="loss") for _ in range(2))
    assert small.svg()
    assert matplotlib.rcParams["font.size"] == 30.0
    monkeypatch.undo()
    assert usual.svg() == small.svg()
    assert "matplotlib.pyplot" not in sys.modules


ALL_KINDS: dict[str, Callable[[], charts.Chart]] = {
    "lines": lambda: charts.lines("loss", "alt", {f"run {n}": [(1, n), (2, 9)] for n in range(9)}, x="epoch", y="loss"),
    "heatmap": lambda: charts.heatmap("key", "alt", ["a", "b"], ["1", "2"], [[0.1, None], [0.3, 0.4]]),
    "confusion": lambda: charts.confusion(["a", "b"], [[1, 2], [3, 4]], "alt"),
    "categories": lambda: charts.categories("seeds", "alt", {"one": [0.1, 0.2], "two": [0.3]}, x="lr", y="accuracy"),
}


@pytest.mark.draw
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_chart_is_laid_out_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    alone = ALL_KINDS[kind]().svg_on_white()
    laid_out, execute = [], ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda engine, figure: laid_out.append(1) or execute(engine, figure)
    )
    chart = ALL_KINDS[kind]()
    chart.svg()
    num_layouts = len(laid_out)
    assert chart.png()
    assert chart.dark_svg()
    assert chart.svg_on_white() == alone
    assert len(laid_out) == num_layouts > 0


def test_both_grounds_have_the_same_number_of_colours() -> None:
    """Else two lines of a dark chart would look alike."""
    assert len(set(charts.IN_THE_DARK)) == len(set(charts.IN_THE_DARK.values())) == len(charts.LIGHT.series) + 3


@pytest.mark.draw
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_dark_chart_is_the_light_one_in_other_colours(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = ALL_KINDS[kind]()
    monkeypatch.setattr(charts, "LIGHT", charts.DARK)
    drawn, changed = ALL_KINDS[kind]().svg(), chart.dark_svg()  # drawn with those colours, and changed to them
    assert without_names(changed) == without_names(drawn)


def without_names(svg: bytes) -> bytes:
    """A chart without the names of its parts, into which Matplotlib hashes their colours."""
    return re.sub(rb'(id="|href="#|url\(#)\w+', b"", svg)


@pytest.mark.draw
def test_the_texts_of_a_dark_chart_are_as_they_were() -> None:
    label = f"fill: {charts.LIGHT.text}"
    chart = charts.lines("loss", "alt", {label: [(1, 0.5)], "b": [(1, 0.5)]}, x="epoch", y="loss")
    assert f">{label}</text>".encode() in chart.dark_svg()


def test_calibration_counts_every_image_once() -> None:
    bins = charts.reliability([0.05, 0.95, 1.0, 0.91], [False, True, True, False])
    assert [(bin_.low, bin_.count) for bin_ in bins] == [(0.0, 1), (0.9, 3)]
    expected = (1 * abs(0 - 0.05) + 3 * abs(2 / 3 - (0.95 + 1.0 + 0.91) / 3)) / 4
    assert charts.calibration_error(bins) == pytest.approx(expected)


RUN = ("data=digits", "trainer=smoke", "threads=1")


@pytest.mark.slow
@pytest.mark.draw
def test_a_run_ends_with_its_report(command: Command, with_reports: None) -> None:
    code, out, _ = command(*RUN, "hydra.run.dir=run")
    assert code == 0
    assert out.endswith("Report: run/report.html\n")
    content = read_run(RunFolder(Path("run").absolute()))
    assert content.missing == ()
    assert content.class_names == [str(digit) for digit in range(10)]
    assert set(content.samples) >= {"augmented", "error_images", "explained_maps", "filters"}
    assert Path("run/report.md").exists()


def test_a_run_without_a_report(command: Command, with_reports: None) -> None:
    code, out, _ = command(*RUN, "hydra.run.dir=run", "report=false")
    assert code == 0
    assert "Report" not in out
    assert not Path("run/report.html").exists()


def test_a_report_that_fails_is_only_a_warning(
    command: Command, with_reports: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: RunFolder) -> Path:
        raise RuntimeError("no\nfonts")

    monkeypatch.setattr("era_cnn.runs.carry_out.write_run_report", fail)
    code, _, err = command(*RUN, "hydra.run.dir=run")
    assert code == 0
    assert err == "The report must be written, got: RuntimeError: no\\nfonts. To try again: era-cnn report run\n"
    assert json.loads(Path("run/status.json").read_text())["state"] == "completed"


@pytest.mark.slow
def test_a_report_of_a_sweep_that_fails_is_only_a_warning(
    command: Command, with_reports: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: object, path: Path) -> Path:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("era_cnn.sweeps.commands.write_sweep_report", fail)
    code, _, err = command("-m", *RUN, "seed=1,2", "hydra.sweep.dir=sweep")
    assert code == 0
    assert err.endswith("got: RuntimeError: no fonts. To try again: era-cnn report sweep\n")


def test_the_spread_over_seeds_has_its_chart(tmp_path: Path) -> None:
    for number, (lr, seed) in enumerate([(0.01, 1), (0.01, 2), (0.02, 1), (0.02, 2)]):
        write_run(tmp_path / f"{number}", {"optimizer.lr": lr, "seed": seed}, final=0.5 + lr)
    rows = read_rows([read_outcome(path, None, ()) for path in sorted(tmp_path.iterdir())])
    assert [chart.name for chart in sweep_charts(rows)] == ["key_0"]  # it has each run, and their means
    assert "Best setting: optimizer.lr=0.02." in Tags(sweep_page(rows, tmp_path)).text


def test_the_spread_over_seeds_of_two_keys_has_its_chart(tmp_path: Path) -> None:
    settings = itertools.product([0.01, 0.02], [0.0, 0.1], [1, 2])
    rows = [
        row_of(tmp_path / f"{number}", {"optimizer.lr": lr, "model.dropout": dropout, "seed": seed})
        for number, (lr, dropout, seed) in enumerate(settings)
    ]
    assert [chart.name for chart in sweep_charts(rows)] == ["key_0", "key_1", "heatmap", "seeds"]


def test_a_sweep_shows_the_seeds_and_settings_without_a_result(tmp_path: Path) -> None:
    accuracies = {(0.01, 1): 0.5, (0.01, 2): 0.51, (0.01, 3): None, (0.02, 1): 0.7, (0.02, 2): 0.8, (0.02, 3): None}
    accuracies |= {(0.5, seed): None for seed in (1, 2, 3)}
    rows = [
        row_of(tmp_path / f"{number}", {"optimizer.lr": lr, "seed": seed}, final=final)
        for number, ((lr, seed), final) in enumerate(accuracies.items())
    ]
    said = " ".join(re.sub("<[^>]*>", " ", sweep_page(rows, tmp_path)).split())
    assert "0.01 2 of 3 1 failed 50.50 ± 0.71" in said
    assert "0.5 0 of 3 3 failed" in said
    assert "[44.15, 56.85]" in said
    assert "Best setting" not in said  # the terminal says so, too: seeds that failed might have changed it
    assert "No best setting is chosen: some runs have no result." in said
    assert "Seeds that failed have no accuracy" in said


@pytest.mark.draw
def test_the_charts_of_a_sweep_name_values_without_a_result(tmp_path: Path) -> None:
    def drawn(finals: Mapping[tuple[float, float], float | None]) -> dict[str, Figure]:
        place = tmp_path / str(len(finals))
        rows = [
            row_of(place / f"{number}", {"optimizer.lr": lr, "model.dropout": dropout}, final=final)
            for number, ((lr, dropout), final) in enumerate(finals.items())
        ]
        figures = {chart.name: Figure() for chart in sweep_charts(rows)}
        for chart in sweep_charts(rows):
            chart.draw(figures[chart.name])
        return figures

    def labels(axis: Any) -> list[str]:
        return [tick.get_text() for tick in axis.get_ticklabels()]

    two_keys = drawn({(lr, dropout): None if lr > 1 else 0.9 for lr in (0.1, 0.2, 5.0) for dropout in (0.0, 0.1)})
    assert labels(two_keys["key_1"].axes[0].xaxis) == ["0.1", "0.2", "5\n(no result)"]
    assert labels(two_keys["key_0"].axes[0].xaxis) == ["0", "0.1"]
    assert labels(two_keys["heatmap"].axes[0].xaxis) == ["0.1", "0.2", "5"]
    one_left = drawn(
        {(lr, 0.0): None if lr > 1 else 0.9 + seed for seed, lr in enumerate((0.1, 5.0))} | {(0.1, 0.5): 0.8}
    )
    assert labels(one_left["key_1"].axes[0].xaxis) == ["0.1", "5\n(no result)"]
    many = drawn({(lr, 0.0): None if lr > 15 else lr / 100 for lr in map(float, range(1, 18))})
    assert many["key_0"].axes[0].get_xlabel() == "optimizer.lr (no result: 16, 17)"


@pytest.mark.draw
def test_a_sweep_names_all_settings_that_are_equally_good(tmp_path: Path) -> None:
    rates = [0.01, 0.02, 0.03, 0.04, 0.05]
    rows = [row_of(tmp_path / str(rate), {"optimizer.lr": rate}, final=0.5) for rate in rates]
    assert "Best settings: optimizer.lr=0.01; optimizer.lr=0.02; optimizer.lr=0.03, and 2 more." in sweep_page(
        rows, tmp_path
    )
    two = [row_of(tmp_path / "low", {"optimizer.lr": 1.0}, final=0.4), rows[0]]
    page = Tags(sweep_page(two, tmp_path)).text
    assert "Best setting: optimizer.lr=0.01." in page
    assert "1 seed" in page
    assert "1 seeds" not in page


def test_a_sweep_shows_its_notes_and_those_of_its_jobs(tmp_path: Path) -> None:
    rows = [row_of(tmp_path / str(number), {"seed": number}, number=number) for number in range(2)]
    without = Tags(sweep_page(rows, tmp_path)).text
    assert not re.search(r"tags|^note$|Tags", without, flags=re.MULTILINE)
    (tmp_path / "notes.md").write_text("Tags: s<b\n\nAbout all.\n", encoding="utf-8")
    (tmp_path / "1" / "notes.md").write_text("Tags: one\n\nAbout <i>one.\n", encoding="utf-8")
    page = Tags(sweep_page([replace(row) for row in rows], tmp_path))  # rows remember the notes that they read
    for said in ("Tags: s<b", "About all.", "tags", "one", "About <i>one."):
        assert said in page.text


def test_the_legend_of_many_lines_does_not_cover_them() -> None:
    points = [(1.0, 0.5), (2.0, 0.6)]

    def figure_of(count: int) -> Figure:
        figure = Figure()
        series = {f"run {number}": points for number in range(count)}
        charts.lines("many", "Many lines.", series, x="epoch", y="accuracy").draw(figure)
        return figure

    assert figure_of(2).axes[0].get_legend()
    many = figure_of(12)
    assert (many.axes[0].get_legend(), len(many.legends)) == (None, 1)


@pytest.mark.slow
def test_a_sweep_ends_with_one_report_for_all_jobs(command: Command, with_reports: None) -> None:
    words = ("optimizer.lr=0.01,0.1", "model.dropout=0.05,0.1", "hydra.sweep.dir=sweep")
    code, out, _ = command("-m", *RUN, *words)
    assert code == 0
    assert out.endswith("Report: sweep/report.html\n")
    assert not list(Path("sweep").glob("*/report.html"))
    page = Tags(Path("sweep/report.html").read_text(encoding="utf-8"))
    assert "4 of 4 runs done" in page.text
    alts = [image["alt"] or "" for image in page.all("img")]
    assert any("optimizer.lr" in alt for alt in alts)
    assert any("(rows) and" in alt for alt in alts)
    assert command("report", "sweep/0_model_4")[0] == 0  # a job has one if it is asked for
    assert Path("sweep/0_model_4/report.html").exists()


def test_a_reference_run_stands_only_behind_runs_on_its_data(tmp_path: Path) -> None:
    digits = write_run(tmp_path / "digits", {"name": "model_4"})
    on_mnist = {"data.name": "mnist", "data.root": "/data", "data.train_size": None}
    mnist = write_run(tmp_path / "mnist", {"name": "model_4", **on_mnist})
    assert read_run(digits).reference == []
    assert read_run(mnist).reference == reference_curve("model_4") != []
