from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from era_cnn.cli import execute
from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.config.schema import RunConfig

CONF_DIR = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").rglob("*.yaml"))
MNIST_ROOT = os.environ.get("ERA_CNN_DATA")


@cache
def config_of(*overrides: str) -> RunConfig:
    """Composed and validated as the command does it; once for each set of overrides, since nothing changes a config."""
    return validated(compose(Words(list(overrides))))


@pytest.fixture(autouse=True)
def _no_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test stands in an empty folder of its own, so that what it leaves behind is seen and is gone."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `era-cnn models` stores stays out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _jobs_can_fail() -> Iterator[None]:
    """Jobs of sweeps are forked from a process that begins once: it must know from the beginning how they may fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "sweeps" / "sabotage"))
        patch.setenv("SABOTAGE", "{}")
        yield


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `era-cnn` in this process; gives exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = execute(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
