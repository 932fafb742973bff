"""What the driver of a sweep asks of whatever does its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from era_cnn.folders.ledger import Job


@dataclass(frozen=True)
class Manner:
    """How all jobs of a sweep are done."""

    command: tuple[str, ...]
    """The words that asked for it, for the outcomes."""

    reuse_from: tuple[Path, ...] = ()
    """Folders in which completed runs are looked for; none if every job is to be trained."""

    data_root: str | None = None
    """Where the data is now, if it was moved."""

    plugins: tuple[str, ...] = ()
    """Files of the user's own code that a process loads before its first job."""


@dataclass(frozen=True)
class Ended:
    """A job that is no longer worked at; its folder says how far it came."""

    job: Job
    death: str = ""
    """What its process died of; empty if it ended by itself."""


class Executor(Protocol):
    """Does jobs, in their folders."""

    first_state: str
    """The state of a job that was started: `running`, or `queued` if it may have to wait."""

    can_stop_one: bool
    """Whether `stop` can stop one job alone."""

    def is_full(self) -> bool:
        """Whether no job whatever would begin at once."""

    def has_room(self, job: Job) -> bool:
        """Whether the job would begin at once."""

    def start(self, job: Job) -> None:
        """Begins a job, or hands it over to be begun."""

    def ended(self, seconds: float) -> Sequence[Ended]:
        """The jobs that have ended since the last call; waits some seconds for the first."""

    def stop(self, job: Job | None = None) -> Sequence[Job]:
        """Asks all jobs that are under way to save and stop, or one of them; returns those that go on nevertheless."""

    def halt(self) -> None:
        """Keeps jobs that were handed over, and still wait, from beginning."""

    def close(self) -> None:
        """Lets go of all that it holds."""
