"""Drives a sweep until all of its jobs are done or have failed."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from era_cnn.errors import StorageError
from era_cnn.folders.ledger import Entry, Job
from era_cnn.folders.outcome import DONE, Outcome, Progress, read_progress
from era_cnn.folders.sweep import SweepFolder
from era_cnn.runs.stopping import StopRequest
from era_cnn.sweeps.board import Board
from era_cnn.sweeps.executor import Ended, Executor
from era_cnn.sweeps.options import SweepConfig

POLL_SECONDS = 0.2
MAX_STOPS = 10
"""How often something else may stop a job within one epoch before it is no longer tried again."""


MAX_SILENCE_SECONDS = 7_200.0
"""How long to wait for another process that works on a job, but neither ends an epoch nor saves a checkpoint."""


class Source(Protocol):
    """Provides the jobs of a sweep."""

    def expected(self) -> tuple[int, int]:
        """The number of remaining jobs, and of their epochs."""

    def next(self) -> Job | None:
        """The next job to start; None if there is none now."""

    def again(self, job: Job) -> None:
        """Puts a job back, to be tried again."""

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Receives the final outcome of a job."""

    def hopeless(self, running: Sequence[Job]) -> Sequence[Job]:
        """The running jobs to stop, since their results are not worth the time."""


class Listed:
    """A source of jobs that are all known in advance."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = deque(jobs)

    def expected(self) -> tuple[int, int]:
        """The number of remaining jobs, and of their epochs."""
        return len(self._jobs), sum(job.epochs for job in self._jobs)

    def next(self) -> Job | None:
        """The first remaining job."""
        return self._jobs.popleft() if self._jobs else None

    def again(self, job: Job) -> None:
        """Puts a job at the end of the queue."""
        self._jobs.append(job)

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Does nothing: outcomes do not affect the list."""

    def hopeless(self, running: Sequence[Job]) -> Sequence[Job]:
        """No jobs: each one was requested."""
        return ()


@dataclass
class Drive:
    """The driver of a sweep: starts jobs when there is room, records how they end, and tries failed ones again.

    Attributes:
        sweep: The folder of the sweep, locked by this process.
        source: Provides the jobs that are not done.
        executor: Runs the jobs.
        config: The options of the sweep.
        board: Shows the progress.
        stop: Requests that all jobs save and stop.
    """

    sweep: SweepFolder
    source: Source
    executor: Executor
    config: SweepConfig
    board: Board
    stop: StopRequest
    _running: dict[int, Job] = field(default_factory=dict)
    _attempts: Counter[int] = field(default_factory=Counter)
    _pruned: set[int] = field(default_factory=set)
    _awaited: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By job that another process works on: when that last wrote to it, and when this was first seen."""

    _stops: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By job: its epochs when it was last stopped, and how often it was stopped with as many."""

    _next: Job | None = None
    _halted: bool = False
    """Whether no further jobs are started."""

    def go(self) -> None:
        """Drives the sweep until nothing is left to do, or it is stopped.

        Raises:
            StorageError: If the ledger can't be written; the jobs are stopped first.
            OutputError: If standard output can't be written to; the jobs are stopped first.
        """
        asked = False
        try:
            while self._begin() or self._running:
                if self.stop.number is not None and not asked:
                    asked = True
                    self._stop()
                for ended in self._ended():
                    self._settle(ended)
                self._prune()
                self.board.refresh(self._progress)
        except BaseException:
            self._abandon()
            raise
        finally:
            self.executor.close()
        self.board.close()

    def _progress(self) -> dict[Job, Progress]:
        return {job: read_progress(self.sweep.path / job.folder) for job in self._running.values()}

    def _abandon(self) -> None:
        """Lets all jobs save and stop, without recording their outcomes."""
        self._stop()
        while self._running:
            self._ended()

    def _ended(self) -> Sequence[Ended]:
        """The jobs that have just ended; they no longer count as running, even if one can't be recorded."""
        ended = self.executor.ended(POLL_SECONDS)
        for each in ended:
            self._running.pop(each.job.number, None)
        return ended

    def _begin(self) -> bool:
        """Starts jobs while there is room; returns whether there are more."""
        while not self._is_ending() and not self.executor.is_full():
            self._next = self._next or self.source.next()
            if self._next is None or not self.executor.has_room(self._next):
                break
            if (silence := self._silence_elsewhere(self._next)) is not None and silence < MAX_SILENCE_SECONDS:
                break
            job, self._next = self._next, None
            if silence is not None:
                self._give_up(job)
                continue
            if (outcome := self.sweep.outcome(job)).state in DONE:  # another process did it in the meantime
                self._take_note(job, outcome)
                continue
            self.sweep.ledger.add(Entry.now(job, self.executor.first_state))
            self.executor.start(job)
            self._running[job.number] = job
            self._attempts[job.number] += 1
            self.board.on_start(job)
        return self._next is not None and not self._is_ending()

    def _is_ending(self) -> bool:
        return self._halted or self.stop.number is not None

    def _silence_elsewhere(self, job: Job) -> float | None:
        """For how many seconds another process has used a job's folder and written nothing; None if none uses it."""
        folder = self.sweep.run(job)
        if not folder.is_in_use():
            return None
        if job.number not in self._awaited:
            self.board.on_wait(job, MAX_SILENCE_SECONDS)
        now, written = time.monotonic(), folder.last_written()
        before, since = self._awaited.get(job.number, (written, now))
        self._awaited[job.number] = written, since if written == before else now
        return now - self._awaited[job.number][1]

    def _give_up(self, job: Job) -> None:
        """Goes on without a job that another process neither does nor gives back; its folder is left as it is."""
        message = "Another process uses its folder, and writes nothing. End it, and resume the sweep."
        self._attempts[job.number] = self.config.retries + 1
        self._take_note(job, replace(self.sweep.outcome(job), state="failed", message=message))

    def _stop(self) -> None:
        self._halted = True
        for job in self.executor.stop():
            del self._running[job.number]

    def _prune(self) -> None:
        if not self.executor.can_stop_one:
            return
        for job in self.source.hopeless([job for number, job in self._running.items() if number not in self._pruned]):
            self._pruned.add(job.number)
            self.executor.stop(job)

    def _settle(self, ended: Ended) -> None:
        job = ended.job
        outcome = self.sweep.outcome(job)
        if outcome.state not in DONE and not self._is_ending():
            outcome = self._judged(job, outcome, ended.death)
        self._take_note(job, outcome)

    def _judged(self, job: Job, outcome: Outcome, death: str) -> Outcome:
        """The outcome of a job that is not done, with what its own process could not record."""
        if job.number in self._pruned and outcome.state == "interrupted":
            self.sweep.run(job).set_state("pruned", message="The pruner stopped it.")
            return self.sweep.outcome(job)
        ended_by_itself = outcome.state in ("interrupted", "failed", "damaged") and not death
        if ended_by_itself or self.sweep.run(job).is_in_use():
            return outcome
        message = f"The job ended without a result: {death or 'it recorded no reason, as when the disk is full'}."
        with suppress(StorageError):  # the ledger records it anyway
            self.sweep.run(job).set_state("failed", message=message)
        return replace(outcome, state="failed", message=message)

    def _is_stuck(self, job: Job, outcome: Outcome) -> bool:
        """Whether a job is stopped again and again before it completes another epoch."""
        if outcome.state != "interrupted":
            return False
        epochs = read_progress(self.sweep.path / job.folder).epochs
        before, count = self._stops.get(job.number, (epochs, 0))
        self._stops[job.number] = (epochs, count + 1 if epochs == before else 1)
        return self._stops[job.number][1] >= MAX_STOPS

    def _take_note(self, job: Job, outcome: Outcome) -> None:
        """Records how a job ended, and decides whether it is tried again."""
        self.sweep.ledger.add(Entry.now(job, outcome.state, outcome.message))
        has_failed = outcome.state in ("failed", "damaged") or self._is_stuck(job, outcome)
        if self._is_ending():
            again = False
        elif has_failed:
            again = outcome.state != "interrupted" and self._attempts[job.number] <= self.config.retries
        else:
            again = outcome.state not in DONE  # another process stopped this job alone, or is working on it
            self._attempts[job.number] -= 1
        self.board.on_end(job, outcome, again=again)
        if again:
            self.source.again(job)
            return
        self.source.tell(job, outcome)
        if has_failed and self.config.on_error == "stop":
            self._halted = True
            self.executor.halt()
