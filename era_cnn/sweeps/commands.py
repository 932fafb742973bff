"""From words to a sweep, and from a sweep's folder to where it goes on: `era-cnn -m …` and `era-cnn resume SWEEP`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from era_cnn.compose.complaints import one_for_all_jobs
from era_cnn.compose.planner import PlannedJob, Planner, raise_problems_of_jobs, resolved
from era_cnn.compose.words import Words
from era_cnn.config.choices import DATASETS
from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.folders.claims import claim, shown
from era_cnn.folders.ledger import Job
from era_cnn.folders.outcome import DONE
from era_cnn.folders.stored import read_config
from era_cnn.folders.sweep import HALT, LEDGER, RECORD, STUDY, SweepFolder
from era_cnn.reports.tables import as_text, write_results
from era_cnn.runs.output import say
from era_cnn.runs.stopping import StopRequest, exit_code_of, stop_requests
from era_cnn.sweeps.board import Board
from era_cnn.sweeps.executor import Executor, Manner
from era_cnn.sweeps.options import BASIC_LAUNCHER, OptunaSweeper, SweepOptions, sweep_options
from era_cnn.sweeps.pool import Pool, prepare
from era_cnn.sweeps.request import Request, parse_changes
from era_cnn.sweeps.sweep import Drive, Listed, Source

OWN_NAMES = (RECORD, LEDGER, STUDY, "sweep.csv", "sweep.md", ".lock", ".submitit", HALT)
"""What else lies in the folder of a sweep."""

CHANGEABLE = ("hydra/launcher", "sweep.on_error", "sweep.retries", "sweep.reuse", "hydra.sweeper.n_trials")
"""What may be other when a sweep goes on, besides the launcher's keys: how its jobs are done, not what they are."""


def start(words: Words, composed: DictConfig, typed: Sequence[str]) -> int:
    """Plans a sweep, and does it; returns the exit code.

    Raises:
        ConfigError: With every problem of any job; then nothing was created. So do the others.
        DataError: If the data of a job can't be had.
        RunFolderError: If the folder can't be created.
    """
    options = sweep_options(composed)
    planner = Planner(words, composed)
    planned = _corners(options.search, planner) if options.search else planner.plan(planner.grid())
    _prepare(composed, planned[0].config)
    _check(planned)
    sweep_dir = resolved(composed, "hydra.sweep.dir")
    if "%" in sweep_dir and "submitit" in str(composed.hydra.launcher.get("_target_")):
        advice = "Choose another: submitit puts the number of a job there."
        raise ConfigError([problem("hydra.sweep.dir", "have no %", sweep_dir, advice)])
    claimed = claim(Path(sweep_dir))
    sweep = SweepFolder(claimed.path)
    try:
        with sweep.locked(), stop_requests() as stop:
            jobs = sweep.create(composed, [] if options.search else planned)
            executor = _executor(sweep, words, composed, options, _manner(sweep, options, ["era-cnn", *typed]))
            source = _search(options.search, planner, sweep, (), planned) if options.search else Listed(jobs)
            board = Board(source.expected(), 0, _common([job.overrides for job in planned]))
            return _drive(sweep, source, executor, options, stop, board)
    finally:
        if not (claimed.path / RECORD).is_file():
            claimed.give_back()


def resume(path: Path, overrides: Sequence[str], typed: Sequence[str], data_root: str | None = None) -> int:
    """Does what is left of a sweep: interrupted jobs go on, failed and missing ones run; returns the exit code.

    Args:
        path: The sweep's folder.
        overrides: Options of the sweep and its launcher to change, such as hydra/launcher=local.
        typed: The words that asked for it, for the outcomes.
        data_root: Where the data lie by now, if not where they lay.

    Raises:
        ConfigError: If an override is none of those.
        RunFolderError: If there is no sweep, or another process drives it.
    """
    _check_changes(overrides)
    sweep = SweepFolder(path.absolute())
    recorded = Request.of(sweep)
    composed = recorded.composed(list(overrides))
    options = sweep_options(composed)
    if options.search is None and any("hydra.sweeper.n_trials" in text for text in overrides):
        raise ConfigError(["hydra.sweeper.n_trials must go with a search, got a sweep that is none. Leave it out."])
    with sweep.locked(), stop_requests() as stop:
        if (sweep.path / ".submitit").exists():
            from era_cnn.sweeps.plugin import withdraw

            withdraw(sweep.path)
        jobs = sweep.jobs()
        sweep.restore_ledger(jobs)
        _make_missing(sweep, jobs, recorded)
        pending = [job for job in jobs if sweep.outcome(job).state not in DONE]
        for job in pending[:1]:
            with suppress(RunFolderError):  # then it is found so in a moment, once more
                _prepare(composed, read_config(sweep.run(job)).config)
        pending.sort(key=lambda job: sweep.run(job).is_in_use())  # those that another process still works at come last
        executor = _executor(sweep, Words(), composed, options, _manner(sweep, options, typed, data_root))
        source: Source = Listed(pending)
        if options.search:
            planner = recorded.planner()
            source = _search(options.search, planner, sweep, jobs, _corners(options.search, planner))
        board = Board(source.expected(), len(jobs) - len(pending), _common([job.overrides for job in jobs]))
        return _drive(sweep, source, executor, options, stop, board)


def _make_missing(sweep: SweepFolder, jobs: Sequence[Job], recorded: Request) -> None:
    missing = [job for job in jobs if not (sweep.path / job.folder / "config.yaml").exists()]
    if missing:
        planner = recorded.planner()
        for job in missing:
            (planned,) = planner.plan([job.overrides], first=job.number)
            sweep.make_again(planned, job)


def _corners(options: OptunaSweeper, planner: Planner) -> list[PlannedJob]:
    from era_cnn.sweeps.search import plan_corners  # and with it torch

    return plan_corners(options, planner)


def _search(
    options: OptunaSweeper, planner: Planner, sweep: SweepFolder, jobs: Sequence[Job], corners: Sequence[PlannedJob]
) -> Source:
    from era_cnn.sweeps.search import Search  # and with it torch and Optuna

    return Search(options, planner, sweep, jobs, corners[0].config.trainer.epochs_to_run)


def _drive(
    sweep: SweepFolder, source: Source, executor: Executor, options: SweepOptions, stop: StopRequest, board: Board
) -> int:
    Drive(sweep=sweep, source=source, executor=executor, config=options.sweep, board=board, stop=stop).go()
    return _conclude(sweep, stop)


def _common(overrides: Sequence[tuple[str, ...]]) -> set[str]:
    """What all jobs have: it tells none apart."""
    return set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()


def _conclude(sweep: SweepFolder, stop: StopRequest) -> int:
    """Writes and says what became of a sweep; returns the exit code.

    Raises:
        StorageError: If it can't be written; it is said before.
    """
    outcomes = sweep.outcomes(sweep.jobs())
    say(f"\n{as_text(outcomes, sweep.path)}")
    is_done = all(outcome.state in DONE for outcome in outcomes)
    if not is_done:
        say(f"To go on with what is not done: era-cnn resume {shlex.quote(str(shown(sweep.path)))}")
    say(f"Sweep folder: {shown(sweep.path)}")
    write_results(outcomes, sweep.path)
    if stop.number is not None:
        return exit_code_of(stop.number)
    return 0 if is_done else 1


def _is_plugin(composed: DictConfig) -> bool:
    return bool(composed.hydra.launcher.get("_target_", BASIC_LAUNCHER) != BASIC_LAUNCHER)


def _prepare(composed: DictConfig, config: RunConfig) -> None:
    """Lets workers on this machine import in the meantime what they need for jobs like this one."""
    if not _is_plugin(composed):
        prepare(getattr(DATASETS[config.data.name], "imports", ()))


def _executor(
    sweep: SweepFolder, words: Words, composed: DictConfig, options: SweepOptions, manner: Manner
) -> Executor:
    if _is_plugin(composed):
        from era_cnn.sweeps.plugin import PluginExecutor

        return PluginExecutor(sweep.path, words, composed, manner)
    if options.launcher is not None:
        return Pool(sweep.path, manner, at_once=options.launcher.n_jobs, own_process=True)
    return Pool(sweep.path, manner, at_once=1, own_process=False)


def _manner(sweep: SweepFolder, options: SweepOptions, command: Sequence[str], data_root: str | None = None) -> Manner:
    places = [Path(os.path.abspath(place)) for place in options.sweep.reuse_from]
    return Manner(tuple(command), (*places, sweep.path) if options.sweep.reuse else (), data_root)


def _check(jobs: Sequence[PlannedJob]) -> None:
    """Raises what the jobs would before they train; data sets are read and verified once each."""
    from era_cnn.runs.parts import check, read_data  # and with them torch

    subdirs: dict[str, PlannedJob] = {}
    alike: dict[str, PlannedJob] = {}
    problems: dict[str, list[str]] = {}
    for job in jobs:
        if (first := alike.setdefault(job.config.model_dump_json(), job)) is not job:
            both = f"{first} and {job}, whose configs are the same"
            raise ConfigError([f"A sweep must have jobs that differ, got {both}. Remove one."])
        if job.subdir.split("/")[0] in OWN_NAMES:
            rule = "be a name that the sweep does not use itself"
            raise ConfigError([problem("hydra.sweep.subdir", rule, job.subdir, "Choose another.")])
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
        read_data(config)


def _check_changes(typed: Sequence[str]) -> None:
    """Raises a `ConfigError` if an override of a resumed sweep is more than another way to do its jobs."""
    problems = []
    for override in parse_changes(typed):
        key, value = override.key_or_group, (override.input_line or "").partition("=")[2]
        is_launchers = key.startswith("hydra.launcher.")
        if not is_launchers and key not in CHANGEABLE:
            advice = f"What may change is {', '.join(CHANGEABLE)} and the launcher's keys."
            problems.append(problem(key, "stay as it was: the jobs are planned", value, advice))
        elif override.is_sweep_override():
            problems.append(one_for_all_jobs(override))
        elif override.is_delete() or ((override.input_line or "").startswith("+") and not is_launchers):
            problems.append(f"{key} must be given as {key}=…, got {override.input_line}. Write it so.")
    if problems:
        raise ConfigError(problems)
