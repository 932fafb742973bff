"""Portable arithmetic: one code path in each library, so that different x86-64 processors compute the same bits.

PyTorch, oneDNN and MKL choose their code by the features of the processor, and each choice rounds differently. They
read these settings once, so they must be made before torch is imported, and last for the rest of the process. What
was observed on which processors is in experiments/portability/.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import NoReturn

from era_cnn.errors import ConfigError, problem
from era_cnn.processor import processor_features

SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # matrix products
}
"""The environment variables that choose it."""


STARTED_WITH = Path("/proc/self/environ")
"""The environment that this process was started with, whatever Python has set since (Linux)."""


def are_made() -> bool:
    """Whether the environment has these settings, so that a new process would compute portably."""
    return all(os.environ.get(name) == value for name, value in SETTINGS.items())


def _were_made_in_time() -> bool:
    """Whether the settings were made before torch was imported, as far as that can be told."""
    if "torch" not in sys.modules or not are_made():
        return are_made()
    try:
        started_with = STARTED_WITH.read_bytes().split(b"\0")
    except OSError:
        return False
    return all(f"{name}={value}".encode() in started_with for name, value in SETTINGS.items())


class TooLateError(ConfigError):
    """Torch was imported for another arithmetic than a run wants."""


class _Process:
    """How this process computes."""

    is_portable = _were_made_in_time()  # such as in a process that a sweep started
    is_chosen = False


def choose_arithmetic(portable: bool) -> None:
    """Makes this process compute portably, if asked to; to be called before torch is imported.

    Raises:
        TooLateError: If torch was imported for another arithmetic.
        ConfigError: If the environment chooses other code.
    """
    if not portable and _Process.is_chosen:
        rule = "be true in this process, which computes portably since its first such run"
        raise TooLateError([problem("portable", rule, portable, "Start a new process.")])
    if not portable or _Process.is_portable:
        return
    for name, value in SETTINGS.items():
        if os.environ.get(name, value) != value:
            rule = f"be {value} for portable=true"
            raise ConfigError([problem(f"The environment variable {name}", rule, os.environ[name], "Unset it.")])
    if "torch" in sys.modules:
        rule, made = "be false in a process that has imported torch", " ".join(map("=".join, SETTINGS.items()))
        raise TooLateError([problem("portable", rule, portable, f"Start a new one, or start it with {made}.")])
    os.environ.update(SETTINGS)
    _Process.is_portable = _Process.is_chosen = True


def start_again() -> NoReturn:
    """Starts this process again, with the environment that makes it portable. Nothing was written yet."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **SETTINGS})


def prefer_arithmetic(portable: bool) -> None:
    """Makes this process compute portably, if asked to and possible."""
    if portable and "torch" not in sys.modules and _may_have_avx2():
        choose_arithmetic(portable)


def _may_have_avx2() -> bool:
    """Whether the processor has AVX2, as far as the system says: PyTorch believes the environment, and would crash."""
    if features := processor_features():
        return "avx2" in features
    return platform.machine().lower() in ("x86_64", "amd64")


def check_processor(portable: bool) -> None:
    """Checks that this process computes as a run wants, once torch is imported.

    Raises:
        TooLateError: If torch was imported for another arithmetic.
        ConfigError: If the run is to be portable, and PyTorch does not use AVX2, or the processor does not have it.
    """
    import torch

    choose_arithmetic(portable)
    if not portable:
        return
    used = torch.backends.cpu.get_cpu_capability()
    has_avx2 = torch.cpu._is_avx2_supported()  # for what is used, PyTorch believes the environment
    if used != "AVX2" or not has_avx2:
        why = f"for which PyTorch uses {used}" if has_avx2 else "which has no AVX2"
        rule = f"be false on this processor, {why}"
        raise ConfigError([problem("portable", rule, portable, "Use an x86-64 processor with AVX2.")])
