from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from era_cnn.errors import ConfigError
from era_cnn.runs.process import set_up

FAULTS = """
import resource, torch
from era_cnn.machine import keep_memory
torch.set_num_threads(1)
def use():
    kept = [torch.ones(2**20) for _ in range(10)]
def faults():
    for _ in range(5): use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10): use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
keep_memory()
print(faults())
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    # Whether the library gives memory back depends on where it lies; with this it does so always, unless told not to.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 10_000  # 40 MiB a time, in pages of 4 KiB
    assert kept < 1000


def settings() -> dict[str, object]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "benchmark": torch.backends.cudnn.benchmark,
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "generator": torch.get_rng_state().numpy().tobytes(),
    }


@pytest.fixture
def _put_back() -> Iterator[None]:
    before = (torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.set_deterministic_debug_mode(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.usefixtures("_put_back")
@pytest.mark.parametrize("workspace", [None, ":16:8"])
@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("error", [None, ValueError])
def test_what_a_run_sets_in_the_process_is_as_before_when_it_has_ended(
    workspace: str | None, mode: int, error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    torch.set_deterministic_debug_mode(mode)
    torch.backends.cudnn.benchmark = bool(mode)
    torch.utils.deterministic.fill_uninitialized_memory = bool(mode)
    before = settings()
    with pytest.raises(error) if error else nullcontext(), set_up(1):
        within = settings()
        assert within["threads"] == 1
        assert within["deterministic"] == 2
        assert within["benchmark"] is False
        assert within["fill"] is False
        assert within["workspace"] == (workspace or ":4096:8")
        torch.manual_seed(3)
        if error:
            raise error
    assert settings() == before


def test_more_threads_than_openmp_gives_are_refused_and_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_THREAD_LIMIT", "2")
    before = settings()
    message = "threads must be at most 2, the value of the environment variable OMP_THREAD_LIMIT, got 3. Lower it, or"
    with pytest.raises(ConfigError, match=message), set_up(3):
        pass
    assert settings() == before
    with set_up(2):
        assert torch.get_num_threads() == 2
