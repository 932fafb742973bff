"""Where a result comes from: code, packages, machine, data and the words that started it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import era_cnn
from era_cnn.config import RunConfig

PACKAGE_DIR = Path(era_cnn.__file__).parent


def collect(config: RunConfig, *, device: torch.device, data_sha256: str, command: list[str]) -> dict[str, Any]:
    """Everything that a result may depend on, as plain values. Of the environment, nothing: it may hold secrets."""
    return {
        "command": command,
        "code": {"version": era_cnn.__version__, "sha256": code_sha256(), "git": _git()},
        "config_sha256": config.digest(),
        "data_sha256": data_sha256,
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
        },
    }


def code_sha256() -> str:
    """Digest over the names and contents of the package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE_DIR.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE_DIR).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _git() -> dict[str, Any] | None:
    """Commit, changes and new files of the checkout that the package was imported from; None outside of one.

    An installed package may lie in somebody else's repository (a virtual environment within a project), so its own
    files must be tracked.
    """
    if _run_git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit, diff = _run_git("rev-parse", "HEAD"), _run_git("diff", "HEAD", "--", ":/")
    listed = _run_git("ls-files", "--others", "--exclude-standard", "--full-name", ":/*.py", ":/*.yaml") or ""
    top = Path((_run_git("rev-parse", "--show-toplevel") or "").strip())
    untracked = {name: (top / name).read_text(encoding="utf-8", errors="replace") for name in listed.splitlines()}
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
