"""Runs jobs through Hydra's launcher plugins, such as those for Slurm and Ray."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from era_cnn.compose.hydra_door import BASIC_LAUNCHER, Composed, copy_of, hydra_values, make_launcher, require_checked
from era_cnn.compose.interpolation import limited
from era_cnn.compose.words import Words, hydra_of, quote


def is_plugin(composed: Composed) -> bool:
    """Whether a plugin, rather than one of this package's own launchers, starts the jobs of a sweep."""
    return bool(composed.hydra.launcher.get("_target_", BASIC_LAUNCHER) != BASIC_LAUNCHER)


def is_submitit(composed: Composed) -> bool:
    """Whether the launcher plugin is submitit's."""
    return "submitit" in str(composed.hydra.launcher.get("_target_"))


class LauncherPlugin:
    """The launcher plugin that a config names, used to call a function with the folder of each job.

    A plugin takes lists of overrides. Here they name only the folder of each job, which holds everything else.

    Args:
        words: The words that the config was composed from.
        composed: The config of the sweep; its `hydra.launcher` names the plugin.
        sweep_dir: The folder of the sweep; the machines that run the jobs must have access to it.
        do: Runs a job in the process that the plugin starts; takes the folders of the sweep and of the job.

    Raises:
        ConfigError: If the config did not pass the guard.
    """

    def __init__(self, words: Words, composed: Composed, sweep_dir: Path, do: Callable[[Path, Path], int]) -> None:
        require_checked(composed)
        self._sweep_dir = sweep_dir
        composed = copy_of(composed)
        composed.hydra.sweep.dir = str(sweep_dir)
        with hydra_of(words) as hydra, hydra_values(composed):
            self._launcher = make_launcher(hydra.config_loader, composed, functools.partial(_job, do))

    @property
    def module(self) -> str:
        """The name of the plugin's module."""
        return type(self._launcher).__module__

    def launch(self, folders: Sequence[str], first: int) -> None:
        """Starts jobs, numbered from `first`, and waits until they have ended.

        Raises:
            Exception: Whatever the plugin raises.
        """
        overrides = [
            [
                f"hydra.sweep.dir='{quote(str(self._sweep_dir))}'",
                f"hydra.sweep.subdir='{quote(folder)}'",
                "hydra.output_subdir=null",  # .hydra exists already
            ]
            for folder in folders
        ]
        with limited():
            self._launcher.launch(overrides, initial_job_idx=first)


def _job(do: Callable[[Path, Path], int], composed: Composed) -> Any:
    """Runs a job in the process that a plugin started for it.

    Raises:
        ConfigError: If the plugin composed the config without the guard.
    """
    require_checked(composed)
    hydra = HydraConfig.get()
    return do(Path(hydra.sweep.dir), Path(hydra.runtime.output_dir))
