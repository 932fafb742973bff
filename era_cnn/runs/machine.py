"""The machine that runs share: the cores that a process may use, how busy they are, and how OpenMP waits on them.

Imports no torch: some of this must be settled before torch is imported.
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
"""Rounds for which a thread of OpenMP spins before it sleeps: see benchmarks/README.md for how it was chosen."""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets OpenMP's threads sleep soon when they wait, unless the user has said how they are to wait.

    By default they spin for as long as the others need, which on a core that other processes use slows a run tenfold.
    It is read when torch is imported, and changes no bit.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use: as many as its affinity and its container's quota allow."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return cores[: max(1, math.floor(min(cpu_quota(), len(cores))))]


def cpu_quota(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """The cores' worth of time that the container of this process gets; infinity where nothing limits it.

    Args:
        cgroups: Where the control groups are mounted, version 1 or 2.
        own: Says which of them this process is in.
    """
    return min((quota for folder in _own_groups(cgroups, own) for quota in _quotas(folder)), default=math.inf)


def _own_groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The control groups of this process and those above them: the tightest one counts."""
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
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 2; "max" is no number
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 1; -1 is no limit
        quota_us = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        if quota_us > 0:
            yield quota_us / int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))


def keep_memory() -> None:
    """Lets the C library keep what a step frees for the next one, instead of asking the system for it anew.

    Else a step of a small network spends a fifth of its time on pages that the system takes back and clears. It holds
    for the rest of the process, so only a process of our own asks for it. Elsewhere than with glibc, nothing.
    """
    import ctypes  # takes some milliseconds

    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        for option, value in _MALLOPT.values():
            c_library.mallopt(option, value)


_MALLOPT = {  # by their numbers in malloc.h
    "M_TRIM_THRESHOLD": (-1, 2**29),  # above all that a step frees
    "M_MMAP_THRESHOLD": (-3, 2**25),  # the most that it takes: 32 MiB
    "M_MXFAST": (1, 0),  # else each large block that is freed has the small ones put in order
}


def load_of_others(threads: int) -> float:
    """The cores that other processes kept busy over the last minute, where a run uses `threads`; 0 if unknown."""
    with suppress(OSError, AttributeError):  # not everywhere
        return max(0.0, os.getloadavg()[0] - threads)
    return 0.0
