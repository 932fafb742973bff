"""From words to runs: everything is checked, a folder is claimed, and Hydra does the rest.

Hydra makes its folders without asking whether they are taken, and before a job can say that its config is wrong. So
both are settled here first, and Hydra is told which folder to use.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from era_cnn.complaints import explained, reason_of
from era_cnn.errors import ConfigError, EraCnnError, StorageError, problem
from era_cnn.guard import guarded
from era_cnn.interpolation import limited
from era_cnn.words import CONFIG_MODULE, Words, parse_words, quote

if TYPE_CHECKING:
    from era_cnn.composition import PlannedJob  # imported below by what validates: a question needs no schema

STOPPED = (130, 143)
"""Exit codes of a run that was asked to stop."""


def launch(args: argparse.Namespace, typed: Sequence[str]) -> int:
    """Does what Hydra's command line asks for; returns the exit code."""
    words = Words.of(args)
    if args.experimental_rerun:
        advice = "Type again what provenance.json holds as the command."
        raise ConfigError([problem("--experimental-rerun", "not be used", args.experimental_rerun, advice)])
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        return _answer(words, typed)
    if args.package or args.resolve:
        raise ConfigError(["--package and --resolve must go with --cfg, got neither run nor question. Add --cfg job."])
    from era_cnn.composition import compose

    composed = compose(words, RunMode.MULTIRUN if args.multirun else RunMode.RUN)
    if args.multirun or composed.hydra.mode == RunMode.MULTIRUN:
        return _launch_sweep(words, composed, typed)
    return _launch_run(composed, typed)


def _answer(words: Words, typed: Sequence[str]) -> int:
    """Lets Hydra answer a question: help, the composed config, tab completion."""
    try:
        with explained(words), limited():
            _call_hydra(typed)
    except SystemExit as end:
        return 2 if end.code else 0
    return 0


def _launch_run(composed: DictConfig, typed: Sequence[str]) -> int:
    from era_cnn.composition import resolved, validated

    config = validated(composed)
    from era_cnn.runs.folder import claim  # from here on torch is needed
    from era_cnn.runs.ingredients import check

    check(config)
    claimed = claim(Path(resolved(composed, "hydra.run.dir")))
    written_by_then = "config.yaml"  # of a run that has begun
    try:
        code = _call_hydra(typed, f"hydra.run.dir='{quote(str(claimed.path))}'")
        if code in (2, 3, 4):
            written_by_then = "provenance.json"  # the data were not there, or the network could not be built
        return code
    finally:
        if not (claimed.path / written_by_then).exists():
            claimed.give_back()


def _launch_sweep(words: Words, composed: DictConfig, typed: Sequence[str]) -> int:
    from era_cnn.composition import plan_sweep, resolved

    jobs = plan_sweep(words, composed)
    _check_jobs(jobs)
    from era_cnn.runs.console import say
    from era_cnn.runs.folder import claim, shown
    from era_cnn.runs.sweep import jobs_table, read_jobs

    claimed = claim(Path(resolved(composed, "hydra.sweep.dir")))
    try:
        code = _call_hydra(typed, f"hydra.sweep.dir='{quote(str(claimed.path))}'")
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
    from era_cnn.composition import raise_problems_of_jobs
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


def _call_hydra(typed: Sequence[str], *overrides: str) -> int:
    """Runs the Hydra application as if the words were the command line; returns the last job's exit code.

    Raises:
        ConfigError: If Hydra fails before a job has begun.
        StorageError: If it fails since a file can't be written.
    """
    codes: list[int] = []

    def task(composed: DictConfig) -> int:
        from era_cnn.runs.job import job

        codes.append(1)
        codes[-1] = job(composed, command=["era-cnn", *typed])
        if codes[-1] in STOPPED:
            raise SystemExit(codes[-1])  # the one thing that ends a sweep
        return codes[-1]

    application = hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(task)
    try:
        with _command_line(_with_overrides(typed, overrides)), _errors_pass(), guarded():
            application()
    except SystemExit:
        if not codes:
            raise
    except (EraCnnError, BrokenPipeError):
        raise
    except Exception as error:
        if codes or not overrides:
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            raise StorageError.of(error.filename or "The run folder", error) from error
        raise ConfigError([f"Hydra must be able to start, got: {reason_of(error)}. See --hydra-help."]) from error
    return codes[-1] if codes else 0


def _with_overrides(typed: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """A command line with more overrides: behind the last that was typed, for the parser takes them in one row only."""
    words = parse_words(typed).overrides if overrides else []
    end = len(typed) - list(reversed(typed)).index(words[-1]) if words else len(typed)
    return [*typed[:end], *overrides, *typed[end:]]


@contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = ["era-cnn", *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _errors_pass() -> Iterator[None]:
    """Lets Hydra raise what it would else print and turn into exit code 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
