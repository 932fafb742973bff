"""Every way to start a run computes portably if its config says so. Each needs an interpreter of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from era_cnn.portable import SETTINGS

pytestmark = pytest.mark.process

SHORT = (
    "experiment=model_4_digits", "trainer.epochs=2", "trainer.limit_train_images=128", "trainer.limit_test_images=64",
    "portable=true", "report=false",
)  # fmt: skip

PLUGIN = """
import torch  # before anyone knows what is to be trained

import era_cnn


@era_cnn.block("half")
class Half(torch.nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images / 2
"""


def run(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "era_cnn", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def weights(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text(encoding="utf-8"))["weights_sha256"])


def is_portable(folder: Path) -> bool:
    """As PyTorch says, not the config."""
    found = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    return found["machine"]["cpu_capability"] == "AVX2" and SETTINGS.items() <= found["environment"].items()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portable") / "run"
    run(*SHORT, f"hydra.run.dir={folder}")
    return folder


@pytest.fixture
def interrupted(single: Path, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "interrupted"
    shutil.copytree(single, folder)
    (folder / "result.json").unlink()
    for checkpoint in sorted((folder / "checkpoints").glob("epoch-*"))[1:]:
        checkpoint.unlink()
    return folder


def test_a_run_is_resumed_and_replayed(single: Path, interrupted: Path) -> None:
    assert is_portable(single)
    run("resume", str(interrupted))
    assert weights(interrupted) == weights(single)
    (resumed,) = json.loads((interrupted / "provenance.json").read_text(encoding="utf-8"))["resumed"]
    assert resumed["machine"]["cpu_capability"] == "AVX2"
    run("replay", str(single))


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_the_jobs_of_a_sweep(launcher: str, single: Path, tmp_path: Path) -> None:
    run("-m", *SHORT, "seed=1,2", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    first, second = sorted((tmp_path / "sweep").glob("*_model_4_digits"))
    assert is_portable(first)
    assert is_portable(second)
    assert weights(first) == weights(single) != weights(second)


def test_a_plugin_that_imports_torch_comes_too_late(single: Path, tmp_path: Path) -> None:
    """The command starts again; workers of a sweep know before they import the plugin."""
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    plugin = ("--plugin", "plugin.py")
    run(*plugin, *SHORT, "hydra.run.dir=run")
    assert is_portable(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(single)
    run("replay", *plugin, "run")
    run("-m", *plugin, *SHORT, "seed=1,2", "hydra.sweep.dir=sweep")
    assert all(map(is_portable, (tmp_path / "sweep").glob("*_model_4_digits")))


def test_a_program_that_imports_torch_first_starts_again_once(single: Path, tmp_path: Path) -> None:
    program = """
import os
import torch
assert "STARTED" not in os.environ or "MKL_CBWR" in os.environ
assert os.environ.get("STARTED") != "twice"
os.environ["STARTED"] = "twice" if "STARTED" in os.environ else "once"
from era_cnn.cli import main
raise SystemExit(main())
"""
    words = [sys.executable, "-c", program, *SHORT, "hydra.run.dir=run"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_portable(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(single)


def test_python_chooses_with_the_first_run_of_a_process(single: Path, tmp_path: Path) -> None:
    program = """
import sys
import era_cnn
from era_cnn.portable import TooLateError

loaded = era_cnn.load(sys.argv[1])
run = era_cnn.train(sys.argv[2:], folder="run", quiet=True)
assert run.result["weights_sha256"] == loaded.result["weights_sha256"]
assert era_cnn.replay("run")
try:
    era_cnn.train([*sys.argv[2:-2], "report=false"], folder="other", quiet=True)
except TooLateError as error:
    assert "portable must be true in this process" in str(error)
else:
    raise AssertionError
"""
    words = [sys.executable, "-W", "error", "-c", program, str(single), *SHORT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_portable(tmp_path / "run")
    assert not (tmp_path / "other").exists()
