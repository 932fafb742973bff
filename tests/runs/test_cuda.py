"""Runs on a CUDA device; without one, these tests are skipped."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import era_cnn
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.folders.claims import claim
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig
from era_cnn.runs.listeners.console import Console
from era_cnn.runs.parts import make_parts, read_data, settled
from era_cnn.runs.process import set_up
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, StopRequest
from tests.conftest import config_of
from tests.runs.test_resume import RECIPES, SMALL, StopAt, assert_same

pytestmark = [
    pytest.mark.process,  # the compiler starts programs
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MODES = {
    "eager": [],
    "graphs": ["trainer.cuda_graphs=true"],
    "compiled": ["trainer.compile=true"],
    "compiled graphs": ["trainer.compile=true", "trainer.cuda_graphs=true"],
}


def on_cuda(*words: str) -> RunConfig:
    return settled(config_of(*SMALL, "device=cuda", *words), torch.device("cuda"))


def carry_on(folder: Path, config: RunConfig, stop: StopRequest | None = None) -> None:
    run(StoredConfig(config, digest(config)), RunFolder(folder), Console(is_terminal=False), stop or StopRequest())


def resumed(tmp_path: Path, config: RunConfig) -> tuple[Path, Path]:
    """The folders of an unbroken run, and of one that stopped within epochs and evaluations, each time a little later."""
    unbroken, broken = (claim(tmp_path / name).path for name in ("unbroken", "broken"))
    carry_on(unbroken, config)
    for looks in range(3, 12):
        with suppress(Interrupted):
            carry_on(broken, config, StopAt(looks))
            break
    return unbroken, broken


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_a_run_goes_on_to_the_same_bits_and_is_replayed(mode: str, precision: str, command, tmp_path: Path) -> None:
    unbroken, broken = resumed(tmp_path, on_cuda(f"precision={precision}", *MODES[mode]))
    assert_same(unbroken, broken)
    assert command("replay", str(unbroken))[0] == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_stateful_recipe_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    assert_same(*resumed(tmp_path, on_cuda(*RECIPES[name], "trainer.cuda_graphs=true")))


def test_graphs_change_no_bit(tmp_path: Path) -> None:
    ends = []
    for name in ("eager", "graphs"):
        folder = claim(tmp_path / name).path
        carry_on(folder, on_cuda(*MODES[name]))
        ends.append(json.loads((folder / "result.json").read_text(encoding="utf-8"))["weights_sha256"])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["rotate", "mixup", "cutmix"])
def test_batches_are_those_of_a_cpu(name: str) -> None:
    batches = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        config = settled(config_of(*SMALL, f"augmentation={name}"), device)
        with set_up(config.threads):
            parts = make_parts(config, read_data(config), device)
            batches.append([parts.train.normalise.undo(batch.images).cpu() for batch in parts.train.epoch(1)])
    for one, other in zip(*batches, strict=True):
        assert (one.int() - other.int()).abs().max() <= 1


def test_the_network_is_evaluated_as_at_the_end_of_its_run(command, tmp_path: Path) -> None:
    folder = claim(tmp_path / "run").path
    carry_on(folder, on_cuda())
    loaded = era_cnn.load(folder)
    evaluation = loaded.evaluate("test")
    assert evaluation.accuracy == loaded.result["final_test_accuracy"]
    for verb in ("eval", "report"):
        code, out, err = command(verb, str(folder))
        assert code == 0, (verb, out, err)
