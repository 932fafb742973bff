"""The choice of whatever does the jobs of a sweep."""

from __future__ import annotations

from pathlib import Path

from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.launchers import is_plugin
from era_cnn.compose.words import Words
from era_cnn.config.choices import DATASETS
from era_cnn.config.schema import RunConfig
from era_cnn.sweeps.executor import Executor, Manner
from era_cnn.sweeps.options import SweepOptions


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
