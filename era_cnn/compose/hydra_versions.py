"""Checks that Hydra and OmegaConf have the versions that hydra_door was written for."""

from __future__ import annotations

from hydra import __version__ as hydra_version
from omegaconf import __version__ as omegaconf_version

from era_cnn.errors import ConfigError, problem

SERIES = {"hydra-core": "1.3", "omegaconf": "2.3"}
"""The private names that hydra_door uses may differ in any other series, and the guard depends on them."""


def check_versions() -> None:
    """Refuses a Hydra or OmegaConf whose private names may differ.

    Raises:
        ConfigError: If one belongs to another series.
    """
    installed = {"hydra-core": hydra_version, "omegaconf": omegaconf_version}
    problems = [
        problem(name, f"be version {series}", version, f"Install it: pip install '{name}=={series}.*'")
        for name, series in SERIES.items()
        if not (version := installed[name]).startswith(f"{series}.")
    ]
    if problems:
        raise ConfigError(problems)
