"""From words to runs: everything is checked, a folder is claimed, and Hydra does the rest.

Hydra makes its folders without asking whether they are taken, and before a job can say that its config is wrong. So
both are settled here first, and Hydra is told which folder to use.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig

from era_cnn.composition import (
    PlannedJob,
    compose,
    plan_sweep,
    raise_problems_of_jobs,
    resolved,
    validated,
)
from era_cnn.errors import ConfigError, problem
from era_cnn.runs.application import STOPPED, call_hydra
from era_cnn.words import Words, quote


def launch(args: argparse.Namespace, typed: Sequence[str]) -> int:
    """Does a run or a sweep, as Hydra's command line asks for it; returns the exit code."""
    words = Words.of(args)
    if args.package or args.resolve:
        raise ConfigError(["--package and --resolve must go with --cfg, got neither run nor question. Add --cfg job."])
    composed = compose(words, RunMode.MULTIRUN if args.multirun else RunMode.RUN)
    if args.multirun or composed.hydra.mode == RunMode.MULTIRUN:
        return _launch_sweep(words, composed, typed)
    return _launch_run(composed, typed)


def _launch_run(composed: DictConfig, typed: Sequence[str]) -> int:
    config = validated(composed)
    from era_cnn.runs.folder import claim  # from here on torch is needed
    from era_cnn.runs.ingredients import check

    check(config)
    claimed = claim(Path(resolved(composed, "hydra.run.dir")))
    written_by_then = "config.yaml"  # of a run that has begun
    try:
        code = call_hydra(typed, f"hydra.run.dir='{quote(str(claimed.path))}'")
        if code in (2, 3, 4):
            written_by_then = "provenance.json"  # the data were not there, or the network could not be built
        return code
    finally:
        if not (claimed.path / written_by_then).exists():
            claimed.give_back()


def _launch_sweep(words: Words, composed: DictConfig, typed: Sequence[str]) -> int:
    jobs = plan_sweep(words, composed)
    _check_jobs(jobs)
    from era_cnn.runs.console import say
    from era_cnn.runs.folder import claim, shown
    from era_cnn.runs.sweep import jobs_table, read_jobs

    claimed = claim(Path(resolved(composed, "hydra.sweep.dir")))
    try:
        code = call_hydra(typed, f"hydra.sweep.dir='{quote(str(claimed.path))}'")
    except ConfigError:
        claimed.give_back()
        raise
    finally:
        if claimed.path.exists():
            records = read_jobs(claimed.path, jobs)
            say(f"\n{jobs_table(records)}\nSweep folder: {shown(claimed.path)}")
    if code in STOPPED:
        return code
    return 0 if all(record.state == "completed" for record in records) else 1


def _check_jobs(jobs: Sequence[PlannedJob]) -> None:
    """Raises what the jobs would before they train; data sets are read and verified once each."""
    from era_cnn.runs.ingredients import check, read_dataset

    subdirs: dict[str, PlannedJob] = {}
    problems: dict[str, list[str]] = {}
    for job in jobs:
        if job.subdir in subdirs:
            rule = f"give each job a folder of its own, unlike {subdirs[job.subdir]}"
            raise ConfigError([problem("hydra.sweep.subdir", rule, job.subdir, "Put ${hydra.job.num} into it.")])
        subdirs[job.subdir] = job
        try:
            check(job.config)
        except ConfigError as error:
            for said in error.problems:
                problems.setdefault(said, []).append(str(job))
    raise_problems_of_jobs(problems, len(jobs))
    for config in {job.config.data.model_dump_json(): job.config for job in jobs}.values():
        read_dataset(config)
