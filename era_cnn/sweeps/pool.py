"""Jobs on this machine: in processes that outlive what happens in them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from era_cnn.runs.stopping import SIGNALS
from era_cnn.sweeps.executor import Ended, Manner
from era_cnn.sweeps.ledger import Job
from era_cnn.sweeps.worker import serve


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    lifeline: Connection
    cores: tuple[int, ...]
    job: Job | None = None


class Pool:
    """Does jobs in worker processes.

    A worker that dies takes its own job with it and no other. All workers stop, saved, when this process ends, however
    that happens.

    Args:
        sweep_dir: Where the folders of the jobs lie.
        manner: How all jobs are done.
        at_once: The most jobs at a time; None for as many as the cores can take.
        own_process: Whether each job has a process of its own, on cores of its own: as many as its threads. Else a
            worker does job after job, on any core, and pays imports and data once.
    """

    first_state, can_stop_one = "running", True

    def __init__(self, sweep_dir: Path, manner: Manner, *, at_once: int | None, own_process: bool) -> None:
        self._sweep_dir, self._manner = sweep_dir, manner
        self._at_once, self._own_process = at_once, own_process
        self._free = available_cores()
        self._num_cores = len(self._free)
        self._workers: list[_Worker] = []

    def is_full(self) -> bool:
        """Whether all workers that there may be are busy."""
        busy = sum(worker.job is not None for worker in self._workers)
        return (self._at_once is not None and busy >= self._at_once) or (self._own_process and not self._free)

    def has_room(self, job: Job) -> bool:
        """Whether there is a worker for it, or cores for a new one."""
        return not self.is_full() and (not self._own_process or len(self._free) >= self._cores_of(job))

    def start(self, job: Job) -> None:
        """Sends it to an idle worker, or to a new one."""
        worker = next((worker for worker in self._workers if worker.job is None), None) or self._new_worker(job)
        worker.job = job
        with suppress(OSError):  # it is dead, and will be found so
            worker.connection.send(self._sweep_dir / job.folder)

    def ended(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since the last call; waits some seconds for the first."""
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        if not busy:
            time.sleep(seconds)
        return [self._ended(busy[connection]) for connection in wait(list(busy), seconds)]  # type: ignore[index]

    def stop(self, job: Job | None = None) -> list[Job]:
        """Asks all jobs to save and stop, or one; none goes on."""
        for worker in self._workers:
            if job is None or worker.job == job:
                worker.process.terminate()
        return []

    def halt(self) -> None:
        """Nothing waits here."""

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
            worker.process.join()
            death = _death(worker.process.exitcode or 0)
        worker.job = None
        if self._own_process or not goes_on:
            self._dismiss(worker)
        return Ended(job, death)

    def _new_worker(self, job: Job) -> _Worker:
        count = self._cores_of(job) if self._own_process else 0
        cores, self._free = tuple(self._free[:count]), self._free[count:]
        context = multiprocessing.get_context("spawn")
        connection, their_connection = context.Pipe()
        their_lifeline, lifeline = context.Pipe(duplex=False)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the worker is ready to note them
        try:
            process = context.Process(target=serve, args=(their_connection, their_lifeline, self._manner, cores))
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        their_connection.close()
        their_lifeline.close()
        worker = _Worker(process, connection, lifeline, cores)
        self._workers.append(worker)
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        worker.lifeline.close()
        self._workers.remove(worker)
        self._free = sorted([*self._free, *worker.cores])

    def _cores_of(self, job: Job) -> int:
        return min(job.threads, self._num_cores)


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use; of all where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _death(exit_code: int) -> str:
    if exit_code >= 0:
        return f"its process ended by itself, with exit code {exit_code}"
    with suppress(ValueError):
        name = signal.Signals(-exit_code).name
        return f"its process was killed by {name}{', as when memory runs out' if name == 'SIGKILL' else ''}"
    return f"its process was killed by signal {-exit_code}"
