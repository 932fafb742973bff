"""Runs jobs through Hydra's launcher plugins, such as those for Slurm and Ray."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError

from era_cnn.compose.hydra_door import BASIC_LAUNCHER, Composed, copy_of, hydra_values, make_launcher, require_checked
from era_cnn.compose.interpolation import limited, unresolved
from era_cnn.compose.words import Words, hydra_of, quote
from era_cnn.config.choices import LAUNCHERS
from era_cnn.config.messages import field_problems
from era_cnn.config.sections import Choice, FieldError, Section
from era_cnn.errors import ConfigError, one_of, problem
from era_cnn.nearest import did_you_mean

S = TypeVar("S", bound=Section)


class BasicLauncher(Section):
    """One job at a time. Hydra's own section: it has no name."""


class LocalLauncher(Section):
    """A process for each job, as many at a time as there are cores for."""

    name: Literal["local"]
    n_jobs: int | None = Field(ge=1, le=1024, description="the most jobs at a time, null for one per available core")


Launcher = BasicLauncher | LocalLauncher | Choice
"""How the jobs of a sweep are started; a `Choice` is an entry of `LAUNCHERS`, for a plugin of Hydra's."""


def launcher_of(composed: Composed, *, is_used: bool = True) -> Launcher:
    """The section `hydra.launcher`, validated.

    Args:
        composed: The config of a sweep.
        is_used: Whether this machine must have what the launcher needs.

    Raises:
        ConfigError: If it has a key that no launcher takes, or a wrong value; lists every problem.
    """
    require_checked(composed)
    values = _values(composed)
    if values.get("_target_") == BASIC_LAUNCHER:
        rule = "not be given: hydra/launcher=basic has no keys"
        others = {key: value for key, value in values.items() if key != "_target_"}
        if problems := [problem(f"hydra.launcher.{key}", rule, value, "Remove it.") for key, value in others.items()]:
            raise ConfigError(problems)
        return BasicLauncher()
    if (name := values.get("name")) == "local":
        return _parsed(LocalLauncher, values)
    if not isinstance(name, str) or name not in LAUNCHERS:
        known = ["basic", "local", *LAUNCHERS]
        near = did_you_mean(str(name), known, "Choose one: hydra/launcher=local")
        raise ConfigError([problem("hydra.launcher.name", one_of(known), name, near)])
    section = _parsed(LAUNCHERS.section(name), values)
    try:
        if is_used:
            LAUNCHERS.check(name, section)
    except FieldError as error:
        raise ConfigError([error.at("hydra.launcher")]) from error
    assert isinstance(section, Choice)
    return section


def _values(composed: Composed) -> dict[str, Any]:
    try:
        with hydra_values(composed), limited():
            values: Any = OmegaConf.to_container(composed.hydra.launcher, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise unresolved(error, "hydra.launcher") from error
    return dict(values)


def _parsed(schema: type[S], values: dict[str, Any]) -> S:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(field_problems(error, schema, "hydra.launcher.")) from error


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
        launcher = launcher_of(composed)
        composed = copy_of(composed)
        composed.hydra.sweep.dir = str(sweep_dir)
        composed.hydra.overrides.hydra = []  # its folder is all that a job needs
        if isinstance(launcher, Choice):
            with open_dict(composed):
                composed.hydra.launcher = LAUNCHERS.make(launcher.name, launcher, sweep_dir=sweep_dir)
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
