"""Starts and resumes sweeps: `era-cnn -m …` and `era-cnn resume SWEEP`."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from era_cnn.compose.changes import parse_changes
from era_cnn.compose.complaints import one_for_all_jobs
from era_cnn.compose.composition import Planned, as_yaml, resolved
from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words
from era_cnn.config.notices import notices
from era_cnn.config.sections import Choice
from era_cnn.errors import ConfigError, LauncherError, OutputError, RunFolderError, amount, problem, show
from era_cnn.folders.claims import check_length, claim
from era_cnn.folders.ledger import Job
from era_cnn.folders.outcome import DONE
from era_cnn.folders.stored import is_portable, read_config
from era_cnn.folders.sweep import RECORD, SUBMITIT, SweepFolder
from era_cnn.output import complain, say, shown
from era_cnn.paths import expanded, typed_path
from era_cnn.portable import choose_arithmetic, prefer_arithmetic
from era_cnn.reports.report import try_to_report, write_sweep_report
from era_cnn.reports.rows import Row, read_rows
from era_cnn.reports.views import as_text, write_results
from era_cnn.runs.stopping import StopRequest, stop_requests
from era_cnn.signals import exit_code_of
from era_cnn.sweeps.board import Board
from era_cnn.sweeps.checks import check_jobs
from era_cnn.sweeps.executor import Executor, Manner, Reusable
from era_cnn.sweeps.executors import hint_at_threads, make_executor, prepare_workers
from era_cnn.sweeps.options import OptunaSweeper, SweepOptions, check_reuse, sweep_options
from era_cnn.sweeps.request import Request
from era_cnn.sweeps.sweep import Drive, Listed, Source

CHANGEABLE = (
    "hydra/launcher", "sweep.on_error", "sweep.retries", "sweep.reuse", "sweep.reuse_from", "hydra.sweeper.n_trials",
)  # fmt: skip
"""Overrides that `resume` may change, besides the launcher's keys: how jobs run, not what they compute."""


def start(words: Words, composed: Composed, typed: Sequence[str]) -> int:
    """Plans a sweep, and runs it; returns the exit code. If it raises, nothing was created.

    Raises:
        ConfigError: If a job is wrong; lists every problem of every job.
        DataError: If the data of a job is missing or damaged.
        RunFolderError: If the folder can't be created.
    """
    # Every job is composed and checked before anything is created.
    options = sweep_options(composed)
    planner = Planner(words, composed)
    prefer_arithmetic(composed.get("portable") is True)  # before a search imports torch
    planned = _corners(options.search, planner) if options.search else planner.plan(planner.grid())
    choose_arithmetic(_is_portable(planned))
    prepare_workers(options.launcher, planned[0].config)
    check_jobs(planned)
    threads, num_jobs = planned[0].config.threads, options.search.n_trials if options.search else len(planned)
    if hint := hint_at_threads(options.launcher, words.overrides, threads=threads, num_jobs=num_jobs):
        say(hint)
    for notice in _notices(planned):
        complain(notice)

    # The sweep gets a folder, and each job a folder within it.
    sweep_dir = _sweep_dir(composed, options)
    for job in planned:
        check_length(Path(os.path.abspath(sweep_dir), job.folder))
    claimed = claim(Path(sweep_dir))
    sweep = SweepFolder(claimed.path)
    try:
        with sweep.locked(), stop_requests() as stop:
            jobs = sweep.create(as_yaml(composed), [] if options.search else planned)

            # The jobs are carried out, wherever the launcher runs them.
            manner = _manner(sweep, options, ["era-cnn", *typed], plugins=words.plugins)
            executor = make_executor(sweep.path, words, composed, options, manner)
            source = _search(options.search, planner, sweep, (), planned) if options.search else Listed(jobs)
            return _drive(sweep, source, executor, options, stop, [job.overrides for job in planned])
    finally:
        if not (claimed.path / RECORD).is_file():
            claimed.give_back()


def resume(
    path: Path, overrides: Sequence[str], typed: Sequence[str], data_root: str | None = None, words: Words | None = None
) -> int:
    """Resumes a sweep: interrupted jobs continue, failed and missing ones run again; returns the exit code.

    Args:
        path: The sweep's folder.
        overrides: Options of the sweep and its launcher to change, such as hydra/launcher=local.
        typed: The command that resumed it, for the provenance.json of the jobs.
        data_root: Where the data is now, if it was moved.
        words: The loaded plugins, and the user's own config folder, if it was moved.

    Raises:
        ConfigError: If an override can't be changed.
        RunFolderError: If there is no sweep, or another process runs it.
    """
    # The recorded request, with the options that were changed.
    words = words or Words()
    _check_changes(overrides)
    if data_root is not None:
        typed_path("--data-root", data_root)  # its jobs would fail one by one
    sweep = SweepFolder(path.absolute())
    request = Request.of(sweep).given(words.config_dir)
    composed = request.composed(overrides)
    if "n_trials" not in request.sweeper and any("hydra.sweeper.n_trials" in text for text in overrides):
        raise ConfigError(["hydra.sweeper.n_trials must be used with a search, got another sweep. Leave it out."])
    options = sweep_options(composed)
    check_reuse(options.sweep, overrides)
    _report_other_places(options, request, overrides)
    with sweep.locked(), stop_requests() as stop:
        # Clean up after an earlier driver: its queued jobs, the ledger, and missing folders.
        if (sweep.path / SUBMITIT).exists():
            from era_cnn.sweeps.plugin import withdraw

            withdraw(sweep.path)
        jobs = sweep.jobs()
        sweep.restore_ledger(jobs)
        _make_missing(sweep, jobs, request)

        # Run the jobs that are not done; those that another process still works on come last.
        pending = [job for job in jobs if sweep.outcome(job).state not in DONE]
        prefer_arithmetic(composed.get("portable") is True)
        for job in pending[:1]:
            with suppress(RunFolderError):  # reported again when the job is started
                choose_arithmetic(is_portable(sweep.run(job)))
                prepare_workers(options.launcher, read_config(sweep.run(job)).config)
        pending.sort(key=lambda job: sweep.run(job).is_in_use())
        manner = _manner(sweep, options, typed, data_root, words.plugins)
        executor = make_executor(sweep.path, words, composed, options, manner)
        source: Source = Listed(pending)
        if options.search:
            planner = request.planner()
            source = _search(options.search, planner, sweep, jobs, _corners(options.search, planner))
        done = len(jobs) - len(pending)
        return _drive(sweep, source, executor, options, stop, [job.overrides for job in jobs], done)


def _report_other_places(options: SweepOptions, request: Request, changes: Sequence[str]) -> None:
    """Says that the folders in which the sweep began to search for equal runs are not searched any more."""
    recorded, is_given = request.sweep.get("reuse_from"), any(text.startswith("sweep.reuse_from=") for text in changes)
    if options.sweep.reuse and not is_given and recorded not in (None, options.sweep.reuse_from):
        say(f"Equal runs are not searched for in {show(recorded)}. To do so, add sweep.reuse_from=… again.")


def _is_portable(jobs: Sequence[Planned]) -> bool:
    """Whether the jobs compute portably: workers are forked from one process, which can compute in one way only."""
    portable = {job.config.portable for job in jobs}
    if len(portable) > 1:
        raise ConfigError([problem("portable", "be the same for all jobs of a sweep", [True, False], "Start two.")])
    return portable.pop()


def _notices(jobs: Sequence[Planned]) -> list[str]:
    """The notices of all jobs, each once, with the number of its jobs."""
    counts = Counter(notice for job in jobs for notice in notices(job.config))
    return [f"{notice} ({count:,} of {amount(len(jobs), 'job')})" for notice, count in counts.most_common(MAX_NOTICES)]


MAX_NOTICES = 5
"""The most notices about a sweep: one over the length of a training could have one for each of its jobs."""


def _sweep_dir(composed: Composed, options: SweepOptions) -> str:
    sweep_dir = resolved(composed, "hydra.sweep.dir")
    if "%" in sweep_dir and isinstance(options.launcher, Choice):
        advice = "Choose another folder: launchers replace % by the number of a job."
        raise ConfigError([problem("hydra.sweep.dir", "not contain %", sweep_dir, advice)])
    return sweep_dir


def _make_missing(sweep: SweepFolder, jobs: Sequence[Job], request: Request) -> None:
    missing = [job for job in jobs if not (sweep.path / job.folder / "config.yaml").exists()]
    if missing:
        planner = request.planner()
        for job in missing:
            (planned,) = planner.plan([job.overrides], first=job.number)
            sweep.make_again(planned, job)


def _corners(options: OptunaSweeper, planner: Planner) -> list[Planned]:
    from era_cnn.sweeps.search import plan_corners  # imports torch

    return plan_corners(options, planner)


def _search(
    options: OptunaSweeper, planner: Planner, sweep: SweepFolder, jobs: Sequence[Job], corners: Sequence[Planned]
) -> Source:
    from era_cnn.sweeps.search import Search  # imports torch and Optuna

    return Search(options, planner, sweep, jobs, corners[0].config.trainer.epochs_to_run)


def _drive(
    sweep: SweepFolder,
    source: Source,
    executor: Executor,
    options: SweepOptions,
    stop: StopRequest,
    overrides: Sequence[tuple[str, ...]],
    done: int = 0,
) -> int:
    """Runs the jobs of a source, shows their progress, and reports the outcomes; returns the exit code."""
    common = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()  # the board leaves these out
    board = Board(source.expected(), done, common)
    try:
        Drive(sweep=sweep, source=source, executor=executor, config=options.sweep, board=board, stop=stop).go()
        return _conclude(sweep, stop)
    except OutputError:
        write_results(read_rows(sweep.outcomes(sweep.jobs())), sweep.path)
        if stop.number is None:
            raise
        return exit_code_of(stop.number)
    except LauncherError as error:
        write_results(read_rows(sweep.outcomes(sweep.jobs())), sweep.path)
        raise LauncherError(f"{error} {_to_resume(sweep)}") from error
    except KeyboardInterrupt:  # a second Ctrl-C
        complain(_to_resume(sweep))
        raise


def _to_resume(sweep: SweepFolder) -> str:
    return f"To resume what is not done: era-cnn resume {shlex.quote(str(shown(sweep.path)))}"


def _conclude(sweep: SweepFolder, stop: StopRequest) -> int:
    """Prints and writes the outcomes of a sweep; returns the exit code.

    Raises:
        StorageError: If they can't be written; they are printed first.
    """
    outcomes = sweep.outcomes(sweep.jobs())
    rows = read_rows(outcomes)
    say("", *as_text(rows, sweep.path).split("\n"))
    is_done = all(outcome.state in DONE for outcome in outcomes)
    if not is_done:
        say(_to_resume(sweep))
    say(f"Sweep folder: {shown(sweep.path)}")
    write_results(rows, sweep.path)
    if stop.number is not None:
        return exit_code_of(stop.number)
    if sweep.read_request().report:
        _report(rows, sweep)
    return 0 if is_done else 1


def _report(rows: Sequence[Row], sweep: SweepFolder) -> None:
    try_to_report(lambda: write_sweep_report(rows, sweep.path), sweep.path)


def _manner(
    sweep: SweepFolder,
    options: SweepOptions,
    command: Sequence[str],
    data_root: str | None = None,
    plugins: tuple[str, ...] = (),
) -> Manner:
    return Manner(tuple(command), _reusable(sweep, options), data_root, plugins)


def _reusable(sweep: SweepFolder, options: SweepOptions) -> Reusable | None:
    if not options.sweep.reuse:
        return None
    from era_cnn.sweeps.reuse import find_reusable  # imports torch

    return find_reusable([Path(os.path.abspath(expanded(each))) for each in options.sweep.reuse_from], sweep.path)


def _check_changes(typed: Sequence[str]) -> None:
    """Raises a `ConfigError` if an override of a resumed sweep would change what its jobs compute."""
    problems = []
    for override in parse_changes(typed):
        key, value = override.key_or_group, (override.input_line or "").partition("=")[2]
        is_launchers = key.startswith("hydra.launcher.")
        if not is_launchers and key not in CHANGEABLE:
            advice = f"You can change {', '.join(CHANGEABLE)} and the launcher's keys."
            problems.append(problem(key, "not change: the jobs are planned already", value, advice))
        elif override.is_sweep_override():
            problems.append(one_for_all_jobs(override))
        elif override.is_delete() or ((override.input_line or "").startswith("+") and not is_launchers):
            problems.append(f"{key} must be given as {key}=…, got {override.input_line}. Use that form.")
    if problems:
        raise ConfigError(problems)
