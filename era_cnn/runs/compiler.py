"""PyTorch's compiler for one run: whether it can work here, where its results are kept, and what it took."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import torch

from era_cnn.data.batches import TrainingBatches
from era_cnn.errors import ConfigError, StorageError, problem, shortened
from era_cnn.paths import cache_dir
from era_cnn.processor import processor_features
from era_cnn.sharing import one_at_a_time, store
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


def silent(message: str) -> None:
    """Says nothing."""


def compile_training(objective: Objective, train: TrainingBatches, say: Callable[[str], None] = silent) -> None:
    """Compiles the training step for full batches, or reads it from the user's cache; says so, and how long it took.

    Of several processes, such as the jobs of a sweep, one compiles and the others read what it has left.

    Raises:
        ConfigError: If the network can't be compiled, such as one with a block of a plugin that looks at its values.
        StorageError: If the cache can't be written to, or another process does not leave it.
    """
    say("Compiling the training step, unless it was done before: this can take a minute")
    batch = next(train.epoch(1))
    with _place(batch.images.device):
        import torch._dynamo  # takes a second
        from torch._dynamo.exc import TorchDynamoException

        torch._dynamo.reset()  # it remembers the networks of earlier runs in this process, and gives up after eight
        try:
            seconds = compile_pass(objective, batch)
        except TorchDynamoException as error:
            # Whether code can be compiled and kept was checked at the start; a resumed run may have started elsewhere.
            check_compiler(batch.images.device)
            rule = "be false for a network that PyTorch's compiler refuses"
            raise ConfigError([f"trainer.compile must {rule}, got true and: {_reason(error)}. Remove it."]) from error
        except OSError as error:
            raise _unusable(os.environ[PLACE], error) from error
    say(f"Compiled the training step in {seconds:.0f} seconds")


def _reason(error: Exception) -> str:
    """Why the compiler refuses a network, and the line of code that it was at, as far as it says so."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
    details = [line.partition(": ")[2] for line in lines if line.startswith("Developer debug context: ")]
    frames = getattr(error, "real_stack", None) or []
    places = [f"at {frame.filename}:{frame.lineno}" for frame in frames[-1:]]
    said = [*(lines or [type(error).__name__])[:1], *details[:1]]
    return ", ".join([*(shortened(each.rstrip("."), 200) for each in said), *places])


@contextmanager
def _place(device: torch.device, what: str = "networks") -> Iterator[None]:
    """Within the context, the compiler keeps its results in a folder for this machine and these versions.

    The folder is locked, so that other processes wait.
    """
    base = _base()
    with _keeping_in(base):
        folder = base / _key(device) / what
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = one_at_a_time(
                folder,
                "compiles a network in",
                wait_seconds=WAIT_SECONDS,
                wanted="Compiled code",
                error=StorageError,
            )
            stack.enter_context(_intact(folder, is_alone=stack.enter_context(lock)))
        except OSError as error:
            raise _unusable(folder, error) from error
        with _keeping_in(folder):
            yield


def _base() -> Path:
    """The folder of all compiled code: in the one that the user chose, or in the user's cache.

    PyTorch sets its own default, in passing, whenever it looks for one: that is no choice. It looks for one as soon as
    its compiler is imported, which fails if the folder can't be used.

    Raises:
        StorageError: If nothing can be written there.
    """
    if chosen := os.environ.get(PLACE):
        folder = _usable(Path(chosen).absolute())
        with _keeping_in(folder):
            from torch._inductor.runtime.cache_dir_utils import default_cache_dir
        if chosen != default_cache_dir():
            return _usable(folder / "era_cnn")
    return _usable(cache_dir() / "compiled")


def _usable(folder: Path) -> Path:
    """The folder, which is created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def _unusable(folder: str | Path, error: OSError) -> StorageError:
    rule = "must be a folder that can be written to, since compiled code is kept there"
    return StorageError(
        f"{folder} {rule}, got: {error.strerror or error}. Set {PLACE} to another one, or free some space."
    )


@contextmanager
def _keeping_in(folder: Path) -> Iterator[None]:
    """Within the context, the compiler keeps what it writes in a folder, and its own warnings to itself."""
    # The first misses a GPU that nobody asked for, and the second shows a traceback where the disk is full: what is not
    # kept is compiled again.
    loggers = [logging.getLogger(f"torch.{name}") for name in ("utils.cpp_extension", "_inductor.codecache")]
    levels, place = [logger.level for logger in loggers], os.environ.get(PLACE)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    os.environ[PLACE] = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        os.environ.pop(PLACE, None)
        if place is not None:
            os.environ[PLACE] = place


@contextmanager
def _intact(folder: Path, *, is_alone: bool) -> Iterator[None]:
    """Removes damaged files from a folder of compiled code, and what an interrupted process has left half-written.

    PyTorch loads whatever has the right name: a library that is cut short ends the process with a bus error. Within
    the context, what was removed is compiled again.
    """
    listed = folder / "sha256.json"
    try:
        known = json.loads(listed.read_bytes())
    except (OSError, ValueError):
        known = {}
    for name, sha256 in _digests(folder).items():
        unlisted = None if is_alone else sha256  # without a lock, another process may be about to write it
        if known.get(name, unlisted) != sha256:
            (folder / name).unlink(missing_ok=True)
    yield
    with suppress(OSError):  # then all is compiled again
        store(listed, json.dumps(_digests(folder)).encode())


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each file of the compiler's, by its path within the folder."""
    found = {}
    for path in folder.glob("*/**/*"):
        with suppress(IsADirectoryError, FileNotFoundError):  # another process has removed it
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _key(device: torch.device) -> str:
    """A digest of what decides the compiled code and is not in the network."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else " ".join(processor_features())
    with suppress(*_NO_COMPILER):  # then there is nothing to compile
        where += "\n".join(_compiler())
    text = "\n".join([torch.__version__, str(torch.get_num_threads()), where])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_compiler(device: torch.device) -> None:
    """Raises a `ConfigError` if there is no compiler that can build a small program with OpenMP."""
    if device.type == "mps":
        raise ConfigError([problem("trainer.compile", "be false on mps", True, "Remove it.")])
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigError([problem("trainer.compile", "have Triton on cuda", True, "Install it: pip install triton")])
    for name in ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"):
        if os.environ.get(name) == "1":
            rule = f"be used without {name}=1, which switches PyTorch's compiler off"
            raise ConfigError([problem("trainer.compile", rule, True, "Unset the variable.")])
    if complaint := _complaint():
        rule = f"have a C++ compiler with OpenMP, got {complaint}"
        raise ConfigError([f"trainer.compile must {rule}. Install one, such as g++, or set trainer.compile=false."])


def toolchain(device: torch.device) -> dict[str, str]:
    """What decides the code that the compiler makes of a network, under the names that provenance.json has for it.

    Such as `g++ 12.2.0, avx512`, with the instructions that may be used; `g++`; `-O3 -mavx512f`.
    """
    with _place(device, "instructions"):  # others need not wait for those that compile networks
        from torch._inductor.cpp_builder import CppTorchDeviceOptions
        from torch._inductor.cpu_vec_isa import pick_vec_isa

        command, version = _compiler()
        instructions = pick_vec_isa()
        options = CppTorchDeviceOptions(vec_isa=instructions, device_type="cpu")
    words = [*(f"-{flag}" for flag in options.get_cflags()), *options.get_passthrough_args()]
    flags = " ".join(filter(None, words))
    return {"compiler": f"{version}, {instructions}", "compiler_command": command, "compiler_flags": flags}


def _compiler() -> tuple[str, str]:
    """The command of the C++ compiler, such as `ccache g++`, and its version."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    command = get_cpp_compiler()
    done = subprocess.run([*shlex.split(command), "--version"], capture_output=True, text=True, timeout=60, check=True)
    return command, done.stdout.splitlines()[0]


_NO_COMPILER = (OSError, RuntimeError, subprocess.SubprocessError)
"""What is raised where there is none."""


def _complaint() -> str:
    """Why no program can be built, or nothing."""
    with tempfile.TemporaryDirectory() as folder, _keeping_in(_base()):
        from torch._inductor.cpp_builder import get_cpp_compiler

        source = Path(folder, "sample.cpp")
        try:
            source.write_text(_SAMPLE, encoding="utf-8")
            words = [*shlex.split(get_cpp_compiler()), "-fopenmp", str(source), "-o", str(source.with_suffix(""))]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        except _NO_COMPILER as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        return (done.stderr.strip().splitlines() or ["an error"])[0][:200] if done.returncode else ""
