"""Collects where a result comes from: code, plugins, packages and machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import era_cnn
from era_cnn.config.code_digests import plugin_digests
from era_cnn.config.schema import RunConfig, used_entries
from era_cnn.config.versions import NUMERICS
from era_cnn.folders.storage import files_sha256

PACKAGE_DIR = Path(era_cnn.__file__).parent

ENVIRONMENT = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "KMP_AFFINITY",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "SLURM_JOB_ID",
)
"""The environment variables that are recorded, since they can change a result or say where it was computed.

No others are recorded, since they may hold secrets.
"""


def collect(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """The code and the machine that a result of a config may depend on, as plain values."""
    used = used_entries(config)
    return {
        "numerics": NUMERICS,
        "plugins": {name: sha256 for name, sha256 in sorted(plugin_digests().items()) if name in used},
        "code": {"version": era_cnn.__version__, "sha256": code_sha256(), "git": _git()},
        "python": platform.python_version(),
        "packages": dict(
            sorted(
                (read["Name"], read["Version"]) for dist in metadata.distributions() if (read := dist.metadata)["Name"]
            )
        ),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": config.threads,
            "device": _device_name(device),
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def code_sha256() -> str:
    """The digest over the names and contents of the package's Python files."""
    return files_sha256(PACKAGE_DIR, "*.py")


def _git() -> dict[str, Any] | None:
    """Commit, changes and new files of the checkout that the package was imported from; None if it is not in one.

    An installed package may be inside another repository (a virtual environment within a project), so its own files
    must be tracked. Only new files that a run can use are recorded, since others may hold secrets.
    """
    if _run_git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _run_git("rev-parse", "HEAD")
    diff = _run_git("diff", "--no-ext-diff", "--no-textconv", "HEAD", "--", ":/")
    listed = _run_git("ls-files", "--others", "--exclude-standard", "--full-name", ":/era_cnn/**.py", ":/conf/**.yaml")
    top = Path((_run_git("rev-parse", "--show-toplevel") or "").strip())
    untracked = {
        name: (top / name).read_text(encoding="utf-8", errors="replace") for name in (listed or "").splitlines()
    }
    return {"commit": (commit or "").strip(), "diff": diff or "", "untracked": untracked}


def _run_git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE_DIR), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
