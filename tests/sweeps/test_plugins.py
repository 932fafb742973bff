"""Launchers of others: submitit on this machine, a real Slurm, and a local Ray cluster, where they are there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.sweeps.conftest import SMALL, outcomes_of, weights_of


def has_slurm() -> bool:
    if shutil.which("sinfo") is None:
        return False
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
    return any(state in done.stdout for state in ("idle", "mixed", "allocated"))


def has_plugin(name: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{name}") is not None


HAS_SUBMITIT, HAS_RAY = has_plugin("hydra_submitit_launcher"), has_plugin("hydra_ray_launcher")
LAUNCHERS = [
    pytest.param(
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
        marks=pytest.mark.skipif(not HAS_SUBMITIT or has_slurm(), reason="a real Slurm is there, or submitit is not"),
        id="submitit",
    ),
    pytest.param(
        ["hydra/launcher=slurm", "hydra.launcher.timeout_min=5"],
        marks=pytest.mark.skipif(not (HAS_SUBMITIT and has_slurm()), reason="needs a Slurm that is up"),
        id="slurm",
    ),
    pytest.param(
        ["hydra/launcher=ray_cluster"],
        marks=pytest.mark.skipif(not HAS_RAY, reason="needs hydra-ray-launcher"),
        id="ray",
    ),
]


@pytest.mark.process
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_fail_alone_and_come_to_the_same_bits(launcher: list[str], sweep_process, expected) -> None:
    sabotage = {1: "raise", 2: "sys.exit", 3: "SIGKILL"}
    done = sweep_process("-m", *SMALL, "seed=0,1,2,3", *launcher, "hydra.sweep.dir=sweep", sabotage=sabotage)
    assert done.returncode == 1, done.stdout + done.stderr
    states = [outcome.state for outcome in outcomes_of()]
    assert states == ["completed", "failed", "failed", "failed"]
    messages = [outcome.message for outcome in outcomes_of()]
    assert messages[1:3] == ["RuntimeError: on purpose", "SystemExit: 3"]
    assert messages[3].startswith("The job ended without a result: ")
    done = sweep_process("resume", "sweep", *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights_of(outcomes_of()) == expected[:4]


@pytest.mark.process
@pytest.mark.skipif(not (HAS_SUBMITIT and has_slurm()), reason="needs a Slurm that is up")
def test_a_preempted_job_goes_on_where_it_was(sweep, tmp_path: Path) -> None:
    words = ["-m", "experiment=model_4_digits", "threads=1", "device=cpu", "trainer.limit_epochs=8", "seed=1"]
    program = [sys.executable, "-m", "era_cnn", *words, "hydra.sweep.dir=sweep", "hydra/launcher=slurm"]
    process = subprocess.Popen([*program, "hydra.launcher.partition=main"], stdout=subprocess.PIPE, text=True)
    run = tmp_path / "sweep" / "0_model_4_digits"
    while not list(run.glob("checkpoints/epoch-00003*")) and process.poll() is None:
        time.sleep(0.05)
    urgent = ["sbatch", "--partition=urgent", f"--cpus-per-task={all_cores()}", "--output=/dev/null", "--wrap=sleep 2"]
    subprocess.run(urgent, check=True, capture_output=True)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "Interrupted." in log
    assert log.count("Resuming in epoch ") == 1
    sweep(*words, "hydra.sweep.dir=basic")
    assert weights_of(outcomes_of()) == weights_of(outcomes_of("basic"))


@pytest.mark.process
@pytest.mark.skipif(not (HAS_SUBMITIT and has_slurm()), reason="needs a Slurm that is up")
def test_what_a_killed_driver_left_in_the_queue_is_handed_over_anew(sweep_process, expected, tmp_path: Path) -> None:
    words = [*SMALL, f"hydra.launcher.cpus_per_task={all_cores()}", "hydra.sweep.dir=sweep", "seed=0,1,2"]
    program = [sys.executable, "-m", "era_cnn", "-m", *words, "hydra/launcher=slurm"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE)
    while not list(tmp_path.glob("sweep/*/run.log")) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    waiting = arrays_of(tmp_path, "PENDING")
    assert waiting
    done = sweep_process("resume", "sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert waiting <= arrays_of(tmp_path, "CANCELLED")
    assert weights_of(outcomes_of()) == expected[:3]


def arrays_of(folder: Path, state: str) -> set[str]:
    """The numbers of the arrays in a state that were submitted from a folder."""
    command = ["squeue", "--noheader", f"--states={state}", "--format=%F %o"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[0] for line in lines if str(folder) in line}


def all_cores() -> str:
    done = subprocess.run(["sinfo", "-h", "-o", "%c"], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]
