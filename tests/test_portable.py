"""Portable arithmetic: chosen before torch is imported, for whole processes, and refused where it can't be kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from era_cnn import portable, processor
from era_cnn.config.parsing import parse
from era_cnn.config.versions import digest
from era_cnn.errors import ConfigError
from era_cnn.portable import (
    SETTINGS,
    TooLateError,
    check_processor,
    choose_arithmetic,
    prefer_arithmetic,
)
from era_cnn.runs.process import device_of
from tests.conftest import config_of


def is_portable() -> bool:
    return portable._Process.is_portable


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has not imported torch."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(portable._Process, "is_portable", False)
    monkeypatch.setattr(portable._Process, "is_chosen", False)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in SETTINGS:
        os.environ.pop(name, None)


@pytest.mark.usefixtures("fresh")
def test_it_is_chosen_before_torch_is_imported_and_lasts() -> None:
    choose_arithmetic(False)
    assert not is_portable()
    assert not set(SETTINGS) & set(os.environ)
    choose_arithmetic(True)
    assert is_portable()
    assert SETTINGS.items() <= os.environ.items()
    choose_arithmetic(True)
    with pytest.raises(TooLateError, match="portable must be true in this process"):
        choose_arithmetic(False)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", SETTINGS)
def test_an_environment_that_chooses_other_code_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "other")
    with pytest.raises(ConfigError, match=f"variable {name} must be {SETTINGS[name]} for portable=true, got 'other'"):
        choose_arithmetic(True)
    assert not is_portable()
    choose_arithmetic(False)


@pytest.mark.usefixtures("fresh")
def test_an_environment_that_chooses_the_same_code_allows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the variables are set by hand, or by the process that started this one."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    assert portable._were_made_in_time()
    monkeypatch.setattr(portable._Process, "is_portable", True)
    sys.modules["torch"] = torch
    choose_arithmetic(True)
    choose_arithmetic(False)


@pytest.mark.parametrize(("started_with", "in_time"), [("all", True), ("some", False), ("unknown", False)])
def test_torch_may_come_first_if_the_process_was_started_so(
    started_with: str, in_time: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python sets after torch was imported has no effect, although the environment then looks the same."""
    made = [f"{name}={value}" for name, value in SETTINGS.items()]
    environment = tmp_path / "environ"
    if started_with != "unknown":
        environment.write_text("\0".join(["A=1", *made[started_with == "some" :], ""]), encoding="utf-8")
    monkeypatch.setattr(portable, "STARTED_WITH", environment)
    assert not portable._were_made_in_time()
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    assert portable._were_made_in_time() == in_time


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("flags", ["fpu avx avx2 fma", "fpu avx avx_vnni"])
def test_a_processor_without_avx2_uses_the_network_of_a_portable_run_as_it_can(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text(f"flags : {flags}\n", encoding="utf-8")
    prefer_arithmetic(True)
    assert is_portable() == ("avx2" in flags.split())


def test_it_is_refused_once_torch_is_imported_and_says_how_it_can_be_had() -> None:
    with pytest.raises(TooLateError, match="false in a process that has imported torch.*start it with ATEN_CPU_CAPAB"):
        choose_arithmetic(True)
    prefer_arithmetic(True)
    assert not is_portable()


def test_a_command_that_comes_too_late_leaves_no_folder(command, tmp_path: Path) -> None:
    code, out, err = command("experiment=model_4_digits", "portable=true", "hydra.run.dir=run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("portable must be false in a process")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("found", ["AVX512", "DEFAULT", "NO AVX", "SVE256"])
def test_a_processor_without_such_code_is_refused(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable._Process, "is_portable", True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: found)
    with pytest.raises(ConfigError, match=f"portable must be false on this processor, for which PyTorch uses {found}"):
        check_processor(True)
    check_processor(False)


def test_a_processor_is_asked_and_not_only_the_environment_that_pytorch_believes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portable._Process, "is_portable", True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: False)
    with pytest.raises(ConfigError, match=r"on this processor, which has no AVX2, got true\. Use an x86-64"):
        check_processor(True)
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: True)
    check_processor(True)


def test_the_default_of_two_threads_becomes_one() -> None:
    assert config_of("data=digits").threads == 2
    assert config_of("data=digits", "portable=true").threads == 1
    assert config_of("data=digits", "portable=true", "threads=1").threads == 1
    assert config_of("data=digits", "threads=3").threads == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threads=2", "threads must be 1 with portable=true: how sums are split among threads varies, got 2"),
        ("device=cuda", "device must be cpu with portable=true, got 'cuda'. Set device=cpu."),
        ("device=mps", "device must be cpu with portable=true, got 'mps'"),
        ("precision=bf16", "precision must be fp32 with portable=true, got 'bf16'"),
        (
            "trainer.compile=true",
            "trainer.compile must be false with portable=true: code is compiled for one processor",
        ),
        ("portable=maybe", "portable must be true or false"),
    ],
)
def test_what_is_not_portable_is_refused(override: str, message: str) -> None:
    words = ["data=digits", *([] if override.startswith("portable") else ["portable=true"]), override]
    with pytest.raises(ConfigError, match=message):
        config_of(*words)


@pytest.mark.parametrize("value", ["1", "yes", "'true'", "null"])
def test_what_is_neither_true_nor_false_gets_one_message(value: str) -> None:
    with pytest.raises(ConfigError, match="portable must be true or false") as caught:
        config_of("data=digits", f"portable={value}")
    assert len(caught.value.problems) == 1


def test_a_gpu_that_is_there_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(config_of("data=digits")).type == "cuda"
    assert device_of(config_of("data=digits", "portable=true")).type == "cpu"


def test_it_is_part_of_the_digest_of_a_config_and_of_no_config_without_it() -> None:
    plain, other = config_of("data=digits", "threads=1"), config_of("data=digits", "portable=true")
    assert digest(plain) != digest(other)
    values = plain.model_dump()
    del values["portable"]  # as an earlier version wrote it
    assert digest(parse(values)) == digest(plain)


@pytest.mark.parametrize("sweep", [("portable=true,false", "threads=1"), ("portable=false,true", "threads=1")])
def test_a_sweep_computes_in_one_way(sweep: tuple[str, ...], command, tmp_path: Path) -> None:
    code, _, err = command("-m", "experiment=model_4_digits", *sweep)
    assert code == 2
    assert "portable must be the same for all jobs of a sweep" in err
    assert not (tmp_path / "multirun").exists()
