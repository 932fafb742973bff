"""Hydra's launcher plugins, which start jobs elsewhere: on Slurm, on Ray and others."""

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
    """Whether a plugin starts the jobs of a sweep, and not one of this package's own launchers."""
    return bool(composed.hydra.launcher.get("_target_", BASIC_LAUNCHER) != BASIC_LAUNCHER)


def is_submitit(composed: Composed) -> bool:
    """Whether that plugin is submitit's."""
    return "submitit" in str(composed.hydra.launcher.get("_target_"))


class LauncherPlugin:
    """The plugin that a config names, made to start a function in the folder of each job.

    A plugin takes lists of overrides. It is given nothing but the folder of each job, since all else is there.

    Args:
        words: What composed the config.
        composed: The config of the sweep; its `hydra.launcher` says which plugin.
        sweep_dir: Where the folders of the jobs lie; the machines that do them must see it.
        do: Does a job, in whatever process the plugin starts it: takes the folders of the sweep and of the job.

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
        """The module of the plugin, which says whose it is."""
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
                "hydra.output_subdir=null",  # it is there
            ]
            for folder in folders
        ]
        with limited():
            self._launcher.launch(overrides, initial_job_idx=first)


def _job(do: Callable[[Path, Path], int], composed: Composed) -> Any:
    """Does a job in the process where a plugin started it.

    Raises:
        ConfigError: If the plugin composed its config around the guard.
    """
    require_checked(composed)
    hydra = HydraConfig.get()
    return do(Path(hydra.sweep.dir), Path(hydra.runtime.output_dir))
