from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from era_cnn.config.versions import NUMERICS
from era_cnn.errors import RunFolderError
from era_cnn.folders import provenance
from era_cnn.folders.provenance import DIFFERS, SCHEMA, check_numerics, differences, run_id, write_origin
from era_cnn.folders.run import RunFolder

ORIGIN: dict[str, Any] = {
    "numerics": NUMERICS,
    "config_sha256": "a" * 64,
    "data_sha256": "b" * 64,
    "plugins": {"block.squeeze": "c" * 64},
    "code": {"version": "1", "sha256": "d" * 64, "git": None},
    "python": "3.12",
    "packages": {"torch": "2.10", "numpy": "2.0", "pytest": "8.0"},
    "machine": {"device": "cpu", "threads": 2, "processor": "one", "cpu_capability": "AVX2", "cuda": None, "host": "x"},
    "environment": {"OMP_NUM_THREADS": "2", "SLURM_JOB_ID": "7"},
}


def changed(*path: str, to: object = None) -> dict[str, Any]:
    values = copy.deepcopy(ORIGIN)
    inner = values
    for name in path[:-1]:
        inner = inner[name]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return values


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("data_sha256",), "e" * 64, "data bbbbbbbbbbbb… → eeeeeeeeeeee…"),
        (("config_sha256",), "e" * 64, "config aaaaaaaaaaaa… → eeeeeeeeeeee…"),
        (("code", "sha256"), "e" * 64, "code of era_cnn dddddddddddd… → eeeeeeeeeeee…"),
        (("machine", "device"), "cuda", "device cpu → cuda"),
        (("machine", "threads"), 4, "threads 2 → 4"),
        (("machine", "processor"), "two", "processor one → two"),
        (("machine", "cpu_capability"), "AVX512", "instruction set AVX2 → AVX512"),
        (("machine", "cuda"), "13", "CUDA none → 13"),
        (("python",), "3.13", "Python 3.12 → 3.13"),
        (("plugins", "block.squeeze"), "e" * 64, "plugin block.squeeze cccccccccccc… → eeeeeeeeeeee…"),
        (("plugins", "block.squeeze"), None, "plugin block.squeeze cccccccccccc… → none"),
        (("plugins", "block.other"), "e" * 64, "plugin block.other none → eeeeeeeeeeee…"),
        (("packages", "torch"), "2.11", "torch 2.10 → 2.11"),
        (("packages", "triton"), "3", "triton none → 3"),
        (("environment", "OMP_NUM_THREADS"), None, "OMP_NUM_THREADS 2 → none"),
    ],
)  # fmt: skip
def test_what_a_result_depends_on_is_said_when_it_differs(path: tuple[str, ...], to: object, said: str) -> None:
    assert list(differences(ORIGIN, changed(*path, to=to))) == [said]


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("packages", "pytest"), "9.0"),
        (("environment", "SLURM_JOB_ID"), "8"),
        (("machine", "host"), "y"),
        (("code", "version"), "2"),
    ],
)
def test_what_no_result_depends_on_is_not(path: tuple[str, ...], to: object) -> None:
    assert list(differences(ORIGIN, changed(*path, to=to))) == []


def test_the_likeliest_cause_comes_first() -> None:
    other = changed("packages", "torch", to="1")
    other["packages"]["numpy"] = "1"
    other["plugins"], other["data_sha256"] = {}, "e" * 64
    words = [said.split(" ")[0] for said in differences(ORIGIN, other)]
    assert words == ["data", "plugin", "torch", "numpy"]


def test_what_the_version_before_did_not_record_is_no_difference() -> None:
    before = {
        key: value for key, value in changed("plugins", "block.squeeze").items() if key not in ("plugins", "numerics")
    }
    assert list(differences(before, changed("plugins", "block.squeeze"))) == []


@pytest.mark.parametrize(
    ("key", "now", "said"),
    [
        ("compiler_command", "ccache g++", ["compiler command g++ → ccache g++"]),
        ("compiler_flags", "-O1 -g", ["compiler flags -O2 → -O1"]),
        ("compiler_flags", 7, ["compiler flags -O2 -g → 7"]),
        ("compiler_flags", None, []),  # an earlier version
    ],
)
def test_only_the_flags_of_the_compiler_that_differ_are_named(key: str, now: object, said: list[str]) -> None:
    machine = {**ORIGIN["machine"], "compiler_command": "g++", "compiler_flags": "-O2 -g"}
    assert list(differences({**ORIGIN, "machine": machine}, {**ORIGIN, "machine": {**machine, key: now}})) == said


@pytest.mark.parametrize("machine", [{}, None, "x", []])
def test_what_is_missing_or_damaged_is_said_as_none(machine: object) -> None:
    said = list(differences({**ORIGIN, "machine": machine}, ORIGIN))
    assert said == [
        "device none → cpu", "threads none → 2", "processor none → one", "instruction set none → AVX2",
    ]  # fmt: skip


def test_each_run_has_an_id_of_its_own(tmp_path: Path) -> None:
    one, other, earlier = folders = [RunFolder(tmp_path / name) for name in ("one", "other", "earlier")]
    for folder in folders:
        folder.path.mkdir()
    for folder in (one, other):
        write_origin(folder, ORIGIN, print)
    earlier.write_json("provenance.json", ORIGIN)
    assert len({run_id(folder) for folder in folders}) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", run_id(folder)) for folder in folders)


def test_each_beginning_is_recorded_and_what_differs_is_said(tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path), []
    write_origin(folder, ORIGIN, said.append)
    own = {"schema": SCHEMA, "id": run_id(folder)}
    assert folder.read_json("provenance.json") == {**own, **ORIGIN}
    write_origin(folder, ORIGIN, said.append)
    assert said == []
    write_origin(folder, changed("machine", "threads", to=4), said.append)
    assert said == [f"{DIFFERS}threads 2 → 4"]
    kept = folder.read_json("provenance.json")
    assert {key: value for key, value in kept.items() if key != "resumed"} == {**own, **ORIGIN}
    assert [each["machine"]["threads"] for each in kept["resumed"]] == [2, 4]


def test_the_arithmetic_of_a_run_must_be_that_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("provenance.json", ORIGIN)
    check_numerics(folder)
    folder.write_json("provenance.json", {})  # of the version before there was a number
    check_numerics(folder)
    monkeypatch.setattr(provenance, "NUMERICS", 2)
    monkeypatch.setattr(provenance, "NUMERICS_CHANGES", {2: "dropout draws other numbers"})
    message = r"must have numerics version 2 .*, got 1 \(2: dropout draws other numbers\). Use it as it is, or start"
    with pytest.raises(RunFolderError, match=message):
        check_numerics(folder)
    folder.write_json("provenance.json", {"numerics": 3})
    with pytest.raises(
        RunFolderError, match="must have numerics version 2 to be reproduced bit for bit, got 3. Update"
    ):
        check_numerics(folder)
    folder.write_json("provenance.json", {"numerics": "x"})
    with pytest.raises(RunFolderError, match="got: numerics: Input should be a valid integer"):
        check_numerics(folder)
