"""What the driver of a sweep asks of whatever does its jobs, and the choice of who does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.launchers import is_plugin
from era_cnn.compose.words import Words
from era_cnn.config.choices import DATASETS
from era_cnn.config.schema import RunConfig
from era_cnn.folders.ledger import Job
from era_cnn.sweeps.options import SweepOptions


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


def make_executor(sweep_dir: Path, words: Words, composed: Composed, options: SweepOptions, manner: Manner) -> Executor:
    """Whatever does the jobs of a sweep, as `hydra.launcher` says.

    Raises:
        ConfigError: If the plugin that it names can't be made.
    """
    if is_plugin(composed):
        from era_cnn.sweeps.plugin import PluginExecutor

        return PluginExecutor(sweep_dir, words, composed, manner)
    from era_cnn.sweeps.pool import Pool

    if options.launcher is not None:
        return Pool(sweep_dir, manner, at_once=options.launcher.n_jobs, own_process=True)
    return Pool(sweep_dir, manner, at_once=1, own_process=False)


def prepare_workers(composed: Composed, config: RunConfig) -> None:
    """Lets workers on this machine import in the meantime what they need for jobs like this one."""
    if not is_plugin(composed):
        from era_cnn.sweeps.pool import prepare

        prepare(getattr(DATASETS[config.data.name], "imports", ()))
