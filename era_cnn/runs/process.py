"""The process that a run is in: its device, its threads, and what holds for all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from era_cnn.errors import ConfigError, problem


def pick_device(name: str) -> torch.device:
    """The device called `name`; for `auto`, the first of cuda, mps and cpu that is there.

    Raises:
        ConfigError: If it is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name != "auto" and name not in available:
        rule = f"be there: this machine has {', '.join(available)}"
        raise ConfigError([problem("device", rule, name, "Use device=auto for the fastest one.")])
    return torch.device(available[0] if name == "auto" else name)


def check_threads(threads: int) -> None:
    """Raises a `ConfigError` if OpenMP may not give that many: PyTorch would wait for the missing ones for ever."""
    if threads > 1 and os.environ.get("OMP_DYNAMIC", "").strip().lower() == "true":
        rule = "be 1 where the environment's OMP_DYNAMIC is true, which leaves out threads on a busy machine"
        raise ConfigError([problem("threads", rule, threads, "Lower it, or unset the variable.")])
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdecimal() and int(limit) < threads:
        rule = f"be at most {limit}, as the environment's OMP_THREAD_LIMIT says"
        raise ConfigError([problem("threads", rule, threads, "Lower it, or unset the variable.")])


@contextmanager
def set_up(threads: int) -> Iterator[None]:
    """Sets what the bits of a result depend on, for as long as the context lasts.

    Raises:
        ConfigError: If there can't be so many threads.
    """
    check_threads(threads)
    backends, deterministic = torch.backends.cudnn, torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        os.environ.get(_WORKSPACE),
        torch.get_deterministic_debug_mode(),
        backends.benchmark,
        deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.get_rng_state(),
    )
    torch.set_num_threads(threads)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # else cuBLAS may differ from call to call
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms(True), which imports the compiler
    backends.benchmark = False
    # Filling fresh memory shows reads of it, at a price in each step; the tests of equal bits show them too.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        if before[1] is None:
            os.environ.pop(_WORKSPACE, None)
        torch.set_deterministic_debug_mode(before[2])
        backends.benchmark = before[3]
        deterministic.fill_uninitialized_memory = before[4]  # type: ignore[attr-defined]
        torch.set_rng_state(before[5])


_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
