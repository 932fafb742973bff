"""Collecting provenance fails no run, and says what it could not collect."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from era_cnn.runs import provenance
from tests.conftest import config_of

METADATA = {
    "no version": ("Name: odd\n", {"odd": None}, "the version of odd: its metadata has none"),
    "no name": ("Version: 1\n", {}, "a package in {place}: its metadata has no name"),
    "no file": (None, {}, "a package in {place}: "),
    "Latin-1": ("Name: odd\nVersion: 1\nAuthor: Größe\n", {}, "a package in {place}: UnicodeDecodeError: "),
    "sound": ("Name: odd\nVersion: 1\n", {"odd": "1"}, ""),
}
"""The metadata of a package, what is recorded of it, and the reason for what is not."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", METADATA)
def test_a_package_without_proper_metadata_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, recorded, reason = METADATA[what]
    (tmp_path / "odd-1.dist-info").mkdir()
    if text is not None:
        (tmp_path / "odd-1.dist-info" / "METADATA").write_bytes(text.encode("latin-1"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    collected = provenance.collect(config_of(), torch.device("cpu"))
    assert {name: version for name, version in collected["packages"].items() if name == "odd"} == recorded
    assert len(collected["not_collected"]) == bool(reason)
    assert "".join(collected["not_collected"]).startswith(reason.format(place=tmp_path))


@pytest.mark.parametrize("broken", ["code_sha256", "processor_name"])
def test_what_is_not_collected_is_recorded_and_said_once(
    broken: str, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> NoReturn:
        raise PermissionError(13, "Permission denied", "secret\nEqual, bit for bit")

    monkeypatch.setattr(provenance, broken, refuse)
    code, _, err = command("data=digits", "trainer=smoke", "threads=1", "hydra.run.dir=run")
    reasons = json.loads((tmp_path / "run/provenance.json").read_text(encoding="utf-8"))["not_collected"]
    assert code == 0
    assert len(reasons) == 1
    assert "PermissionError: [Errno 13] Permission denied" in reasons[0]
    assert err == f"Not collected for provenance.json: {reasons[0]}.\n"


def test_an_editors_lock_is_no_part_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    monkeypatch.setattr(provenance, "PACKAGE_DIR", tmp_path)
    before = provenance.code_sha256()
    (tmp_path / ".#a.py").symlink_to("somebody@somewhere.1234")
    (tmp_path / "folder.py").mkdir()
    assert provenance.code_sha256() == before


@pytest.mark.parametrize("is_compiled", [False, True])
def test_settings_of_the_compiler_are_recorded_if_it_is_used(
    is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"TORCHINDUCTOR_MAX_AUTOTUNE": "1", "TORCHINDUCTOR_CPP_WRAPPER": "0"}
    others = (
        "TORCHINDUCTOR_CACHE_DIR",
        "TORCHINDUCTOR_REDIS_URL",
        "TORCHINDUCTOR_COMPILE_THREADS",
        "TORCH_COMPILE_JOB_ID",
    )
    for name, value in {**settings, **dict.fromkeys(others, "secret")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(provenance, "toolchain", lambda device: {})
    config = config_of("experiment=model_4_digits", f"trainer.compile={is_compiled}")
    found = provenance.collect(config, torch.device("cpu"))["environment"]
    assert {name: value for name, value in found.items() if "TORCH" in name} == (settings if is_compiled else {})
