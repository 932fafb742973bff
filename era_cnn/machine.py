"""The machine that runs share: which cores a process may use, how busy they are, and how OpenMP's threads wait.

Does not import torch: some of these settings must be made before torch is imported.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

SPIN_COUNT = "10000"
"""Rounds for which an OpenMP thread spins before it sleeps; benchmarks/README.md has figures."""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets OpenMP's threads sleep soon while they wait, unless the user has set OMP_WAIT_POLICY.

    By default they spin until all threads are done, which can slow a run if other processes use the same cores.
    OpenMP reads the setting when torch is imported; it does not affect results.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use, within its affinity and its container's quota."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return cores[: max(1, math.floor(min(cpu_quota(), len(cores))))]


def cpu_quota(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """The CPU quota of this process's container, in cores; infinity if there is none.

    Args:
        cgroups: Where the control groups are mounted, version 1 or 2.
        own: The file that lists the control groups of this process.
    """
    return min((quota for folder in _own_groups(cgroups, own) for quota in _quotas(folder)), default=math.inf)


def _own_groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The control groups of this process and their parents; the smallest quota applies."""
    text = ""
    with suppress(OSError):  # not Linux
        text = own.read_text(encoding="utf-8")
    for line in text.splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups / controllers if (cgroups / controllers).is_dir() else cgroups / "cpu" if controllers else cgroups
        below = top / path.lstrip("/")
        yield from (folder for folder in (below, *below.parents) if folder == top or top in folder.parents)


def _quotas(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 2; "max" is not a number
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 1; -1 means no limit
        quota_us = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        if quota_us > 0:
            yield quota_us / int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))


def keep_memory() -> None:
    """Lets the C library keep the memory that a step frees, instead of requesting it again from the system.

    Without this, a step of a small network spends a fifth of its time on pages that the system takes back and clears.
    The setting lasts for the rest of the process, so only a process of our own makes it. Without glibc, does nothing.
    """
    import ctypes  # takes some milliseconds

    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        for option, value in _MALLOPT.values():
            c_library.mallopt(option, value)


_MALLOPT = {  # parameter numbers from malloc.h, and values
    "M_TRIM_THRESHOLD": (-1, 2**29),  # more than a step frees
    "M_MMAP_THRESHOLD": (-3, 2**25),  # the largest value allowed: 32 MiB
    "M_MXFAST": (1, 0),  # otherwise freeing a large block also consolidates all small ones
}


def load_of_others(threads: int) -> float:
    """The number of cores that other processes used over the last minute, if a run uses `threads`; 0 if unknown."""
    with suppress(OSError, AttributeError):  # not available on every system
        return max(0.0, os.getloadavg()[0] - threads)
    return 0.0
