"""Commands in processes of their own, without the seconds that a new interpreter takes to import torch.

A warm process imports what a run needs and computes nothing, since OpenMP's threads do not survive a fork. Each command
is a fork of it: a process like any other, from the first line of `cli.main` to its exit code, that can be watched,
stopped and killed. Only tests about start-up itself, or about what an interpreter does before `main`, start a new one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import io
import json
import multiprocessing.util
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from era_cnn.signals import SIGNALS

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "hydra.main", "optuna", "sklearn.datasets", "torch", "torch._dynamo", "torchinfo", "era_cnn.runs.replay", "era_cnn.runs.start",
    "era_cnn.sweeps.commands", "era_cnn.sweeps.reuse", "era_cnn.sweeps.search",
)  # fmt: skip
"""What a command may need; a name that is not there is left out if it is not ours."""

REPORTERS = ("era_cnn.runs.carry_out._report", "era_cnn.sweeps.commands._report")
"""The functions that write a report at the end of a run or sweep. Here, nobody reads it."""

TIMEOUT_SECONDS = 300.0
"""After which a command counts as stuck, and is killed."""


def preload(*words: str, fork_workers: bool = False) -> None:
    """Imports what a command needs, so that a fork has it. Computes nothing.

    Args:
        words: A config to compose once, so that Hydra's own caches are filled.
        fork_workers: Whether the process from which a sweep forks its workers is a fork, too, and not a new interpreter.
    """
    for name in IMPORTED:
        if name.startswith("era_cnn") or importlib.util.find_spec(name):
            importlib.import_module(name)
    from era_cnn.compose.composition import compose
    from era_cnn.compose.words import Words
    from era_cnn.data.digits import read_digits

    compose(Words(list(words)))
    read_digits(1437)  # with integers and without threads
    for path in REPORTERS:
        module, _, name = path.rpartition(".")
        setattr(importlib.import_module(module), name, lambda *arguments, **options: None)
    if fork_workers:
        multiprocessing.util.spawnv_passfds = _fork_instead(multiprocessing.util.spawnv_passfds)  # type: ignore[attr-defined]
    gc.freeze()
    atexit.register(gc.unfreeze)  # else libraries complain at the end that their objects are still there


def _fork_instead(start: Callable[..., int]) -> Callable[..., int]:
    """Forks where multiprocessing starts an interpreter for its fork server; passes everything else to `start`."""

    def start_or_fork(path: bytes, arguments: Sequence[Any], descriptors: Sequence[int]) -> int:
        if "forkserver" not in str(arguments[-1]):
            return start(path, arguments, descriptors)
        pid = os.fork()
        if pid == 0:
            try:
                kept = [0, 1, 2, *sorted(descriptors)]
                for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
                    os.closerange(before + 1, after)  # locks and pipes of the driver
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                exec(str(arguments[-1]), {})
            finally:
                os._exit(1)
        return pid

    return start_or_fork


class Command:
    """`era-cnn WORDS` in a process of its own, in this folder and environment; with the interface of `subprocess.Popen`.

    Args:
        words: The command line.
        before: Python code that the process executes first, to let it fail on purpose.
        stdout: Where standard output goes; a pipe if nothing is given.
    """

    def __init__(self, *words: str, before: str = "", stdout: int | None = None) -> None:
        self.returncode: int | None = None
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the command
        status, status_of_child = os.pipe()
        out = out_of_child = None
        if stdout is None:
            out, out_of_child = os.pipe()
        self.stdout = open(out, encoding="utf-8") if out is not None else io.StringIO()  # noqa: SIM115
        request = {"words": words, "before": before, "cwd": os.getcwd(), "environment": dict(os.environ)}
        descriptors = [status_of_child, stdout if out_of_child is None else out_of_child, self._err.fileno()]
        socket.send_fds(_warm_process(), [json.dumps(request).encode()], descriptors)  # type: ignore[list-item]
        for descriptor in (status_of_child, out_of_child):
            if descriptor is not None:
                os.close(descriptor)
        self._status = open(status, encoding="utf-8")  # noqa: SIM115 - likewise
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that killed it; None if it has not ended."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._settle()
        return self.returncode

    def wait(self, timeout: float = TIMEOUT_SECONDS) -> int:
        """Waits for the exit code."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                self.kill()
                raise TimeoutError(f"The command did not end within {timeout:.0f} seconds.")
            self._settle()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = TIMEOUT_SECONDS) -> tuple[str, str]:
        """What is left of standard output, and standard error, at the end of the command."""
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        try:
            out = self.stdout.read()
            self.wait(timeout)
        finally:
            timer.cancel()
            timer.join()
        self._err.seek(0)
        err = self._err.read().decode(errors="replace")
        self.close()
        return out, err

    def close(self) -> None:
        """Lets go of its streams."""
        for stream in (self.stdout, self._err, self._status):
            stream.close()

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _settle(self) -> None:
        self.returncode = int(self._status.readline())


def run_command(*words: str, before: str = "", stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    """`era-cnn WORDS` in a process of its own, to its end."""
    command = Command(*words, before=before, stdout=stdout)
    out, err = command.communicate()
    return subprocess.CompletedProcess(words, command.wait(), out, err)


@cache
def _warm_process() -> socket.socket:
    """Starts the process that commands are forked from, once; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = [sys.executable, "-m", "tests.process", str(theirs.fileno())]
    descriptors = {"pass_fds": [theirs.fileno()], "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(program, cwd=ROOT, start_new_session=True, **descriptors)  # type: ignore[call-overload]
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(connection: socket.socket) -> None:
    """Forks a command for each request, until nobody is there to ask. Returns in none of them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 2**20, 3)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            _watch(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: dict[str, Any], status: int, out: int, err: int) -> None:
    """Forks the command, and tells whoever asked for it its number and its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        be_the_command(request["words"], Path(request["cwd"]), out, err, request["before"], request["environment"])
    os.close(out)
    os.close(err)
    os.write(status, f"{pid}\n".encode())
    _, code = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def be_the_command(
    words: Sequence[str], where: Path, out: int, err: int, before: str, environment: dict[str, str]
) -> None:
    """Makes of this fork the process of a command. Ends as an interpreter does, through all exit handlers."""
    from era_cnn import cli

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(where)
    for source, target in ((out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    raw = open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115
    is_unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    out_stream = io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw), "utf-8", write_through=is_unbuffered
    )  # type: ignore[type-var]
    sys.stdout = sys.__stdout__ = out_stream  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc] # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.argv = ["era-cnn", *words]
    sys.modules["__main__"] = types.ModuleType("__main__")  # else workers would import this file
    atexit.unregister(gc.unfreeze)  # to visit every object once more takes seconds
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    exec(before, {})
    _end(cli.main())


def _end(code: int) -> None:
    """Ends this fork as an interpreter ends, except that it does not delete all that was imported, which takes 0.4 s.

    If its output can't be written, the interpreter itself ends, since it complains then.
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)


if __name__ == "__main__":
    preload("experiment=model_4_digits", fork_workers=True)
    _serve(socket.socket(fileno=int(sys.argv[1])))
