"""Runs whose training step goes through PyTorch's compiler. They need a C++ compiler, which .ci/run installs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from era_cnn.config.choices import BLOCKS
from era_cnn.data.batches import Batch
from era_cnn.errors import ConfigError, StorageError
from era_cnn.folders.claims import claim
from era_cnn.models.build import build_from_config, build_network
from era_cnn.models.layers import hand_out
from era_cnn.paths import cache_dir
from era_cnn.randomness import Stream
from era_cnn.runs.compiler import PLACE, _intact, _place, check_compiler, compile_training
from era_cnn.runs.process import set_up
from era_cnn.runs.stopping import Interrupted
from era_cnn.signals import exit_code_of
from era_cnn.training.compiled import CompiledPass
from era_cnn.training.objective import Objective
from tests.conftest import config_of
from tests.helpers import GREY, unprivileged
from tests.portability.trainings import EVERY_BLOCK
from tests.process import Command
from tests.runs.test_resume import SMALL, StopAt, assert_same, carry_on

pytestmark = pytest.mark.process

CPU = torch.device("cpu")
"""Tests without a run keep compiled code where runs do: to compile PyTorch's headers twice would take half a minute."""

TINY = [
    *(f"~model.layers.{name}" for name in ("conv2", "skip", "conv3", "conv4", "conv5")),
    "model.dropout=0", "model.layers.conv1.dropout=0.1", "trainer.compile=true",
]  # fmt: skip


def test_a_compiled_run_goes_on_to_the_same_bits_and_is_replayed(command, tmp_path: Path) -> None:
    unbroken, broken = (claim(tmp_path / name).path for name in ("unbroken", "broken"))
    carry_on(unbroken, None, *TINY)
    for looks in range(3, 12):
        with suppress(Interrupted):
            carry_on(broken, StopAt(looks), *TINY)
            break
    assert looks >= 5
    assert_same(unbroken, broken)
    code, out, err = command("replay", "unbroken")
    assert (code, err) == (0, "")
    assert "Compiled the training step in " in out
    assert json.loads((unbroken / "provenance.json").read_text(encoding="utf-8"))["machine"]["compiler"]
    assert list(cache_dir().glob("compiled/*/*")), "so that the next process finds it"


def test_find_lr_says_how_long_it_compiled(command, tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith("trainer.limit")]
    code, out, err = command("find-lr", *words, *TINY, "--steps", "40", "--seeds", "2")
    assert (code, err) == (0, "")
    said = re.findall(r"(?m)^Compiled the training step in \d+ seconds$", out)
    assert len(said) == 1  # for the second seed, it is read
    assert out.index("Compiling") < out.index("Compiled") < out.index("Suggested")


def test_a_process_trains_more_compiled_runs_than_the_compiler_remembers(command, tmp_path: Path) -> None:
    words = ["trainer.limit_epochs=1" if "epochs" in word else word for word in SMALL]
    code, _, err = command("-m", *words, *TINY, "seed=range(1,11)", "hydra.sweep.dir=sweep")
    assert (code, err.count("Error")) == (0, 0), err
    assert len(list(tmp_path.glob("sweep/*/result.json"))) == 10


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_block_trains_compiled_as_it_does_without(precision: str) -> None:
    every = {**EVERY_BLOCK, "scaled": {"block": "scale", "factor": 0.5}}  # whose golden digests are older
    assert {spec["block"] for spec in every.values()} == set(BLOCKS) - {"gap_head"}
    with set_up(threads=1), _place(CPU):
        usual, compiled = (
            build_network(every, {}, seed=1, info=GREY).to(memory_format=torch.channels_last) for _ in range(2)
        )
        compiled.load_state_dict(usual.state_dict())
        objectives = [
            Objective(usual.train(), precision=precision),
            Objective(compiled.train(), forward=CompiledPass(compiled, 16), precision=precision),
        ]
        images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(16) % 10
        for seed in range(3):
            results = []
            for objective in objectives:
                stream = Stream()
                stream.begin(seed)
                hand_out(stream, objective.network)
                results.append(objective.backward(Batch(images.roll(seed, 0), labels)))
            far = 1e-3 if precision == "fp32" else 0.1
            torch.testing.assert_close(*results, rtol=far, atol=far)
            for (name, one), other in zip(usual.named_parameters(), compiled.parameters(), strict=True):
                difference = (one.grad - other.grad).norm()
                assert difference <= far * (20 * one.grad.norm() + 1e-3), name
            for one, other in zip(usual.buffers(), compiled.buffers(), strict=True):
                torch.testing.assert_close(one, other, rtol=far, atol=far)


def test_the_compiler_compiles_once() -> None:
    from torch._dynamo.utils import counters

    config = config_of("data=digits", *TINY)
    with set_up(threads=1), _place(CPU):
        network = build_from_config(config).train()
        objective = Objective(network, forward=CompiledPass(network, 8))
        hand_out(Stream(), network)
        counters.clear()
        for size in (8, 8, 5, 8):
            network.train()
            objective.backward(Batch(torch.randn(size, 1, 28, 28), torch.arange(size)))
            network.eval()(torch.randn(3, 1, 28, 28))
        assert counters["stats"]["unique_graphs"] == 1
        assert not counters["graph_break"]


class Looking(nn.Module):
    """Takes another way for other values, which no compiler can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = images.flatten(1)
        return self.linear(features if features.sum() > 0 else -features)


class OneBatch:
    """Batches of an epoch of one step."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        yield Batch(torch.randn(8, 1, 2, 2), torch.arange(8))


class Counting(Looking):
    """Does something else at each call, so that it is compiled again and again."""

    number = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.number += 1
        return self.linear(images.flatten(1)) * (1 + 0.001 * self.number)


class Raising(Looking):
    """Fails without the compiler, too."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("on purpose")


@pytest.mark.parametrize(
    ("kind", "reason"), [(Looking, "[Bb]ranch"), (Counting, "[Rr]ecompil"), (Raising, "ValueError.*on purpose")]
)
def test_a_network_that_cannot_be_compiled_is_refused_in_one_message(kind: type[nn.Module], reason: str) -> None:
    network = kind()
    with pytest.raises(ConfigError) as caught:
        compile_training(Objective(network, forward=CompiledPass(network, 8)), OneBatch())
    (message,) = caught.value.problems
    assert re.fullmatch(
        rf"trainer\.compile must be false for a network .* got true and: .*{reason}.*\. Remove it\.", message
    )
    assert "\n" not in message
    assert kind is Counting or __file__ in message


@pytest.mark.parametrize("name", ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"])
def test_a_compiler_that_is_switched_off_is_named(
    name: str, command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "1")
    code, out, err = command(*SMALL, *TINY)
    rule = f"be used without {name}=1, which switches PyTorch's compiler off"
    assert (code, out, err) == (2, "", f"trainer.compile must {rule}, got true. Unset the variable.\n")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("place", ["/dev/null", "file/cache", "closed", "closed/new"])
def test_a_cache_that_cannot_be_written_to_is_named(
    place: str, command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything else is done, and when a run that began elsewhere goes on."""
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o555)
    monkeypatch.setenv(PLACE, place)
    said = rf"{tmp_path / place} must be a folder that can be written to, .*, got: .+\. Set {PLACE} to another one, or"
    network = Looking()
    with unprivileged(tmp_path):
        code, out, err = command(*SMALL, *TINY)
        with pytest.raises(StorageError, match=said):
            compile_training(Objective(network, forward=CompiledPass(network, 8)), OneBatch())
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.match(said, err)
    assert not (tmp_path / "outputs").exists()


def test_the_user_s_own_cache_is_named_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "era_cnn").touch()
    monkeypatch.delenv(PLACE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StorageError, match="era_cnn/compiled must be a folder .* Not a directory"):
        check_compiler(CPU)
    assert PLACE not in os.environ


def test_compiled_code_that_is_damaged_or_half_written_is_removed(tmp_path: Path) -> None:
    def found() -> set[str]:
        return {path.name for path in tmp_path.glob("*/**/*") if path.is_file()}

    names = ("whole", "cut", "changed", "emptied")
    with _intact(tmp_path, is_alone=True):
        (tmp_path / "xy" / "z").mkdir(parents=True)
        for name in names:
            (tmp_path / "xy" / "z" / name).write_bytes(bytes(10_000))
    (tmp_path / "xy" / "z" / "cut").write_bytes(bytes(5_000))
    (tmp_path / "xy" / "z" / "changed").write_bytes(bytes(9_999) + b"1")
    (tmp_path / "xy" / "z" / "emptied").write_bytes(b"")
    with suppress(KeyboardInterrupt), _intact(tmp_path, is_alone=True):
        assert found() == {"whole"}
        (tmp_path / "xy" / "half-written").touch()
        raise KeyboardInterrupt
    with _intact(tmp_path, is_alone=False):
        assert found() == {"whole", "half-written"}, "where there are no locks, another process may be writing it"
        (tmp_path / "xy" / "half-written").unlink()
        (tmp_path / "xy" / "new").touch()
    with _intact(tmp_path, is_alone=True):
        assert found() == {"whole", "new"}
    (tmp_path / "sha256.json").write_text("{", encoding="utf-8")
    with _intact(tmp_path, is_alone=True):
        assert found() == set()


@pytest.mark.process  # PyTorch reads CXX when it is imported
def test_a_run_repairs_compiled_code_that_was_cut_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such as libraries, which would end it with a bus error; and compiles with words behind the compiler's name."""
    monkeypatch.setenv(PLACE, str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "g++ -O1")
    for name in ("first", "second"):
        words = [sys.executable, "-m", "era_cnn", *SMALL, *TINY, f"hydra.run.dir={name}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        libraries = list(tmp_path.glob("cache/era_cnn/*/networks/*/*.so"))
        assert len(libraries) > 1
        for path in tmp_path.glob("cache/era_cnn/*/networks/*/**/*"):
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)
    one, other = (tmp_path / name / "fingerprints.jsonl" for name in ("first", "second"))
    assert one.read_bytes() == other.read_bytes()
    machine = json.loads((tmp_path / "first" / "provenance.json").read_text(encoding="utf-8"))["machine"]
    assert machine["compiler_command"] == "g++ -O1"
    assert "-march=native" in machine["compiler_flags"].split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_another_process_that_compiles(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    with set_up(threads=1), _place(CPU):
        monkeypatch.setenv(PLACE, str(tmp_path))
        process = Command(*SMALL, *TINY, "hydra.run.dir=run")
        while b"Waiting" not in os.pread(process._err.fileno(), 1_000, 0) and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == exit_code_of(number)
    assert re.fullmatch(
        "Waiting for another process that compiles a network in .*\nInterrupted. To resume: era-cnn resume run\n", err
    )


def test_a_wait_that_is_in_vain_is_not_the_fault_of_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    monkeypatch.setattr("era_cnn.runs.compiler.WAIT_SECONDS", 0.0)
    said = "Compiled code must become available, got another process that compiles a network in .* after 0 seconds"
    with _place(CPU):
        monkeypatch.setenv(PLACE, str(tmp_path))
        with pytest.raises(StorageError, match=said), _place(CPU):
            pass


def not_found() -> str:
    raise RuntimeError("No working C++ compiler found")


@pytest.mark.parametrize("is_own", [True, False])
def test_the_place_that_pytorch_chooses_is_not_the_user_s(
    is_own: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path) if is_own else default_cache_dir())
    with _place(CPU):
        place = Path(os.environ[PLACE])
    assert place.is_relative_to(tmp_path / "era_cnn" if is_own else cache_dir())


def test_a_compiler_that_is_gone_is_not_the_fault_of_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as where a run goes on on another machine; only its start is checked beforehand."""
    monkeypatch.setenv(PLACE, str(tmp_path))
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", not_found)
    network = build_from_config(config_of("data=digits", *TINY)).train()
    objective = Objective(network, forward=CompiledPass(network, 8))
    hand_out(Stream(), network)

    class Digits(OneBatch):
        def epoch(self, number: int, steps_done: int = 0) -> Iterator[Batch]:
            yield Batch(torch.randn(8, 1, 28, 28), torch.arange(8))

    with pytest.raises(ConfigError, match=r"must have a C\+\+ compiler with OpenMP, got RuntimeError: No working"):
        compile_training(objective, Digits())


@pytest.mark.parametrize("compiler", ["missing", "without OpenMP"])
def test_without_a_cpp_compiler_a_run_is_refused(
    compiler: str, command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'omp.h: No such file' >&2; exit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    find = not_found if compiler == "missing" else lambda: str(broken)
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", find)
    complaint = "RuntimeError: No working C++ compiler found" if compiler == "missing" else "omp.h: No such file"
    code, out, err = command(*SMALL, *TINY)
    assert (code, out) == (2, "")
    assert err == (
        f"trainer.compile must have a C++ compiler with OpenMP, got {complaint}. "
        "Install one, such as g++, or set trainer.compile=false.\n"
    )
    assert not (tmp_path / "outputs").exists()
