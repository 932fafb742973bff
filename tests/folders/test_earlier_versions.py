"""Folders that the version before schema 2 wrote: a completed run, an interrupted one, and a sweep whose driver died.

Each folder under `schema_1/` is what that version left (numerics version 1; 1,028 parameters, digits, rotation, one
thread); `expected.json` holds what it came to when nothing disturbed it, by seed.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from era_cnn.config.versions import SCHEMA
from era_cnn.folders.provenance import differences
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config, read_values
from era_cnn.runs import provenance

EARLIER = Path(__file__).parent / "schema_1"
EXPECTED = json.loads((EARLIER / "expected.json").read_text(encoding="utf-8"))
RUNS = sorted(
    path.parent.relative_to(EARLIER).as_posix() for path in EARLIER.rglob("config.yaml") if path.parent.name != ".hydra"
)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    for path in EARLIER.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name)
    return tmp_path


def result_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def computes_alike() -> bool:
    """Whether this machine is of the kind that the folders come from, so that the bits must be the same."""
    folder = RunFolder(EARLIER / "completed")
    now = provenance.collect(read_config(folder).config, torch.device("cpu"))
    changes = differences(folder.read_json("provenance.json"), now)
    return not [change for change in changes if not change.startswith(("data ", "config ", "code of era_cnn ", "OMP_"))]


def assert_as_expected(folder: Path, seed: int) -> None:
    result = result_of(folder)
    exact = {"data_sha256"} if not computes_alike() else EXPECTED[str(seed)].keys()
    assert {name: result[name] for name in exact} == {name: EXPECTED[str(seed)][name] for name in exact}


def test_every_config_is_found() -> None:
    assert ["completed", "interrupted", *(f"sweep/{number}_model_4_digits" for number in range(3))] == RUNS


@pytest.mark.parametrize("name", RUNS)
def test_a_config_of_before_is_read_and_keeps_its_digest(name: str) -> None:
    folder = RunFolder(EARLIER / name)
    stored = read_config(folder)
    assert list(stored.config.augmentation.chosen()) == ["rotate"]
    assert stored.config.data.mean == [0.3054]
    if (folder.path / "provenance.json").exists():
        assert stored.sha256 == folder.read_json("provenance.json")["config_sha256"]
    assert "schema" not in read_values(folder)


def test_they_are_compared(earlier: Path, command) -> None:
    code, out, err = command("compare", "completed", "interrupted", "sweep")
    assert (code, err) == (0, "")
    assert re.findall("completed|interrupted|planned", out) == [
        "completed", "completed", "interrupted", "interrupted", "completed", "interrupted", "planned", "interrupted",
    ]  # fmt: skip
    assert "run interrupted: stopped by SIGTERM" in out


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_to_the_same_result(earlier: Path, command) -> None:
    code, out, err = command("resume", "interrupted")
    assert (code, err) == (0, "")
    assert "Resuming in epoch 3 after 0 of 20 steps" in out
    assert_as_expected(earlier / "interrupted", seed=1)


def test_a_completed_run_is_replayed(earlier: Path, command) -> None:
    code, out, err = command("replay", "completed")
    if computes_alike():
        assert (code, err) == (0, "")
        assert "Equal, bit for bit: all 6 epochs and the result of completed" in out
    else:
        assert code == 0 or "must have the digest" in err


def test_a_resumed_run_is_replayed(earlier: Path, command) -> None:
    assert command("resume", "interrupted")[0] == 0
    code, _, err = command("replay", "interrupted")
    assert code == 0 or (not computes_alike() and "must have the digest" in err)


@pytest.mark.slow
def test_a_sweep_is_resumed(earlier: Path, command) -> None:
    code, out, _ = command("resume", "sweep")
    assert code == 0, out
    for number in range(3):
        assert_as_expected(earlier / "sweep" / f"{number}_model_4_digits", seed=number + 1)


@pytest.mark.parametrize(("key", "value"), [("lr: 0.01", "lr: 0.02"), ("degrees: 7.0", "degrees: 8.0")])
def test_a_config_of_before_that_was_changed_is_refused(key: str, value: str, earlier: Path, command) -> None:
    path = earlier / "interrupted" / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(key, value), encoding="utf-8")
    code, _, err = command("resume", "interrupted")
    assert code == 4
    assert "The config must be what the run began with" in err


@pytest.mark.parametrize("verb", ["resume", "replay"])
def test_a_config_of_a_newer_version_is_refused(verb: str, earlier: Path, command) -> None:
    path = earlier / "completed" / "config.yaml"
    path.write_text(f"schema: {SCHEMA + 1}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    (earlier / "completed" / "result.json").unlink()
    before = {each: each.read_bytes() for each in (earlier / "completed").rglob("*") if each.is_file()}
    code, _, err = command(verb, "completed")
    assert code == 4
    assert f"schema {SCHEMA + 1}, which a newer version of era_cnn wrote: update era_cnn" in err
    assert {each: each.read_bytes() for each in before} == before


@pytest.mark.parametrize("verb", ["resume", "replay"])
def test_another_arithmetic_is_refused_but_compared(verb: str, earlier: Path, command) -> None:
    folder = RunFolder(earlier / "interrupted")
    folder.write_json("provenance.json", {**folder.read_json("provenance.json"), "numerics": 2})
    code, _, err = command(verb, "interrupted")
    assert code == 4
    assert "must have numerics version 1 to be reproduced bit for bit, got 2. Update era_cnn." in err
    assert command("compare", "interrupted")[0] == 0


@pytest.mark.slow
def test_a_job_of_before_whose_folder_is_gone_is_made_again(earlier: Path, command) -> None:
    shutil.rmtree(earlier / "sweep" / "2_model_4_digits")
    code, out, err = command("resume", "sweep")
    assert code == 0, out + err
    assert_as_expected(earlier / "sweep" / "2_model_4_digits", seed=3)


def test_a_result_of_a_newer_version_is_not_damaged(earlier: Path, command) -> None:
    folder = RunFolder(earlier / "completed")
    folder.write_json("result.json", {**folder.read_json("result.json"), "schema": 9, "more": 1})
    code, _, err = command("replay", "completed")
    assert code == 4
    assert "result.json must have a schema up to 1, got 9. Update era_cnn." in err
