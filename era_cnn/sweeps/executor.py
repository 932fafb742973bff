"""The interface between the driver of a sweep and whatever runs its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from era_cnn.folders.ledger import Job


@dataclass(frozen=True)
class Reusable:
    """The completed runs that a job may equal."""

    runs: Mapping[str, tuple[Path, ...]]
    """Those that were there when the sweep began or was resumed, by the digest of their config."""

    sweep_dir: Path
    """The sweep, whose ledger names the jobs that are completed since then."""


@dataclass(frozen=True)
class Manner:
    """How all jobs of a sweep are run."""

    command: tuple[str, ...]
    """The command that started the sweep, for the provenance.json of the jobs."""

    reusable: Reusable | None = None
    """The runs to take results from; None if every job must be trained."""

    data_root: str | None = None
    """Where the data is now, if it was moved."""

    plugins: tuple[str, ...] = ()
    """Plugin files that a process loads before its first job."""


@dataclass(frozen=True)
class Ended:
    """A job that has stopped running; its folder holds the outcome."""

    job: Job
    death: str = ""
    """Why its process died; empty if the job ended normally."""


class Executor(Protocol):
    """Runs jobs in their folders."""

    first_state: str
    """The state of a job after `start`: `running`, or `queued` if it may have to wait."""

    can_stop_one: bool
    """Whether `stop` can stop a single job."""

    def is_full(self) -> bool:
        """Whether no job at all could start now."""

    def has_room(self, job: Job) -> bool:
        """Whether the job could start now."""

    def start(self, job: Job) -> None:
        """Starts a job, or hands it over to be started."""

    def ended(self, seconds: float) -> Sequence[Ended]:
        """The jobs that have ended since the last call; waits up to `seconds` for the first."""

    def stop(self, job: Job | None = None) -> Sequence[Job]:
        """Asks all running jobs, or one of them, to save and stop; returns those that continue anyway."""

    def halt(self) -> None:
        """Keeps jobs that were handed over, but still wait, from starting."""

    def close(self) -> None:
        """Releases all resources."""
