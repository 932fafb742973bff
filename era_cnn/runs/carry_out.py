"""Carries out the run in a folder: records whatever happens in the folder, and turns it into an exit code.

This is the only way to start a run: a new run, a job of a sweep, a resumed run and a replay all begin here, with a
folder that holds their config.
"""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from era_cnn.config.schema import RunConfig
from era_cnn.errors import EraCnnError, OutputError, RunFolderError, StorageError, TrainingError, block
from era_cnn.folders.record import CONFIG_DIR, PLUGIN, own_files
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from era_cnn.output import say, shown
from era_cnn.portable import check_processor
from era_cnn.randomness import ONE_AT_A_TIME
from era_cnn.reports.report import try_to_report, write_run_report
from era_cnn.runs.listeners.console import Console, log_to
from era_cnn.runs.parts import check_blocks
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, stop_requests
from era_cnn.training.listeners import Listener


def carry_out(
    folder: RunFolder,
    command: Sequence[str],
    *,
    data_root: str | None = None,
    take_over: Callable[[RunFolder, RunConfig], bool] | None = None,
    quiet: bool = False,
    listeners: Sequence[Listener] = (),
    raises: bool = False,
) -> int:
    """Runs or continues the run in a folder; returns the exit code. A completed run is left as it is.

    Once the run has begun, no error is raised, so that a sweep can continue; the folder records what happened.

    Args:
        folder: The folder of the run, with its config.
        command: The command that started it, for provenance.json.
        data_root: Where the data is now, if it was moved.
        take_over: Completes the run from an equal one, if it finds any; called before the run begins.
        quiet: Whether to write messages only to run.log.
        listeners: Further listeners; they are called after those that show, save and write the run.
        raises: Whether to raise what ends the run, after recording it, instead of returning an exit code.

    Raises:
        EraCnnError: If the run can't begin; then nothing was changed.
    """
    stored = read_config(folder, data_root)  # before locking, which would create a file even if this is no run
    check_blocks(stored.config, folder.path)
    check_processor(stored.config.portable)
    with folder.locked(), ONE_AT_A_TIME:
        if folder.result() is not None:
            if not quiet:
                say(f"Nothing to do: the run is complete. Run folder: {shown(folder.path)}")
            return 0
        if take_over is not None and take_over(folder, stored.config):
            return 0
        console = Console(quiet=quiet)
        with (
            log_to(folder.path / "run.log"),
            stop_requests() as stop,
            _recorded(folder, console, command, raises=raises) as ending,
        ):
            try:
                run(stored, folder, console, stop, command, listeners)
            except OutputError:  # a signal may have ended whoever read the output as well
                stop.check()
                raise
            stop.check()  # a signal that came too late to stop this run still stops the sweep
    if folder.is_complete and stored.config.report and not folder.is_job:
        _report(folder, quiet=quiet)
    return ending.exit_code


def _report(folder: RunFolder, *, quiet: bool) -> None:
    try_to_report(lambda: write_run_report(folder), folder.path, quiet=quiet)


def find_lr_of(folder: RunFolder, command: Sequence[str]) -> str:
    """The command that tests learning rates for the config of a run; in words, if its overrides are not recorded."""
    try:
        overrides = folder.read_hydra().task
        first = folder.read_json("provenance.json").get("command") or []
    except RunFolderError:  # its config was made in Python, for example
        return "era-cnn find-lr with the overrides of this run, or era_cnn.find_lr(config)"
    kept = [word for word in overrides if not word.startswith("optimizer.lr=")]
    files = [*own_files(first, CONFIG_DIR), *own_files(command, PLUGIN)]  # of one that goes on, each has one of the two
    return shlex.join(["era-cnn", "find-lr", *files, *kept])


def _quoted(folder: RunFolder) -> str:
    return shlex.quote(str(shown(folder.path)))


@dataclass
class _Ending:
    """How a run ended, as an exit code."""

    exit_code: int = 0


@contextmanager
def _recorded(folder: RunFolder, console: Console, command: Sequence[str], *, raises: bool) -> Iterator[_Ending]:
    """Records in the folder whatever ends the run, reports it, and turns it into an exit code.

    Raises:
        EraCnnError: If the run had not begun.
        KeyboardInterrupt: If a second SIGINT stopped it immediately.
        BaseException: What ended the run, if `raises` is true; an interruption as a KeyboardInterrupt.
    """
    ending = _Ending()
    to_resume = f"era-cnn resume {_quoted(folder)}"

    def end(state: str, message: str, code: int, report: str, **details: str) -> None:
        ending.exit_code = code
        console.complain(*report.split("\n"))
        _record(folder, state, message, **details)

    try:
        yield ending
    except Interrupted as interrupted:
        if folder.is_complete:
            console.complain("Interrupted after the run was complete.")
            ending.exit_code = interrupted.exit_code
        else:
            end("interrupted", str(interrupted), interrupted.exit_code, f"Interrupted. To resume: {to_resume}")
        if raises:
            raise KeyboardInterrupt from interrupted
    except KeyboardInterrupt:
        end("interrupted", "stopped immediately by a second SIGINT", 130, f"To resume what was saved: {to_resume}")
        raise
    except EraCnnError as error:
        if not folder.has_begun:
            raise
        then = f" Then resume: {to_resume}" if isinstance(error, StorageError | OutputError) else ""
        if isinstance(error, TrainingError):
            then = f"\nRun folder: {shown(folder.path)}\nTo try other learning rates: {find_lr_of(folder, command)}"
        end("failed", str(error), error.exit_code, f"{error}{then}")
        if raises:
            raise
    except (Exception, SystemExit) as error:
        text = traceback.format_exc()
        end("failed", f"{type(error).__name__}: {error}", 1, block(text), traceback=text)
        if raises:
            raise
    finally:
        console.close()


def _record(folder: RunFolder, state: str, message: str, **details: str) -> None:
    with suppress(StorageError):  # the disk is full: the message is already on the terminal
        folder.end(state, message, **details)
