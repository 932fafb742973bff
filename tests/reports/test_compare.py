from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.reports.made import SCHEMA_1, write_run

Command = Callable[..., tuple[int, str, str]]


def settings_of(out: str) -> list[list[str]]:
    """The lines of the table of settings."""
    return [line.split() for line in out.split("\n\n")[1].splitlines()[2:-1]]


def test_two_experiments_that_differ_in_their_yaml_are_two_settings(command: Command) -> None:
    for number, (name, lr, final) in enumerate([("a", 0.01, 0.9), ("a", 0.01, 0.8), ("b", 0.5, 0.1), ("b", 0.5, 0.3)]):
        write_run(Path(f"run{number}"), {"name": name, "optimizer.lr": lr, "seed": number % 2}, final=final)
    code, out, err = command("compare", "run0", "run1", "run2", "run3")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split()[:3] == ["experiment", "optimizer.lr", "seed"]
    assert settings_of(out) == [
        ["a", "0.01", "2", "85.00", "±", "7.07", "85.00", "±", "7.07", "[21.47,", "100.00]", "1,028", "best"],
        ["b", "0.5", "2", "20.00", "±", "14.14", "20.00", "±", "14.14", "[0.00,", "100.00]", "1,028"],
    ]


def test_a_run_and_its_copy_and_the_run_again_count_once(command: Command) -> None:
    write_run(Path("run"))
    shutil.copytree("run", "copy")
    os.symlink("run", "link")
    code, out, _ = command("compare", "run", "copy", "run", "./copy/../run", "link")
    assert code == 0
    assert "4 rows repeat a result and count once." in out
    assert "±" not in out


def test_no_best_setting_is_chosen_across_data_sets(command: Command) -> None:
    write_run(Path("one"))
    write_run(Path("other"), {"data.name": "mnist", "data.root": "/data", "data.train_size": None}, final=0.99)
    _, out, _ = command("compare", "one", "other")
    assert "No best setting is chosen: the data differs." in out
    assert "Best setting" not in out


def test_a_folder_is_searched_for_runs_and_sweeps(command: Command) -> None:
    write_run(Path("outputs/2026-11-26/11-00-00_a"))
    write_run(Path("outputs/2026-11-26/11-00-01_a"), {"seed": 2})
    write_run(Path("outputs/deep/1/2/3/4/5"), {"seed": 3})
    write_run(Path("outputs/deep/1/2/3/4/too/deep"), {"seed": 4})
    write_run(Path("elsewhere/linked"), {"seed": 5})
    write_run(Path("outputs/2026-11-26/11-00-00_a/within/a/run"), {"seed": 6})
    shutil.copytree(SCHEMA_1 / "sweep", "outputs/sweep")
    Path("outputs/link").symlink_to(Path("elsewhere").absolute())
    Path("outputs/round").symlink_to(Path("outputs").absolute())
    Path("outputs/conf").mkdir()
    Path("outputs/conf/config.yaml").write_text("x: 1", encoding="utf-8")  # no run
    code, out, err = command("compare", "outputs")
    assert (code, err) == (0, "")
    assert [line.split()[-1] for line in out.split("\n\n")[0].splitlines()[2:] if ":" not in line] == [
        "2026-11-26/11-00-00_a", "2026-11-26/11-00-01_a", "deep/1/2/3/4/5",
        *(f"sweep/{number}_model_4_digits" for number in range(3)),
    ]  # fmt: skip
    assert not Path("outputs/sweep/sweep.md").exists()


@pytest.mark.parametrize("levels", [0, 3])
def test_a_folder_without_runs_is_refused(levels: int, command: Command) -> None:
    Path("empty" + "/x" * levels).mkdir(parents=True)
    code, out, err = command("compare", "empty")
    assert (code, out) == (4, "")
    assert err.endswith("empty must hold runs or sweeps, got none. Give their folder, or one that contains them.\n")


DAMAGE = {"missing": None, "empty": b"", "binary": b"\xff\x00\xfe", "cut off": b"{", "a list": b"[1]", "null": b"null"}


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "provenance.json"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_hides_no_other(name: str, kind: str, command: Command) -> None:
    for number in range(3):
        write_run(Path(f"runs/{number}"), {"seed": number}, provenance={"numerics": 1})
    path = Path("runs/1") / name
    path.unlink()
    if (content := DAMAGE[kind]) is not None:
        path.write_bytes(content)
    code, out, _ = command("compare", "runs")
    assert code == 0
    is_damage = name == "config.yaml" or kind != "missing"
    assert out.split("\n\n")[0].count(" damaged ") == is_damage
    assert out.count(" completed ") == (3 if kind == "missing" and name == "provenance.json" else 2)
    assert ("run 1: " in out and name in out) == is_damage
    code, out, err = command("compare", "runs/1", "runs/2")
    assert code == (4 if is_damage else 0)
    assert (name in err) == is_damage
    assert " completed " in out


def test_a_config_that_was_changed_after_the_run_is_damaged(command: Command) -> None:
    """Or its result would be shown as that of another setting."""
    folder = write_run(Path("run"))
    config = Path("run/config.yaml")
    config.write_text(config.read_text(encoding="utf-8").replace("lr: 0.01", "lr: 0.02"), encoding="utf-8")
    code, out, err = command("compare", "run")
    assert (code, folder.result() is not None) == (4, True)
    assert "50.00%" not in out
    assert "config.yaml must have the digest " in err
    assert "Undo the change of the file." in err


def test_a_damaged_sweep_hides_neither_its_jobs_nor_others(command: Command) -> None:
    shutil.copytree(SCHEMA_1 / "sweep", "runs/sweep")
    write_run(Path("runs/other"), {"seed": 9})
    Path("runs/sweep/multirun.yaml").write_text("x", encoding="utf-8")
    code, out, _ = command("compare", "runs")
    assert code == 0
    assert [out.count(word) for word in (" damaged ", " completed ", " planned ")] == [1, 2, 1]
    assert command("compare", "runs/sweep", "runs/other")[0] == 4
    assert not Path("runs/sweep/sweep.md").exists()


def test_a_folder_that_cannot_be_read_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(Path("runs/one"))
    Path("runs/secret").mkdir()
    scandir = os.scandir

    def refuses(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    code, out, err = command("compare", "runs")
    assert code == 0
    assert " completed " in out
    assert err.endswith("secret must be readable, got: Permission denied. Its runs are left out.\n")


def test_runs_are_compared_without_their_plugin(command: Command) -> None:
    for number, seed in enumerate([1, 2, 1]):
        path = write_run(Path(f"run{number}"), {"seed": seed}, final=0.5 + number / 10).path / "config.yaml"
        text = path.read_text(encoding="utf-8").replace("name: sgd", f"name: {'mine' if number < 2 else 'other'}")
        path.write_text(text, encoding="utf-8")
    code, out, err = command("compare", "run0", "run1", "run2")
    assert (code, err) == (0, "")
    assert [line[:3] for line in settings_of(out)] == [["mine", "2", "55.00"], ["other", "1", "70.00"]]


def test_other_code_of_a_plugin_makes_another_setting(command: Command) -> None:
    for number in range(2):
        provenance = {"numerics": 1, "plugins": {"block.squeeze": f"{number}" * 64}}
        write_run(Path(f"run{number}"), {"seed": number}, provenance=provenance)
    _, out, _ = command("compare", "run0", "run1")
    assert out.splitlines()[0].split("  ")[0] == "plugin block.squeeze"
    assert "±" not in out


def test_keys_that_no_plugin_checks_are_harmless(command: Command) -> None:
    for number in range(2):
        path = write_run(Path(f"run{number}")).path / "config.yaml"
        forged = f'name: mine\n  "x\\e[2J|\\nforged": {number}'
        path.write_text(path.read_text(encoding="utf-8").replace("name: digits", forged), encoding="utf-8")
    code, out, err = command("compare", "run0", "run1")
    assert (code, err) == (0, "")
    assert r"No best setting is chosen: data.x\x1b[2J|\nforged differs." in out
    assert all(line.isprintable() for line in out.split("\n"))


def test_jobs_of_several_sweeps_are_named_by_their_folders(command: Command) -> None:
    for name in ("one", "other"):
        shutil.copytree(SCHEMA_1 / "sweep", name)
    _, out, _ = command("compare", "one")
    assert "job 1: stopped by SIGTERM" in out
    _, out, _ = command("compare", "one", "other")
    assert "run other/1_model_4_digits: stopped by SIGTERM" in out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 1", "seed: [1]"),
        ("seed: 1", "seed: x"),
        ("seed: 1", ""),
        ("augmentation:", "augmentation: 7\nx:"),
        ("model:", "model: [1]\nx:"),
        ("  layers:", "  layers: [1]\n  x:"),
    ],
)
def test_a_damaged_config_of_a_missing_plugin_hides_no_other_run(old: str, new: str, command: Command) -> None:
    for number in range(2):
        path = write_run(Path(f"runs/{number}")).path / "config.yaml"
        text = path.read_text(encoding="utf-8").replace("name: sgd", "name: mine")
        path.write_text(text.replace(old, new) if number else text, encoding="utf-8")
    code, out, err = command("compare", "runs")
    assert (code, err) == (0, "")
    assert (out.count(" damaged "), out.count(" completed ")) == (1, 1)


def test_several_damaged_runs_are_one_readable_message(command: Command) -> None:
    for name in ("one", "other"):
        write_run(Path(name))
        Path(name, "status.json").write_text("{}", encoding="utf-8")
    code, out, err = command("compare", "one", "other")
    assert code == 4
    assert out.count("  damaged  ") == 2
    assert err.count("status.json must hold what the run wrote") == 2
    assert "\\n" not in err


def sweep_of_three(base: str = "runs") -> None:
    """Three learning rates with two seeds each."""
    for number, final in enumerate([0.90, 0.91, 0.95, 0.97, 0.93, 0.96]):
        changes = {"optimizer.lr": (0.01, 0.02, 0.03)[number // 2], "seed": number % 2}
        write_run(Path(base, f"run{number}"), changes, final=final)


def test_settings_are_compared_with_the_first_one_or_with_the_chosen_one(command: Command) -> None:
    sweep_of_three()
    code, out, err = command("compare", "runs")
    assert (code, err) == (0, "")
    assert "Baseline: optimizer.lr=0.01 (the first setting; choose another with --baseline KEY=VALUE)." in out
    assert [line.split()[0] for line in out.split("\n\n")[2].splitlines()[2:4]] == ["0.02", "0.03"]
    code, out, err = command("compare", "--baseline", "optimizer.lr=2e-2", "runs")
    assert (code, err) == (0, "")
    assert "Baseline: optimizer.lr=0.02 (chosen with --baseline)." in out
    assert [line.split()[0] for line in out.split("\n\n")[2].splitlines()[2:4]] == ["0.01", "0.03"]
    assert command("compare", "runs", "--baseline", "experiment=model_4_digits", "--baseline=optimizer.lr=0.03")[0] == 0


SETTINGS = "The settings: optimizer.lr=0.01; optimizer.lr=0.02; optimizer.lr=0.03."


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["optimizer.lr"], "--baseline must be followed by KEY=VALUE, got 'optimizer.lr'. For example: --baseline"),
        (["=1"], "--baseline must be followed by KEY=VALUE, got '=1'."),
        (["optimizer.lr=3"], f"--baseline must choose one of the settings, got optimizer.lr=3, which fits none of them. {SETTINGS}"),
        (["optimzer.lr=0.01"], "got optimzer.lr=0.01, which fits none of them."),
        (["seed=1"], "got seed=1, which fits none of them."),
        (["experiment=model_4_digits"], "got experiment=model_4_digits, which fits 3 of them."),
        (["optimizer.lr=0.01", "optimizer.momentum=7"], "got optimizer.lr=0.01 optimizer.momentum=7, which fits none of them."),
    ],
)  # fmt: skip
def test_a_baseline_that_is_not_one_setting_is_refused(typed: list[str], message: str, command: Command) -> None:
    sweep_of_three()
    code, out, err = command("compare", "runs", *(f"--baseline={each}" for each in typed))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_what_is_missing_hides_nothing(command: Command) -> None:
    write_run(Path("run"))
    Path("empty").mkdir()
    Path("test").mkdir()
    Path("test/find_lr.json").touch()
    code, out, err = command("compare", "nowhere", "test", "run", "empty")
    assert code == 4
    assert " completed " in out
    nowhere, test, empty = err.splitlines()
    assert nowhere.startswith("RUN must be the folder of a run, got ")
    assert "nowhere'" in nowhere
    assert test.startswith("RUN must be the folder of a run, not of a learning-rate test, got ")
    assert empty.endswith("empty must hold runs or sweeps, got none. Give their folder, or one that contains them.")


def test_json_is_complete_and_has_null_for_what_is_missing(command: Command) -> None:
    sweep_of_three()
    write_run(Path("runs/run6"), {"optimizer.lr": 0.02, "seed": 2}, final=None)
    write_run(Path("runs/run7"), {"optimizer.lr": 9.0, "seed": 0}, final=None)
    assert command("note", "runs/run0", "A \x1b[2J <b> ü.", "--tag", "a")[0] == 0
    code, out, err = command("compare", "runs", "--format", "json")
    assert (code, err) == (0, "")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    values = json.loads(out, parse_constant=refuse)
    assert list(values) == ["runs", "settings", "best_by", "why_no_best", "comparisons", "sentences"]
    first, failed = values["runs"][0], values["runs"][6]
    assert (first["folder"], first["keys"], first["seed"]) == ("run0", {"optimizer.lr": "0.01"}, 0)
    assert (first["final_test_accuracy"], first["best_val_accuracy"], first["tags"]) == (0.9, None, ["a"])
    assert first["notes"][0].endswith(r"A \x1b[2J <b> ü.")
    assert (failed["state"], failed["final_test_accuracy"], failed["params"]) == ("failed", None, None)
    assert failed["message"] == "The loss must stay finite, got nan."
    assert [(each["n"], each["seeds"], each["without_result"]) for each in values["settings"]] == [
        (2, [0, 1], {}), (2, [0, 1], {"failed": 1}), (2, [0, 1], {}), (0, [], {"failed": 1}),
    ]  # fmt: skip
    assert values["settings"][3]["final_test_accuracy"] == {"mean": None, "sd": None, "interval": None}
    assert values["settings"][0]["final_test_accuracy"]["mean"] == pytest.approx(0.905)
    assert values["settings"][0]["best_val_accuracy"] == {"mean": None, "sd": None, "interval": None}
    assert [(each["setting"], each["baseline"], each["test"], each["n"]) for each in values["comparisons"]] == [
        (1, 0, "paired t", [2]), (2, 0, "paired t", [2]),
    ]  # fmt: skip
    assert values["comparisons"][0]["question"] == "settings over seeds"
    assert values["comparisons"][0]["difference"] == pytest.approx(0.055)


def test_each_format_shows_the_comparisons_but_csv(command: Command) -> None:
    sweep_of_three()
    verdict = "optimizer.lr=0.02: not distinguishable with 2 seeds"
    for name in ("table", "md", "json", "html"):
        assert verdict in command("compare", "runs", "--format", name)[1]
    assert len(list(csv.DictReader(io.StringIO(command("compare", "runs", "--format", "csv")[1])))) == 6


def test_the_page_needs_nothing_else(command: Command) -> None:
    sweep_of_three("<script>")
    _, out, _ = command("compare", "<script>", "--format", "html")
    assert out.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "default-src 'none'" in html.unescape(out)
    assert "<h1>&lt;script&gt;</h1>" in out
    assert out.count("<script") == 1  # the one that sorts tables, which the policy allows by its digest
    assert not re.search(r"<link|<img|src=|href=|url\(|https?:", out)
    tags = re.findall(r"<(/?)([a-z0-9]+)[ >]", out)
    for name in {name for _, name in tags} - {"meta"}:
        assert tags.count(("", name)) == tags.count(("/", name)), name


def test_a_single_run_has_the_interval_of_its_test_images(command: Command) -> None:
    folder = write_run(Path("run"), final=0.9)
    labels = np.arange(10)
    folder.write_predictions({"labels": labels, "predicted": np.maximum(labels, 1), "logits": np.zeros((10, 10))})
    code, out, err = command("compare", "run")
    assert (code, err) == (0, "")
    assert "Final test accuracy 90.00% of 10 test images, 95% Wilson interval [59.58, 98.21]" in out
