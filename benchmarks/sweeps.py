"""What a sweep adds to its jobs, what several at once gain, and how long a large ledger takes.

`python -m benchmarks sweeps`. Needs MNIST (ERA_CNN_DATA).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra.types import RunMode

from era_cnn.compose.composition import as_yaml, compose, validated
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words
from era_cnn.folders.ledger import Job
from era_cnn.folders.sweep import SweepFolder
from era_cnn.sweeps.checks import check_jobs

TINY = (
    "experiment=model_4_digits", "threads=1", "device=cpu", "trainer.limit_epochs=2", "trainer.limit_train_images=64",
    "trainer.limit_test_images=50",
)  # fmt: skip
MNIST = (
    "experiment=model_4", "device=cpu", "trainer.limit_epochs=2",
)  # fmt: skip
JOBS = 8
LARGE = 1_000


def sweeps(rounds: int) -> dict[str, Any]:
    """Everything of it, in turn, round after round."""
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for key, seconds in {**_overheads(where), **_throughput(where)}.items():
                found.setdefault(key, []).append(seconds)
        found |= _large(where, rounds)
    figures = {key: [round(f(values), 3) for f in (statistics.median, min, max)] for key, values in found.items()}
    print(json.dumps(figures), flush=True)
    return figures


def _overheads(where: Path) -> dict[str, float]:
    """Seconds that a job takes longer in a sweep than its steps do: evaluation, checkpoints and files included."""
    imports = _seconds(
        where, sys.executable, "-c", "import era_cnn.runs.carry_out, era_cnn.sweeps.reuse, sklearn.datasets"
    )
    found = {"imports, once a sweep": imports}
    for name, launcher in {"basic": [], "local": ["hydra/launcher=local", "hydra.launcher.n_jobs=1"]}.items():
        one, _ = _sweep(where, 1, *TINY, *launcher)
        many, own = _sweep(where, 1 + JOBS, *TINY, *launcher)
        found[f"a job more, {name}"] = (many - one) / JOBS - own / (1 + JOBS)
    return found


def _throughput(where: Path) -> dict[str, float]:
    """How many times as fast two runs of Model-4 on MNIST, two epochs each, are at once as one after another."""
    local, _ = _sweep(where, 2, *MNIST, "threads=1", "hydra/launcher=local")
    return {
        f"local beside basic, {threads} thread{'s' if threads > 1 else ''} a job": (
            _sweep(where, 2, *MNIST, f"threads={threads}")[0] / local
        )
        for threads in (1, len(os.sched_getaffinity(0)))
    }


def _sweep(where: Path, jobs: int, *words: str) -> tuple[float, float]:
    """The seconds that a sweep over seeds takes, and those of its jobs' steps together."""
    path = where / "sweep"
    shutil.rmtree(path, ignore_errors=True)
    seeds = ",".join(map(str, range(jobs)))
    seconds = _seconds(where, *_COMMAND, "-m", *words, f"seed={seeds}", "hydra.sweep.dir=sweep")
    results = [json.loads(file.read_text(encoding="utf-8")) for file in path.glob("*/result.json")]
    assert len(results) == jobs
    return seconds, sum(result["seconds"] for result in results)


def _large(where: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds that commands take on a completed sweep of many jobs; the results are copies of a real one."""
    _sweep(where, 1, *TINY)
    (result,) = (where / "sweep").glob("*/result.json")
    found: dict[str, list[float]] = {}
    _planned(where / "large")  # imports, and reads the data
    for _ in range(rounds):
        large, jobs, seconds = _planned(where / "large")
        alone = _composed_alone(100) * LARGE
        found.setdefault(f"planning {LARGE:,} jobs", []).append(seconds)
        found.setdefault(f"composing {LARGE:,} configs alone beside planning them", []).append(alone / seconds)
    for job in jobs:
        shutil.copy(result, large.path / job.folder)
        shutil.copy(result.with_name("status.json"), large.path / job.folder)
    for verb in ("compare", "resume"):
        found[f"{verb}, {LARGE:,} jobs"] = [_seconds(where, *_COMMAND, verb, "large") for _ in range(rounds)]
    return found


def _planned(path: Path) -> tuple[SweepFolder, list[Job], float]:
    """A new sweep over seeds; its jobs; the seconds from its words to the folders on the disk."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    sweep, words = SweepFolder(path), Words([*TINY, f"seed=range({LARGE})"])
    started = time.perf_counter()
    composed = compose(words, RunMode.MULTIRUN)
    planner = Planner(words, composed)
    planned = planner.plan(planner.grid())
    check_jobs(planned)
    jobs = sweep.create(as_yaml(composed), planned)
    assert len(jobs) == LARGE
    return sweep, jobs, time.perf_counter() - started


def _composed_alone(number: int) -> float:
    """Seconds that it takes to compose and validate the config of a single run."""
    started = time.perf_counter()
    for seed in range(number):
        validated(compose(Words([*TINY, f"seed={seed}"])))
    return (time.perf_counter() - started) / number


_COMMAND = (str(Path(sys.executable).with_name("era-cnn")),)


def _seconds(where: Path, *command: str) -> float:
    environment = {**os.environ, "ERA_CNN_DATA": os.path.abspath(os.environ.get("ERA_CNN_DATA", "data"))}
    started = time.perf_counter()
    subprocess.run(command, cwd=where, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
