from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from era_cnn.folders.outcome import Outcome
from era_cnn.reports.listed import STATES, Listed, listed_in
from era_cnn.reports.rows import Row
from tests.reports.made import SCHEMA_1, write_run
from tests.reports.test_compare import DAMAGE

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def outputs() -> Path:
    """Three runs, of which one failed and one has a note, and a sweep."""
    write_run(Path("outputs/1/a"), {"name": "model_a", "optimizer.lr": 0.01}, final=0.98, best_test_accuracy=0.99)
    write_run(Path("outputs/1/b"), {"name": "model_b", "optimizer.lr": 0.02}, final=0.97)
    write_run(Path("outputs/2/c"), {"name": "model_a", "optimizer.lr": 0.5}, final=None)
    shutil.copytree(SCHEMA_1 / "sweep", "multirun/1/s")
    Path("outputs/1/b/notes.md").write_text("Tags: good, x\n\n- 2026-11-26 11:31 Nice.\n", encoding="utf-8")
    return Path("outputs")


def listed(command: Command, *words: str) -> list[dict[str, Any]]:
    code, out, err = command("list", *words, "--json")
    assert (code, err) == (0, "")
    values: list[dict[str, Any]] = json.loads(out)
    return values


def names(command: Command, *words: str) -> str:
    return " ".join(each["folder"].rpartition("/")[2] for each in listed(command, *words))


def test_runs_and_sweeps_have_a_line_each(outputs: Path, command: Command) -> None:
    code, out, err = command("list")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert " ".join(lines[0]) == "folder when experiment state jobs best test final test tags note"
    assert [(line[0], *line[3:]) for line in lines[2:6]] == [
        ("outputs/1/a", "model_a", "completed", "99.00%", "98.00%"),
        ("outputs/1/b", "model_b", "completed", "97.00%", "97.00%", "good,", "x", "2026-11-26", "11:31", "Nice."),
        ("outputs/2/c", "model_a", "failed"),
        ("multirun/1/s", "model_4_digits", "interrupted", "1", "of", "3", "78.00%", "78.00%"),
    ]
    assert out.splitlines()[6:] == ["Of a sweep, the accuracies are those of its best job."]


def test_json_has_everything_and_null_for_what_is_missing(outputs: Path, command: Command) -> None:
    run, noted, failed, sweep = listed(command)
    assert list(run) == [
        "folder", "kind", "state", "experiment", "started", "jobs", "best_test_accuracy", "final_test_accuracy",
        "final_val_accuracy", "params", "tags", "notes", "message",
    ]  # fmt: skip
    assert (run["kind"], run["best_test_accuracy"], run["final_val_accuracy"], run["jobs"]) == ("run", 0.99, None, None)
    assert (noted["tags"], noted["notes"]) == (["good", "x"], ["2026-11-26 11:31 Nice."])
    assert (failed["final_test_accuracy"], failed["message"]) == (None, "The loss must stay finite, got nan.")
    assert (sweep["kind"], sweep["jobs"], sweep["message"]) == ("sweep", {"done": 1, "all": 3}, None)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["experiment=model_a"], "a c"),
        (["experiment=model_a", "state=completed"], "a"),
        (["experiment=model_99"], ""),
        (["state=failed"], "c"),
        (["tag=x"], "b"),
        (["tag=good", "tag=x"], "b"),
        (["optimizer.lr=2e-2"], "b"),
        (["optimizer.lr=0.01"], "a s"),
        (["final=0.98"], "a"),
        (["params=1028", "seed=1", "data=digits", "optimizer=sgd", "optimizer.nesterov=false"], "a b s"),
        (["seed=2"], ""),
    ],
)
def test_conditions_choose(where: list[str], expected: str, outputs: Path, command: Command) -> None:
    assert names(command, *(f"--where={each}" for each in where)) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("final", "c s b a"),
        ("experiment", "s a c b"),
        ("optimizer.lr", "a s b c"),
        ("folder", "s a b c"),
        ("tag", "a c s b"),
        ("final_test_loss", "c s a b"),
    ],
)
def test_a_key_sorts_with_the_highest_last(key: str, expected: str, outputs: Path, command: Command) -> None:
    """What has no value comes first; what is equal stays in the order of folders."""
    assert names(command, "--sort", key) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "tag"], "--where must be followed by KEY=VALUE, got 'tag'. For example: --where optimizer.lr=0.01."),
        (["--where", "optimizr.lr=1"], "--where must name a key that one of these runs has, got 'optimizr.lr'. Did you mean optimizer.lr?"),
        (["--sort", "finl"], "--sort must name a key that one of these runs has, got 'finl'. Did you mean final?"),
        (["--sort", "zzz"], "got 'zzz'. See config.yaml for those of a run."),
    ],
)  # fmt: skip
def test_a_key_that_nothing_has_is_refused(words: list[str], message: str, outputs: Path, command: Command) -> None:
    code, out, err = command("list", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_the_jobs_of_a_sweep_and_a_run_are_listed_by_their_folder(outputs: Path, command: Command) -> None:
    assert names(command, "multirun/1/s") == "0_model_4_digits 1_model_4_digits 2_model_4_digits"
    assert [each["folder"] for each in listed(command, "outputs/1/a")] == ["."]
    assert names(command, "outputs") == "a b c"


def test_nothing_is_a_list_too(command: Command) -> None:
    assert command("list") == (0, "No runs or sweeps in outputs or multirun.\n", "")
    Path("empty").mkdir()
    code, out, err = command("list", "empty")
    assert (code, err) == (0, "")
    assert out.endswith("empty.\n")
    write_run(Path("outputs/a"))
    assert command("list", "--where", "state=failed") == (0, "No such runs or sweeps in outputs or multirun.\n", "")
    assert listed(command, "empty") == listed(command, "--where", "optimizer.lr=9") == []


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_a_folder_that_is_not_there_ends_with_code_4(path: str, command: Command) -> None:
    Path("file").touch()
    code, out, err = command("list", path)
    assert (code, out) == (4, "")
    assert f"{path} must be a folder to read, got: No" in err


@pytest.mark.parametrize("name", ["status.json", "result.json"])
@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "missing"])
def test_a_broken_folder_has_a_line_with_the_reason(name: str, kind: str, outputs: Path, command: Command) -> None:
    content = DAMAGE[kind]
    assert content is not None
    Path("outputs/1/a", name).write_bytes(content)
    code, out, err = command("list")
    assert (code, err) == (0, "")
    assert [line.split()[3:5] for line in out.splitlines()[3:5]] == [["model_b", "completed"], ["model_a", "failed"]]
    assert out.splitlines()[2].split()[-1] == "damaged"
    assert f"outputs/1/a: {Path.cwd()}/outputs/1/a/{name} must hold what the run wrote" in out
    code, out, err = command("list", "outputs/1/a")
    assert code == 4
    assert f"{name} must hold what the run wrote" in err


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_compare_calls_damaged_is_damaged(name: str, kind: str, outputs: Path, command: Command) -> None:
    content = DAMAGE[kind]
    place = Path("outputs/1/a", name)
    place.write_bytes(b"{}" if content is None else content)
    if content is None:
        place.unlink()
    is_whole = name == "provenance.json" and kind == "missing"  # folders of the first version have none
    one, other = listed(command, "outputs/1")
    assert (one["state"], other["state"]) == ("completed" if is_whole else "damaged", "completed")
    assert (one["final_test_accuracy"] is None) == (not is_whole)
    code, out, err = command("list", "outputs/1/a")
    assert code == (0 if is_whole else 4)
    assert is_whole or f"{name} must " in out + err
    assert (command("compare", "outputs/1/a")[0] == 0) == is_whole


def test_a_config_that_was_changed_after_its_run_is_damaged(outputs: Path, command: Command) -> None:
    for path, before in ((Path("outputs/1/b"), "lr: 0.02"), (Path("multirun/1/s/0_model_4_digits"), "lr: 0.01")):
        text = (path / "config.yaml").read_text(encoding="utf-8")
        assert before in text
        (path / "config.yaml").write_text(text.replace(before, "lr: 0.03"), encoding="utf-8")
    code, out, err = command("list")
    assert (code, err) == (0, "")
    assert next(line for line in out.splitlines() if "must have the digest" in line).startswith("outputs/1/b: ")
    states = {each["folder"]: each["state"] for each in [*listed(command, "outputs"), *listed(command, "multirun")]}
    assert states == {"1/a": "completed", "1/b": "damaged", "2/c": "failed", "1/s": "damaged"}
    assert names(command, "--where", "optimizer.lr=0.02") == ""


def test_a_config_that_was_cut_off_is_damaged(outputs: Path) -> None:
    path = Path("outputs/1/a/config.yaml")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    end = lines.index("target:\n")
    assert end > 50
    for number in range(end):
        path.write_text("".join(lines[:number]) + lines[number][:7], encoding="utf-8")
        (found,) = listed_in(path.parent.absolute())
        assert found.state == "damaged", lines[number]


def test_a_damaged_sweep_has_a_line_with_the_reason(outputs: Path, command: Command) -> None:
    Path("multirun/1/s/multirun.yaml").write_text("x", encoding="utf-8")
    code, out, err = command("list")
    assert (code, err) == (0, "")
    assert out.count(" completed ") == 2
    assert "multirun/1/s: " in out
    assert command("list", "multirun/1/s")[0] == 4


def test_notes_that_can_not_be_read_are_named(outputs: Path, command: Command) -> None:
    Path("outputs/1/a/notes.md").write_bytes(b"\xff")
    code, out, err = command("list")
    assert (code, err) == (0, "")
    assert "notes.md must be a text file, got: bytes" in out


def test_text_from_folders_is_harmless(outputs: Path, command: Command) -> None:
    Path("outputs/1/a/notes.md").write_text("tags: \x1b[2J\n\x1b]0;x\x07 \u202e\n", encoding="utf-8")
    status = Path("outputs/1/b/status.json")
    for started in ("\x1b[2J", "9999-12-31T23:59:59+00:00", "0001-01-01", ""):
        status.write_text(json.dumps({"state": "completed", "started": started}), encoding="utf-8")
        code, out, err = command("list")
        assert (code, err) == (0, "")
        assert all(line.isprintable() for line in out.split("\n"))
        assert command("list", "--sort", "when", "--json")[0] == 0


@pytest.mark.parametrize("width", [80, 40])
def test_the_table_fits_the_terminal(
    width: int, outputs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = command("list")
    assert max(map(len, out.splitlines())) <= width
    assert (out.count("outputs/1/a") > 1) == (width == 40)


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_a_sweep_is_that_of_the_job_that_matters_most(state: str, tmp_path: Path) -> None:
    def row(state: str) -> Row:
        return Row(Outcome(0, {}, state, "", None, tmp_path), None, {})

    def sweep(*states: str) -> str:
        return Listed(tmp_path, tuple(row(each) for each in states), is_sweep=True).state

    less = STATES[STATES.index(state) + 1 :]
    assert sweep("completed", *less, state, "pruned") == state
    assert sweep("completed", "reused", "pruned") == "completed"


def test_in_a_narrow_terminal_rows_stand_below_their_folder(
    outputs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = [" ".join(line.split()) for line in command("list")[1].splitlines()]
    assert lines == [
        "state jobs best test final test", "",
        "outputs/1", "a (model_a) completed 99.00% 98.00%", "b (model_b) completed 97.00% 97.00%",
        "[good] [x] 2026-11-26 11:31 Nice.", "",
        "outputs/2", "c (model_a) failed", "",
        "multirun/1", "s (model_4_digits) interrupted 1 of 3 78.00% 78.00%",
        "Of a sweep, the accuracies are those of its best job.",
    ]  # fmt: skip
