"""The story of a sweep: from where its jobs stand to where all are done, whatever happens on the way."""

from __future__ import annotations

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


class Source(Protocol):
    """Says which job comes next."""

    def expected(self) -> tuple[int, int]:
        """How many jobs are still to come, and how many epochs they have together."""

    def next(self) -> Job | None:
        """The job to begin now; None if there is none at present."""

    def again(self, job: Job) -> None:
        """Puts back a job that failed, to be tried once more."""

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Takes note of how a job ended for good."""

    def hopeless(self, running: Sequence[Job]) -> Sequence[Job]:
        """Those of the jobs under way that are to be stopped, since no more is to be learned from them."""


class Listed:
    """A source of jobs that are all known beforehand."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = deque(jobs)

    def expected(self) -> tuple[int, int]:
        """Those that are left."""
        return len(self._jobs), sum(job.epochs for job in self._jobs)

    def next(self) -> Job | None:
        """The first of those that are left."""
        return self._jobs.popleft() if self._jobs else None

    def again(self, job: Job) -> None:
        """Appends it."""
        self._jobs.append(job)

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Nothing follows from it."""

    def hopeless(self, running: Sequence[Job]) -> Sequence[Job]:
        """None: each job is asked for."""
        return ()


@dataclass
class Drive:
    """The driver of a sweep: begins jobs as there is room for them, records how they end, tries failed ones again.

    Attributes:
        sweep: Locked by this process.
        source: The jobs that are not done.
        executor: Does them.
        board: Shows how they go on.
        stop: Asks to end, all jobs saved.
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
    _next: Job | None = None
    _halted: bool = False
    """Whether no further job is begun."""

    def go(self) -> None:
        """Drives the sweep until nothing is left to do, or it is stopped.

        Raises:
            StorageError: If the ledger can't be written; the jobs are stopped before.
            OutputError: If standard output can't; likewise.
        """
        asked = False
        try:
            while self._begin() or self._running:
                if self.stop.number is not None and not asked:
                    asked = True
                    self._stop()
                for ended in self.executor.ended(POLL_SECONDS):
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
        """Stops all jobs, saved, where no more can be recorded of them."""
        self._stop()
        while self._running:
            for ended in self.executor.ended(POLL_SECONDS):
                self._running.pop(ended.job.number, None)

    def _begin(self) -> bool:
        """Begins what there is room for; whether any job is still to come."""
        while not self._is_ending() and not self.executor.is_full():
            self._next = self._next or self.source.next()
            if self._next is None or not self._can_begin(self._next):
                break
            job, self._next = self._next, None
            if (outcome := self.sweep.outcome(job)).state in DONE:  # by somebody else, in the meantime
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

    def _can_begin(self, job: Job) -> bool:
        return self.executor.has_room(job) and not self.sweep.run(job).is_in_use()

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
        job = self._running.pop(ended.job.number)
        outcome = self.sweep.outcome(job)
        if outcome.state not in DONE and not self._is_ending():
            outcome = self._judged(job, outcome, ended.death)
        self._take_note(job, outcome)

    def _judged(self, job: Job, outcome: Outcome, death: str) -> Outcome:
        """The outcome of a job that is not done, with what its own process could not say."""
        if job.number in self._pruned and outcome.state == "interrupted":
            self.sweep.run(job).set_state("pruned", message="It was behind the others.")
            return self.sweep.outcome(job)
        ended_by_itself = outcome.state in ("interrupted", "failed", "damaged") and not death
        if ended_by_itself or self.sweep.run(job).is_in_use():
            return outcome
        message = f"The job must live to its end, got: {death or 'it left no word, as when a disk is full'}."
        with suppress(StorageError):  # the ledger has it all the same
            self.sweep.run(job).set_state("failed", message=message)
        return replace(outcome, state="failed", message=message)

    def _take_note(self, job: Job, outcome: Outcome) -> None:
        """Records how a job ended, and decides whether it is tried again."""
        self.sweep.ledger.add(Entry.now(job, outcome.state, outcome.message))
        has_failed = outcome.state in ("failed", "damaged")
        if self._is_ending():
            again = False
        elif has_failed:
            again = self._attempts[job.number] <= self.config.retries
        else:
            again = outcome.state not in DONE  # somebody stopped this job alone, or is at it
            self._attempts[job.number] -= 1
        self.board.on_end(job, outcome, again=again)
        if again:
            self.source.again(job)
            return
        self.source.tell(job, outcome)
        if has_failed and self.config.on_error == "stop":
            self._halted = True
            self.executor.halt()
