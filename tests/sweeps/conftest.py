from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import read_write

from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.launchers import LocalLauncher
from era_cnn.compose.words import Words, load
from era_cnn.folders.outcome import Outcome
from era_cnn.folders.sweep import SweepFolder
from tests.process import run_command
from tests.sweeps.fakes import FakeExecutor, Script

SMALL = (
    "experiment=model_4_digits", "threads=1", "device=cpu", "trainer.limit_epochs=2", "trainer.limit_train_images=64",
    "trainer.limit_test_images=50",
)  # fmt: skip
"""A job of a fraction of a second, its imports aside."""


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def sweep(command, sabotaged) -> Callable[..., Ended]:
    """Runs `era-cnn` in this process; the jobs have processes of their own, and fail on purpose."""

    def run(*words: str, sabotage: dict[int, str] | None = None) -> Ended:
        sabotaged(sabotage or {})
        return Ended(*command(*words))

    return run


@pytest.fixture
def sweep_process(sabotaged) -> Callable[..., Ended]:
    """The same in a process of its own, for launchers that change the one that they are in."""

    def run(*words: str, sabotage: dict[int, str] | None = None) -> Ended:
        sabotaged(sabotage or {})
        done = run_command(*words)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts fakes in the place of all that does jobs, one at a time or as many as `hydra/launcher=local` says, or two.

    The same words are composed only once, since these tests are not about configs.
    """
    script = Script()

    def make(sweep_dir, words, composed, options, manner) -> FakeExecutor:
        is_local = isinstance(options.launcher, LocalLauncher)
        at_once = (options.launcher.n_jobs or 2) if is_local else 1
        return FakeExecutor(sweep_dir, script, at_once)

    monkeypatch.setattr("era_cnn.sweeps.commands.make_executor", make)
    monkeypatch.setattr("era_cnn.sweeps.commands.prepare_workers", lambda launcher, config: None)
    monkeypatch.setattr("era_cnn.sweeps.search.PRUNE_SECONDS", -1.0)
    for module in ("composition", "planner"):
        monkeypatch.setattr(f"era_cnn.compose.{module}.load", _load_once)
    return script


_loaded: dict[object, bytes] = {}
"""What was composed, pickled, by the words that it was composed from."""


def _load_once(loader: ConfigLoader, words: Words, overrides: Sequence[str], mode: RunMode) -> Composed:
    """As `era_cnn.compose.words.load`."""
    if words.config_dir is not None:
        return load(loader, words, overrides, mode)
    key = words.config_name, tuple(overrides), mode
    if key not in _loaded:
        _loaded[key] = pickle.dumps(load(loader, words, overrides, mode))
    composed: Composed = pickle.loads(_loaded[key])
    with read_write(composed):
        composed.hydra.runtime.cwd = os.getcwd()
    return composed


@pytest.fixture
def fake_sweep(command, script: Script) -> Callable[..., Ended]:
    """Runs `era-cnn` in this process, with jobs that train nothing; `sabotage` is `Script.ways`."""

    def run(*words: str, sabotage: dict[int, str] | None = None) -> Ended:
        script.ways = sabotage or {}
        return Ended(*command(*words))

    return run


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The digest of the weights of `SMALL` with the seeds 0 to 3, in a sweep that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SABOTAGE", "{}")  # the test that asks first may have set it
        done = run_command("-m", *SMALL, "seed=range(4)", f"hydra.sweep.dir={folder}")
    assert done.returncode == 0, done.stderr
    return weights_of(outcomes_of(str(folder)))


def outcomes_of(path: str = "sweep") -> list[Outcome]:
    """What became of the jobs of a sweep."""
    folder = SweepFolder(Path(path).absolute())
    return folder.outcomes(folder.jobs())


def weights_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The digest of each job's weights; of one without a result, nothing."""
    return [outcome.result["weights_sha256"] if outcome.result else "" for outcome in outcomes]
