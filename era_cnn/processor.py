"""The processor of this machine, as the system describes it."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""What Linux says of each core."""


def processor_name() -> str:
    """The kind of processor. On x86 with family and model, since in a virtual machine one name covers generations."""
    values = _first_core()
    name = values.get("model name")
    if name is None:
        return platform.processor() or platform.machine()
    if "cpu family" not in values:
        return name
    return f"{name} (family {values['cpu family']}, model {values.get('model', '?')})"


def processor_features() -> list[str]:
    """The instructions that it has, such as `avx2`; empty where the system does not list them."""
    values = _first_core()
    return values.get("flags", values.get("Features", "")).split()


def cache_size() -> str | None:
    """The size of its cache, as the system names it; None where it doesn't."""
    return _first_core().get("cache size")


def is_same_processor(recorded: object, now: object) -> bool:
    """Whether two names mean the same kind, as far as they tell: earlier versions recorded no family and model."""
    if isinstance(recorded, str) and isinstance(now, str) and "(family " not in recorded:
        now = now.partition(" (family ")[0]
    return recorded == now


def _first_core() -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    if not CPUINFO.exists():
        return {}
    lines = CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
