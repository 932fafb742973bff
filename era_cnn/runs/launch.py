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

import hydra
from hydra.types import RunMode
from omegaconf import DictConfig

from era_cnn.composition import (
    CONFIG_MODULE,
    Words,
    compose,
    explained,
    output_dir,
    quote,
    sweep_jobs,
    validated,
)
from era_cnn.errors import ConfigError, problem


def launch(args: argparse.Namespace, typed: Sequence[str]) -> int:
    """Does what Hydra's command line asks for; returns the exit code."""
    words = Words.of(args)
    if args.experimental_rerun:
        advice = "Type again what provenance.json holds as the command."
        raise ConfigError([problem("--experimental-rerun", "not be used", args.experimental_rerun, advice)])
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        with explained(words):
            _call_hydra(typed)
        return 0
    composed = compose(words, RunMode.MULTIRUN if args.multirun else RunMode.RUN)
    if args.multirun or composed.hydra.mode == RunMode.MULTIRUN:
        return _launch_sweep(words, composed, typed)
    return _launch_run(composed, typed)


def _launch_run(composed: DictConfig, typed: Sequence[str]) -> int:
    config = validated(composed)
    from era_cnn.runs.folder import claim, give_back  # from here on torch is needed
    from era_cnn.runs.run import check

    check(config)
    folder = claim(Path(output_dir(composed, "hydra.run.dir")).absolute())
    code = 0
    try:
        code = _call_hydra(typed, f"hydra.run.dir='{quote(str(folder))}'")
    finally:
        if code in (2, 3, 4):
            give_back(folder, Path.cwd())
    return code


def _launch_sweep(words: Words, composed: DictConfig, typed: Sequence[str]) -> int:
    configs = sweep_jobs(words, composed)
    from era_cnn.runs.folder import claim, shown
    from era_cnn.runs.run import check
    from era_cnn.runs.sweep import jobs_table, read_jobs

    for config in configs:
        check(config)
    folder = claim(Path(output_dir(composed, "hydra.sweep.dir")).absolute())
    _call_hydra(typed, f"hydra.sweep.dir='{quote(str(folder))}'")
    jobs = read_jobs(folder)
    print(f"\n{jobs_table(jobs)}\nSweep folder: {shown(folder)}")
    return 0 if len(jobs) == len(configs) and all(job.state == "completed" for job in jobs) else 1


def _call_hydra(typed: Sequence[str], *overrides: str) -> int:
    """Runs the Hydra application as if the words were the command line; returns the last job's exit code."""
    codes = [0]

    def task(composed: DictConfig) -> int:
        from era_cnn.runs.job import job

        codes.append(job(composed, command=["era-cnn", *typed]))
        return codes[-1]

    application = hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(task)
    with _command_line([*typed, *overrides]), _errors_pass():
        application()
    return codes[-1]


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
