"""Chooses the executor that runs the jobs of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.launchers import Launcher, LocalLauncher
from era_cnn.compose.words import Words
from era_cnn.config.choices import DATASETS
from era_cnn.config.schema import RunConfig
from era_cnn.config.sections import Choice
from era_cnn.errors import amount
from era_cnn.machine import available_cores
from era_cnn.sweeps.executor import Executor, Manner
from era_cnn.sweeps.options import SweepOptions


def make_executor(sweep_dir: Path, words: Words, composed: Composed, options: SweepOptions, manner: Manner) -> Executor:
    """The executor for the jobs of a sweep, according to `hydra.launcher`.

    Raises:
        ConfigError: If the launcher plugin can't be created.
    """
    if isinstance(options.launcher, Choice):
        from era_cnn.sweeps.plugin import PluginExecutor

        return PluginExecutor(sweep_dir, words, composed, manner)
    from era_cnn.sweeps.pool import Pool

    if isinstance(options.launcher, LocalLauncher):
        return Pool(sweep_dir, manner, at_once=options.launcher.n_jobs, own_process=True)
    return Pool(sweep_dir, manner, at_once=1, own_process=False)


def prepare_workers(launcher: Launcher, config: RunConfig) -> None:
    """Starts importing, in the background, what workers on this machine need for jobs like this one."""
    if not isinstance(launcher, Choice):
        from era_cnn.sweeps.pool import prepare

        prepare(getattr(DATASETS[config.data.name], "imports", ()))


def hint_at_threads(launcher: Launcher, typed: Sequence[str], *, threads: int, num_jobs: int) -> str:
    """What to type so that more jobs run at once on this machine; empty if as many run as may, or threads are typed.

    Args:
        launcher: How jobs are started.
        typed: The overrides that were typed.
        threads: The threads of each job.
        num_jobs: The number of jobs.
    """
    if not isinstance(launcher, LocalLauncher) or any(text.lstrip("+").startswith("threads=") for text in typed):
        return ""
    cores = len(available_cores())
    wanted, fitting = min(launcher.n_jobs or cores, num_jobs, cores), max(1, cores // threads)
    if wanted <= fitting:
        return ""
    have = f"Each job has threads={threads}, so {amount(fitting, 'job')} at a time fit{'s' if fitting == 1 else ''}"
    return f"{have} on {amount(cores, 'core')}. To run {wanted} at once, add threads=1."
