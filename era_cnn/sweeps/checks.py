"""Checks the jobs of a sweep before anything is created."""

from __future__ import annotations

from collections.abc import Sequence

from era_cnn.compose.composition import Planned
from era_cnn.compose.planner import raise_problems_of_jobs
from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, problem
from era_cnn.folders.sweep import OWN_NAMES
from era_cnn.output import counted

UNCHECKED = {"seed", "augmentation", "optimizer", "scheduler"}
"""The sections that `runs.parts.check` does not depend on."""


def check_jobs(jobs: Sequence[Planned]) -> None:
    """Raises the errors that jobs would raise before they train; reads and verifies each data set once."""
    from era_cnn.runs.parts import read_data  # imports torch

    _check_differences(jobs)
    problems: dict[str, list[str]] = {}
    found: dict[str, tuple[str, ...]] = {}  # a network is built once for all jobs that have it
    with counted(jobs, "Checking job") as counting:
        for job in counting:
            essence = job.config.model_dump_json(exclude=UNCHECKED)
            if essence not in found:
                found[essence] = _problems_of(job.config)
            for each in found[essence]:
                problems.setdefault(each, []).append(str(job))
    raise_problems_of_jobs(problems, len(jobs))
    for config in {job.config.data.model_dump_json(): job.config for job in jobs}.values():
        read_data(config)


def _problems_of(config: RunConfig) -> tuple[str, ...]:
    from era_cnn.runs.parts import check

    try:
        check(config)
    except ConfigError as error:
        return tuple(error.problems)
    return ()


def _check_differences(jobs: Sequence[Planned]) -> None:
    """Raises a `ConfigError` if two jobs have the same config or folder."""
    subdirs: dict[str, Planned] = {}
    alike: dict[str, Planned] = {}
    for job in jobs:
        if (first := alike.setdefault(job.config.model_dump_json(), job)) is not job:
            both = f"{first} and {job}, whose configs are the same"
            raise ConfigError([f"A sweep must have jobs that differ, got {both}. Remove one."])
        if job.folder.split("/")[0] in OWN_NAMES:
            rule = "not be the name of a file of the sweep itself"
            raise ConfigError([problem("hydra.sweep.subdir", rule, job.folder, "Choose another.")])
        if job.folder in subdirs:
            rule = f"give each job a folder of its own, unlike {subdirs[job.folder]}"
            raise ConfigError([problem("hydra.sweep.subdir", rule, job.folder, "Put ${hydra.job.num} into it.")])
        subdirs[job.folder] = job
