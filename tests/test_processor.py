from __future__ import annotations

import platform
from pathlib import Path

import pytest

from era_cnn import processor
from era_cnn.processor import cache_size, is_same_processor, processor_features, processor_name

EPYC = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
cache size\t: 1024 KB
flags\t\t: fpu avx avx2

processor\t: 1
model\t\t: 18
"""
ARM = """processor\t: 0
Features\t: fp asimd
CPU part\t: 0xd0c
"""


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(("text", "name", "features", "cache"), [
    (EPYC, "AMD EPYC (family 25, model 17)", ["fpu", "avx", "avx2"], "1024 KB"),
    ("model name : Anything\n", "Anything", [], None),
    (ARM, platform.processor() or platform.machine(), ["fp", "asimd"], None),
    ("", platform.processor() or platform.machine(), [], None),
    (None, platform.processor() or platform.machine(), [], None),
])  # fmt: skip
def test_a_processor_is_what_the_system_says(
    text: str | None, name: str, features: list[str], cache: str | None, cpuinfo: Path
) -> None:
    if text is not None:
        cpuinfo.write_text(text, encoding="utf-8")
    assert processor_name() == name
    assert processor_features() == features
    assert cache_size() == cache


def test_generations_of_one_name_are_told_apart(cpuinfo: Path) -> None:
    cpuinfo.write_text(EPYC, encoding="utf-8")
    one = processor_name()
    cpuinfo.write_text(EPYC.replace(": 17", ": 1"), encoding="utf-8")
    assert not is_same_processor(one, processor_name())


@pytest.mark.parametrize(("recorded", "now", "is_same"), [
    ("AMD EPYC", "AMD EPYC (family 25, model 1)", True),  # as earlier versions recorded it
    ("AMD EPYC", "Intel Xeon (family 6, model 143)", False),
    ("AMD EPYC (family 25, model 1)", "AMD EPYC", False),
    ("x86_64", "x86_64", True),
    (None, "x86_64", False),
    (None, None, True),
    (["AMD EPYC"], "AMD EPYC", False),
])  # fmt: skip
def test_a_name_without_family_and_model_means_all_of_that_name(recorded: object, now: object, is_same: bool) -> None:
    assert is_same_processor(recorded, now) == is_same
