"""Collects where a result comes from: code, plugins, packages and machine."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import era_cnn
from era_cnn.config.code_digests import plugin_digests
from era_cnn.config.schema import RunConfig, used_entries
from era_cnn.config.versions import NUMERICS
from era_cnn.folders.storage import files_sha256
from era_cnn.processor import processor_name
from era_cnn.runs.checkout import read_checkout
from era_cnn.runs.collector import Collector, NotCollectedError
from era_cnn.runs.compiler import toolchain

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

COMPILER_ENVIRONMENT = (
    "COMPREHENSIVE_PADDING", "COOPERATIVE_REDUCTIONS", "COORDINATE_DESCENT_TUNING", "CPP_DYNAMIC_THREADS",
    "CPP_ENABLE_FLOATING_POINT_CONTRACT_FLAG", "CPP_ENABLE_TILING_HEURISTIC", "CPP_ENABLE_UNSAFE_MATH_OPT_FLAG",
    "CPP_MARCH", "CPP_MAX_HORIZONTAL_FUSION_SIZE", "CPP_MIN_CHUNK_SIZE", "CPP_NO_REDUNDANT_LOOPS",
    "CPP_USE_DECOMPOSE_TANH", "CPP_WEIGHT_PREPACK", "CPP_WRAPPER", "DETERMINISTIC", "DISABLED_PASSES",
    "EMULATE_DIVISION_ROUNDING", "EMULATE_PRECISION_CASTS", "FORCE_LAYOUT_OPT", "FREEZING", "LAYOUT_OPTIMIZATION",
    "LOOP_ORDERING_AFTER_FUSION", "MAX_AUTOTUNE", "MAX_AUTOTUNE_CONV_BACKENDS", "MAX_AUTOTUNE_GEMM",
    "MAX_AUTOTUNE_GEMM_BACKENDS", "MAX_AUTOTUNE_POINTWISE", "MULTI_KERNEL", "NUMERICS", "PERMUTE_FUSION",
    "PERSISTENT_REDUCTIONS", "SHAPE_PADDING", "SPLIT_REDUCTIONS", "USE_FAST_MATH", "VEC_ISA_OK",
)  # fmt: skip
"""The settings of PyTorch's compiler that change what it makes of a network, behind TORCHINDUCTOR_. Recorded if used.

There are 200 more, most of them about where it works and what it shows; one is an address with a password.
"""


def collect(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """The code and the machine that a result of a config may depend on, as plain values.

    What can't be collected is None; `not_collected` lists it, with the reasons.
    """
    used, collector = used_entries(config), Collector()
    compiler_settings = {f"TORCHINDUCTOR_{name}" for name in COMPILER_ENVIRONMENT if config.trainer.compile}
    return {
        "numerics": NUMERICS,
        "plugins": {name: sha256 for name, sha256 in sorted(plugin_digests().items()) if name in used},
        "code": {
            "version": era_cnn.__version__,
            "sha256": collector.get("digest of the code", code_sha256),
            "git": read_checkout(PACKAGE_DIR, collector),
        },
        "python": platform.python_version(),
        "packages": _packages(collector),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": collector.get("processor", processor_name),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": config.threads,
            "device": _device_name(device),
            "cuda": torch.version.cuda if device.type == "cuda" else None,
            **(
                (collector.get("compiler", toolchain, device) if config.trainer.compile else None) or {"compiler": None}
            ),
        },
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name in compiler_settings.union(ENVIRONMENT)
        },
        "not_collected": collector.missing,
    }


def code_sha256() -> str:
    """The digest over the names and contents of the package's Python files."""
    return files_sha256(PACKAGE_DIR, "*.py")


def _packages(collector: Collector) -> dict[str, str | None]:
    """The version of each installed package; of two with the same name, that which is imported."""
    versions: dict[str, str | None] = {}
    for dist in metadata.distributions():
        found = collector.get(f"a package in {dist.locate_file('')}", _name_and_version, dist)
        if found is None or found[0] in versions:
            continue
        name, version = found
        versions[name] = version
        if version is None:
            collector.missing.append(f"the version of {name}: its metadata has none")
    return dict(sorted(versions.items()))


def _name_and_version(dist: metadata.Distribution) -> tuple[str, str | None]:
    # `dist.metadata` parses the whole file, which takes a third of the time that it takes to start a run.
    text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or dist.read_text("") or ""
    headers = text.partition("\n\n")[0]
    name, version = (re.search(rf"(?mi)^{key}:[ \t]*(.*)", headers) for key in ("Name", "Version"))
    if not (name and name[1].strip()):
        raise NotCollectedError("its metadata has no name")
    return name[1].strip(), version[1].strip() if version else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
