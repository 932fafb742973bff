"""PyTorch's compiler for one run: whether it can work here, where its results are kept, and what it took."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from era_cnn.data.batches import TrainingBatches
from era_cnn.data.download import one_at_a_time
from era_cnn.errors import ConfigError, StorageError, problem, shortened
from era_cnn.paths import cache_dir
from era_cnn.processor import processor_features
from era_cnn.training.compiled import compile_pass
from era_cnn.training.objective import Objective

PLACE = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable of PyTorch that says where compiled code is kept."""

WAIT_SECONDS = 3_600.0
"""How long to wait for another process that compiles."""

_SAMPLE = """
#include <omp.h>
#include <vector>
int main() { return std::vector<int>(1, omp_get_max_threads()).empty(); }
"""


def compile_training(objective: Objective, train: TrainingBatches) -> float:
    """Compiles the training step for full batches, or reads it from the user's cache; returns the seconds it took.

    Of several processes, such as the jobs of a sweep, one compiles and the others read what it has left.

    Raises:
        ConfigError: If the network can't be compiled, such as one with a block of a plugin that looks at its values.
        StorageError: If the cache can't be written to.
    """
    batch = next(train.epoch(1))
    with _place(batch.images.device), _quiet():
        import torch._dynamo  # takes a second, and chooses a place unless there is one
        from torch._dynamo.exc import TorchDynamoException

        torch._dynamo.reset()  # it remembers the networks of earlier runs in this process, and gives up after eight
        try:
            return compile_pass(objective, batch)
        except TorchDynamoException as error:
            check_compiler(
                batch.images.device
            )  # a run that goes on, or is replayed, was checked long ago, or elsewhere
            rule = "be false for a network that PyTorch's compiler refuses"
            lines = [line for line in str(error).strip().splitlines() if not line.endswith("raised:")]
            reason = f"true and: {shortened((lines or [type(error).__name__])[0], 200)}"
            raise ConfigError([f"trainer.compile must {rule}, got {reason}. Remove it."]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the context, the compiler's modules keep their own warnings to themselves."""
    logger = logging.getLogger("torch.utils.cpp_extension")  # it misses a GPU that nobody asked for
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _place(device: torch.device) -> Iterator[None]:
    """Within the context, the compiler keeps its results in a folder for this machine and these versions.

    The folder is locked, so that other processes wait.
    """
    chosen = _chosen_place()
    folder = Path(chosen) if chosen else cache_dir() / "compiled" / _key(device)
    with ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(one_at_a_time(folder, "a network", "compiles", WAIT_SECONDS))
        except OSError as error:
            raise StorageError.of(folder, error) from error
        os.environ[PLACE] = str(folder)
        try:
            yield
        finally:
            if chosen is None:
                os.environ.pop(PLACE, None)


def _chosen_place() -> str | None:
    """The place that the user chose, if any: PyTorch sets its own default, in passing, whenever it looks for one."""
    with _quiet():
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    place = os.environ.get(PLACE)
    return None if place == default_cache_dir() else place


def _key(device: torch.device) -> str:
    """A digest of what decides the compiled code and is not in the network."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else " ".join(processor_features())
    text = "\n".join([torch.__version__, str(torch.get_num_threads()), where])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_compiler(device: torch.device) -> None:
    """Raises a `ConfigError` if there is no compiler that can build a small program with OpenMP."""
    if device.type == "mps":
        raise ConfigError([problem("trainer.compile", "be false on mps", True, "Remove it.")])
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigError([problem("trainer.compile", "have Triton on cuda", True, "Install it: pip install triton")])
    if complaint := _complaint():
        rule = f"have a C++ compiler with OpenMP, got {complaint}"
        raise ConfigError([f"trainer.compile must {rule}. Install one, such as g++, or set trainer.compile=false."])


def compiler_version() -> str:
    """The C++ compiler and the instructions that it may use, such as `g++ 12.2.0, avx512`."""
    with _quiet():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.cpu_vec_isa import pick_vec_isa

        words, instructions = [get_cpp_compiler(), "--version"], pick_vec_isa()
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return f"{done.stdout.splitlines()[0]}, {instructions}"


def _complaint() -> str:
    """Why no program can be built, or nothing."""
    with _quiet():
        from torch._inductor.cpp_builder import get_cpp_compiler

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "sample.cpp")
        source.write_text(_SAMPLE, encoding="utf-8")
        try:
            words = [get_cpp_compiler(), "-fopenmp", str(source), "-o", str(source.with_suffix(""))]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired, RuntimeError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        return (done.stderr.strip().splitlines() or ["an error"])[0][:200] if done.returncode else ""
