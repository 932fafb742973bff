"""Where a result comes from: code, packages, machine, data and the words that started it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import era_cnn
from era_cnn.folders.run import RunFolder
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
"""The environment variables that are recorded, since they can change a result or say where it came to be.

No other is: one may hold a secret.
"""

_PLACES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")
"""Those of them that only say where: what device it was is recorded by its name."""

COMPUTING = re.compile(r"(torch|torchvision|numpy|scipy|scikit-learn|pillow|triton|mkl|intel-|nvidia-|cuda-).*", re.I)
"""The packages that compute. Whether another one changes, as one for tests, changes no result."""


def collect(device: torch.device) -> dict[str, Any]:
    """The code and the machine that a result may depend on, as plain values."""
    return {
        "code": {"version": era_cnn.__version__, "sha256": code_sha256(), "git": _git()},
        "python": platform.python_version(),
        "packages": dict(
            sorted((dist.metadata["Name"], dist.version) for dist in metadata.distributions() if dist.metadata["Name"])
        ),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": _device_name(device),
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def record(folder: RunFolder, origin: dict[str, Any], say: Callable[[str], None]) -> None:
    """Writes provenance.json: how a run began, and, each time that it goes on, how. Says what is different by then."""
    if not (folder.path / "provenance.json").exists():
        folder.write_json("provenance.json", origin)
        return
    before = folder.read_json("provenance.json")
    changes = list(differences(before, origin))
    if changes:
        say(f"Not as when the run began, so its bits may differ: {'; '.join(changes)}")
    folder.write_json("provenance.json", {**before, "resumed": [*before.get("resumed", []), origin]})


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What a result may depend on and that is not the same, the likeliest cause of other bits first."""
    names = {
        "data": ("data_sha256",),
        "config": ("config_sha256",),
        "code of era_cnn": ("code", "sha256"),
        "device": ("machine", "device"),
        "threads": ("machine", "threads"),
        "processor": ("machine", "processor"),
        "instruction set": ("machine", "cpu_capability"),
        "CUDA": ("machine", "cuda"),
        "Python": ("python",),
    }
    pairs = [(name, _at(before, path), _at(now, path)) for name, path in names.items()]
    for section in ("environment", "packages"):
        one, other = before.get(section, {}), now.get(section, {})
        in_order = sorted({*one, *other}, key=lambda name: (name != "torch", name))
        pairs += [
            (name, one.get(name), other.get(name))
            for name in in_order
            if (COMPUTING.match(name) if section == "packages" else name not in _PLACES)
        ]
    for name, old, new in pairs:
        if old != new:
            yield f"{name} {_shortened(old)} → {_shortened(new)}"


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _shortened(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def code_sha256() -> str:
    """Digest over the names and contents of the package's Python files."""
    return files_sha256(PACKAGE_DIR, "*.py")


def _git() -> dict[str, Any] | None:
    """Commit, changes and new files of the checkout that the package was imported from; None outside of one.

    An installed package may lie in somebody else's repository (a virtual environment within a project), so its own
    files must be tracked. New files are those that a run can be made of: any other may hold a secret.
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
