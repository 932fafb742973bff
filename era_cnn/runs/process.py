"""Settings of the process that a run is in: device, threads and determinism."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, problem


def pick_device(name: str) -> torch.device:
    """The device called `name`; for `auto`, the first of cuda, mps and cpu that is available.

    Raises:
        ConfigError: If it is not available.
    """
    available = _available()
    if name not in ("auto", *available):
        rule = f"be available: this machine has {', '.join(available)}"
        raise ConfigError([problem("device", rule, name, "Use device=auto for the fastest one.")])
    return torch.device(available[0] if name == "auto" else name)


def is_available(name: str) -> bool:
    """Whether this machine has the device called `name`, or any for `auto`."""
    return name == "auto" or name in _available()


def _available() -> list[str]:
    """The kinds of devices of this machine, the fastest first."""
    accelerators = {"cuda": torch.cuda, "mps": torch.backends.mps}
    return [*(name for name, module in accelerators.items() if module.is_available()), "cpu"]


def device_of(config: RunConfig) -> torch.device:
    """The device of a run; a portable one is trained on the processor.

    Raises:
        ConfigError: If it is not available.
    """
    return pick_device("cpu" if config.portable else config.device)


def check_threads(threads: int) -> None:
    """Raises a `ConfigError` if OpenMP may start fewer threads: PyTorch would wait for the missing ones forever."""
    if threads > 1 and os.environ.get("OMP_DYNAMIC", "").strip().lower() == "true":
        rule = "be 1 if the environment variable OMP_DYNAMIC is true, which drops threads on a busy machine"
        raise ConfigError([problem("threads", rule, threads, "Lower it, or unset the variable.")])
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdecimal() and int(limit) < threads:
        rule = f"be at most {limit}, the value of the environment variable OMP_THREAD_LIMIT"
        raise ConfigError([problem("threads", rule, threads, "Lower it, or unset the variable.")])


@contextmanager
def set_up(threads: int) -> Iterator[None]:
    """Within the context, sets the options of PyTorch that results depend on.

    Raises:
        ConfigError: If that number of threads is not available.
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
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # otherwise cuBLAS may differ from call to call
    torch.set_deterministic_debug_mode("error")  # like use_deterministic_algorithms(True), which imports the compiler
    backends.benchmark = False
    # Filling fresh memory exposes reads of it, but slows each step; the reproducibility tests expose them too.
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
