"""What a sweep does before its first job: checks, searches for equal runs, suggests threads, creates folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from era_cnn.compose.launchers import BasicLauncher, LocalLauncher
from era_cnn.config.schema import RunConfig
from era_cnn.folders.ledger import Ledger
from era_cnn.runs.parts import check
from era_cnn.sweeps import checks, executors
from era_cnn.sweeps.executors import hint_at_threads
from tests.conftest import config_of
from tests.sweeps.conftest import SMALL, Ended, outcomes_of
from tests.sweeps.fakes import Script

Sweep = Callable[..., Ended]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configs that were checked by themselves."""
    configs: list[RunConfig] = []
    original = checks._problems_of
    monkeypatch.setattr(checks, "_problems_of", lambda config: [configs.append(config), original(config)][1])
    return configs


def test_a_network_is_built_once_for_all_jobs_that_have_it(fake_sweep: Sweep, checked: list[RunConfig]) -> None:
    words = ("seed=1,2", "optimizer.lr=0.1,0.2", "model.dropout=0,0.1", "trainer.batch_size=32,64")
    assert fake_sweep("-m", *SMALL, *words, "hydra.sweep.dir=sweep").returncode == 0
    assert len(outcomes_of()) == 16
    assert [(config.model.dropout, config.trainer.batch_size) for config in checked] == [
        (0.0, 32), (0.0, 64), (0.1, 32), (0.1, 64),
    ]  # fmt: skip


def test_a_problem_of_a_network_is_said_of_all_jobs_that_have_it(fake_sweep: Sweep) -> None:
    done = fake_sweep("-m", *SMALL, "seed=1,2", "model.layers.conv1.out_channels=10,0")
    assert done.returncode == 2
    assert done.stderr.startswith("In job 1 (")
    assert " and 1 more: model.layers.conv1.out_channels must " in done.stderr
    assert len(done.stderr.splitlines()) == 1


class Untouchable:
    """A section that nobody reads."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


def test_checks_read_no_section_that_jobs_with_the_same_network_may_differ_in() -> None:
    sections = checks.UNCHECKED - {"seed"}  # which only changes initial weights, and none are made
    check(config_of(*SMALL).model_copy(update=dict.fromkeys(sections, Untouchable())))


def test_places_are_searched_for_equal_runs_once_in_a_sweep(
    fake_sweep: Sweep, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    from era_cnn.sweeps import reuse

    searched: list[Path] = []
    original = reuse.walk
    monkeypatch.setattr(reuse, "walk", lambda place: [searched.append(place), original(place)][1])
    words = ("sweep.reuse=true", "sweep.reuse_from=[a,b]", "seed=range(5)", "hydra.sweep.dir=sweep")
    assert fake_sweep("-m", *SMALL, *words, sabotage={2: "raise"}).returncode == 1
    assert searched == [Path.cwd() / "a", Path.cwd() / "b"]
    searched.clear()
    assert fake_sweep("resume", "sweep", "sweep.reuse_from=[a]").returncode == 0
    assert searched == [Path.cwd() / "a"]
    assert fake_sweep("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=other").returncode == 0
    assert len(searched) == 1


def test_the_ledger_knows_the_jobs_that_compute_the_same(fake_sweep: Sweep) -> None:
    fake_sweep("-m", *SMALL, "seed=1,2", "name=a,b", "hydra.sweep.dir=sweep")
    ledger = Ledger(Path("sweep/ledger.jsonl"))
    jobs = [entry.job for entry in ledger.latest() or ()]
    assert [ledger.folders_of(job.config_sha256) for job in jobs] == [["0_a", "1_b"]] * 2 + [["2_a", "3_b"]] * 2
    assert ledger.folders_of("0" * 64) == []
    ledger.path.write_bytes(ledger.path.read_bytes() + f'{{"torn": "{jobs[0].config_sha256}'.encode())
    assert ledger.folders_of(jobs[0].config_sha256) == ["0_a", "1_b"]
    ledger.path.write_bytes(f'{{"damaged": "{jobs[0].config_sha256}"}}\n'.encode())
    assert ledger.folders_of(jobs[0].config_sha256) == []
    ledger.path.unlink()
    assert ledger.folders_of(jobs[0].config_sha256) == []


LOCAL = LocalLauncher(name="local", n_jobs=None)


@pytest.mark.parametrize(
    ("launcher", "typed", "threads", "num_jobs", "cores", "said"),
    [
        (LOCAL, [], 2, 10, 2, "so 1 job at a time fits on 2 cores. To run 2 at once, add threads=1."),
        (LOCAL, ["seed=1"], 4, 10, 8, "so 2 jobs at a time fit on 8 cores. To run 8 at once, add threads=1."),
        (LOCAL, [], 2, 3, 4, "so 2 jobs at a time fit on 4 cores. To run 3 at once, add threads=1."),
        (LOCAL.model_copy(update={"n_jobs": 3}), [], 2, 9, 4, "so 2 jobs at a time fit on 4 cores. To run 3 at once"),
        (LOCAL, ["threads=2"], 2, 10, 2, ""),
        (LOCAL, ["++threads=2"], 2, 10, 2, ""),
        (LOCAL, ["threads=1,2"], 1, 10, 2, ""),
        (LOCAL, [], 2, 2, 4, ""),
        (LOCAL, [], 2, 1, 2, ""),
        (LOCAL, [], 2, 10, 1, ""),
        (LOCAL, [], 1, 10, 2, ""),
        (LOCAL.model_copy(update={"n_jobs": 1}), [], 2, 10, 2, ""),
        (BasicLauncher.model_construct(), [], 2, 10, 2, ""),
    ],
)
def test_one_thread_is_suggested_where_jobs_would_compete(
    launcher: Any, typed: list[str], threads: int, num_jobs: int, cores: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "available_cores", lambda: list(range(cores)))
    hint = hint_at_threads(launcher, typed, threads=threads, num_jobs=num_jobs)
    assert hint.startswith(f"Each job has threads={threads}, {said}" if said else "")
    assert bool(hint) is bool(said)


def test_the_suggestion_is_made_once_before_the_jobs_begin(fake_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "available_cores", lambda: [0, 1])
    words = [word for word in SMALL if not word.startswith("threads")]
    done = fake_sweep("-m", *words, "seed=1,2,3", "hydra/launcher=local", "hydra.sweep.dir=sweep")
    assert done.returncode == 0
    first, *others = done.stdout.splitlines()
    assert first == "Each job has threads=2, so 1 job at a time fits on 2 cores. To run 2 at once, add threads=1."
    assert not any("threads=1" in line for line in others)
    assert "threads=1." not in fake_sweep("-m", *SMALL, "seed=1,2", "hydra/launcher=local", "hydra.sweep.dir=b").stdout
