"""Runs jobs on this machine, in worker processes that survive a failing job."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from era_cnn.compose.complaints import reason_of
from era_cnn.errors import ProcessError
from era_cnn.folders.ledger import Job
from era_cnn.machine import available_cores
from era_cnn.signals import SIGNALS
from era_cnn.sweeps.executor import Ended, Manner
from era_cnn.sweeps.worker import serve

# Other systems' libraries do not survive a fork, and an older Python would import from the current directory.
_FORKS = sys.platform == "linux" and sys.version_info >= (3, 11)
_CONTEXT: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")


def prepare(modules: Sequence[str] = ()) -> None:
    """Starts the process that workers are forked from, and lets it import what jobs need, so that it happens once.

    That process computes nothing, since threads do not survive a fork. It ends with the last of its workers and this
    process.

    Args:
        modules: Further modules that the jobs of this sweep need.
    """
    if _FORKS:
        from multiprocessing import forkserver, resource_tracker

        with _signals_blocked(), _same_modules():  # a closed terminal must not end it
            resource_tracker.ensure_running()
        _CONTEXT.set_forkserver_preload(["era_cnn.runs.carry_out", "era_cnn.sweeps.reuse", *modules])
        # Blocked again, since the start unblocked some.
        with _signals_blocked(), _same_modules(), _short_temporary_folder(), _in_root():
            forkserver.ensure_running()


@contextmanager
def _in_root() -> Iterator[None]:
    """Within the context, the current directory is the root, which nobody removes; workers change to that of the sweep.

    MKL ends a process whose directory is gone when it first computes.
    """
    before = os.open(".", os.O_PATH)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Within the context, the temporary folder has a path that a Unix socket can have: at most 107 bytes in all.

    If TMPDIR is longer, another folder is used for the socket alone. Python does so by itself from 3.14.
    """
    before = tempfile.tempdir
    longest = MAX_SOCKET_PATH - len("/pymp-12345678/listener-12345678")
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")
    usable = (place for place in places if len(os.fsencode(place)) <= longest and os.access(place, os.W_OK | os.X_OK))
    tempfile.tempdir = next(usable, before)
    try:
        yield
    finally:
        tempfile.tempdir = before


MAX_SOCKET_PATH = 107


@contextmanager
def _same_modules() -> Iterator[None]:
    """A Python started within the context imports the same modules as this one, none from the current directory."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    paths = [*(before["PYTHONPATH"] or "").split(os.pathsep), *map(os.path.abspath, sys.path)]
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, paths)), PYTHONSAFEPATH="1")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started within the context, and its forks, receive no signals until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    lifeline: Connection
    cores: tuple[int, ...]
    gpu: str | None
    job: Job | None = None


class Pool:
    """Runs jobs in worker processes.

    A worker that dies affects only its own job. All workers save and stop when this process ends, however that happens.

    Args:
        sweep_dir: The folder of the sweep.
        manner: How all jobs are run.
        at_once: The most jobs at a time; None for as many as there are cores for.
        own_process: Whether each job has its own process, on its own cores (as many as its threads), and sees one GPU
            if there are several. Otherwise a worker runs job after job, on any core, and reads the data once.
    """

    first_state, can_stop_one = "running", True

    def __init__(self, sweep_dir: Path, manner: Manner, *, at_once: int | None, own_process: bool) -> None:
        self._sweep_dir, self._manner = sweep_dir, manner
        self._at_once, self._own_process = at_once, own_process
        self._free = available_cores()
        self._num_cores = len(self._free)
        self._gpus = available_gpus() if own_process else []
        self._workers: list[_Worker] = []

    def is_full(self) -> bool:
        """Whether no worker is free and no new one may be started."""
        busy = sum(worker.job is not None for worker in self._workers)
        return (self._at_once is not None and busy >= self._at_once) or (self._own_process and not self._free)

    def has_room(self, job: Job) -> bool:
        """Whether there is a worker for it, or cores for a new one."""
        return not self.is_full() and (not self._own_process or len(self._free) >= self._cores_of(job))

    def start(self, job: Job) -> None:
        """Sends a job to an idle worker, or to a new one."""
        worker = next((worker for worker in self._workers if worker.job is None), None) or self._new_worker(job)
        worker.job = job
        with suppress(OSError):  # the worker is dead, which `ended` detects
            worker.connection.send(self._sweep_dir / job.folder)

    def ended(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since the last call; waits up to `seconds` for the first."""
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        if not busy:
            time.sleep(seconds)
        return [self._ended(busy[connection]) for connection in wait(list(busy), seconds)]  # type: ignore[index]

    def stop(self, job: Job | None = None) -> list[Job]:
        """Asks all jobs, or one, to save and stop; none continues."""
        for worker in self._workers:
            if job is None or worker.job == job:
                worker.process.terminate()
        return []

    def halt(self) -> None:
        """Does nothing, since no job waits here."""

    def close(self) -> None:
        """Ends the workers, which are idle."""
        for worker in list(self._workers):
            self._dismiss(worker)

    def _ended(self, worker: _Worker) -> Ended:
        job, death, goes_on = worker.job, "", False
        assert job is not None
        try:
            goes_on = worker.connection.recv()
        except (EOFError, OSError):
            _join(worker.process)
            death = _death(worker.process.exitcode or 0)
        worker.job = None
        if self._own_process or not goes_on:
            self._dismiss(worker)
        return Ended(job, death)

    def _new_worker(self, job: Job) -> _Worker:
        count = self._cores_of(job) if self._own_process else 0
        cores, self._free = tuple(self._free[:count]), self._free[count:]
        gpu = self._idlest_gpu()
        environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
        connection, their_connection = _CONTEXT.Pipe()
        their_lifeline, lifeline = _CONTEXT.Pipe(duplex=False)
        prepare()  # if it was not called yet, or that process has died
        with _signals_blocked():
            arguments = (their_connection, their_lifeline, self._manner, cores, environment)
            process = _CONTEXT.Process(target=serve, args=arguments)
            try:
                process.start()
            except (EOFError, OSError) as error:
                rule = "must be able to start processes for its jobs"
                raise ProcessError(
                    f"A sweep {rule}, got: {reason_of(error)}. Check what uses the machine's memory."
                ) from error
        their_connection.close()
        their_lifeline.close()
        worker = _Worker(process, connection, lifeline, cores, gpu)
        self._workers.append(worker)
        return worker

    def _idlest_gpu(self) -> str | None:
        """The GPU that the fewest workers use; None if there are fewer than two, so that workers see all."""
        if len(self._gpus) < 2:
            return None
        taken = Counter(worker.gpu for worker in self._workers)
        return min(self._gpus, key=lambda gpu: taken[gpu])

    def _dismiss(self, worker: _Worker) -> None:
        worker.connection.close()
        _join(worker.process)
        worker.lifeline.close()
        self._workers.remove(worker)
        self._free = sorted([*self._free, *worker.cores])

    def _cores_of(self, job: Job) -> int:
        return min(job.threads, self._num_cores)


def _join(process: BaseProcess) -> None:
    """Waits for a process that has no job; kills it if a thread of a plugin, for example, keeps it from ending."""
    process.join(JOIN_SECONDS)
    if process.is_alive():
        process.kill()
        process.join(JOIN_SECONDS)


JOIN_SECONDS = 60.0


def available_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them. Found without torch, on Linux."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


UNKNOWN = 255
"""The exit code that multiprocessing reports if the process that a worker was forked from ended first."""


def _death(exit_code: int) -> str:
    if exit_code == UNKNOWN:
        return "its process ended for an unknown reason"
    if exit_code >= 0:
        return f"its process exited with code {exit_code}"
    with suppress(ValueError):
        name = signal.Signals(-exit_code).name
        return f"its process was killed by {name}{', as when memory runs out' if name == 'SIGKILL' else ''}"
    return f"its process was killed by signal {-exit_code}"
