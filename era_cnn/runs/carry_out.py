"""A run as a process carries it out: whatever happens is recorded in the run's folder, and becomes an exit code.

This is the only way into a run: a new one, a job of a sweep, a resumed run and a replay all begin here, with a folder
that holds their config.
"""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from era_cnn.config.schema import RunConfig
from era_cnn.errors import EraCnnError, OutputError, StorageError
from era_cnn.folders.claims import shown
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from era_cnn.runs.listeners.console import Console, log_to
from era_cnn.runs.output import say
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, stop_requests
from era_cnn.training.loop import EpochMetrics


def carry_out(
    folder: RunFolder,
    command: Sequence[str],
    *,
    data_root: str | None = None,
    take_over: Callable[[RunFolder, RunConfig], bool] | None = None,
    quiet: bool = False,
    witness: Callable[[EpochMetrics], None] = lambda record: None,
) -> int:
    """Runs, or continues, what a folder is for; returns the exit code. A completed run is left as it is.

    Once the run has begun, no error is raised, whatever happens: a sweep continues, and its folder says what happened.

    Args:
        folder: It holds the run's config.
        command: The words that asked for it, for the record.
        data_root: Where the data is now, if it was moved.
        take_over: Completes the run from an equal one, if it finds any; called before the run begins.
        quiet: Whether to say nothing but to run.log.
        witness: Sees the record of each epoch, and may raise.

    Raises:
        EraCnnError: If the run can't begin; then nothing was touched.
    """
    config = read_config(folder, data_root)  # before the lock, which would leave a file in what is no run's folder
    with folder.locked():
        if folder.result() is not None:
            if not quiet:
                say(f"Nothing to do: the run is complete. Run folder: {shown(folder.path)}")
            return 0
        if take_over is not None and take_over(folder, config):
            return 0
        console = Console(quiet=quiet)
        to_continue = f"era-cnn resume {shlex.quote(str(shown(folder.path)))}"
        with log_to(folder.path / "run.log"), stop_requests() as stop:
            try:
                run(config, folder, console, stop, command, witness)
                stop.check()  # what came too late to stop this run still stops the sweep
            except Interrupted as interrupted:
                if folder.is_complete:
                    console.complain("Interrupted, as the run was complete.")
                    return interrupted.exit_code
                return _ended(folder, console, "interrupted", str(interrupted), interrupted.exit_code,
                              say=f"Interrupted. To go on: {to_continue}")  # fmt: skip
            except KeyboardInterrupt:
                _record(folder, "interrupted", "stopped at once by a second SIGINT")
                raise
            except EraCnnError as error:
                if not folder.has_begun:
                    raise
                then = f" Then go on: {to_continue}" if isinstance(error, StorageError | OutputError) else ""
                return _ended(folder, console, "failed", str(error), error.exit_code, say=f"{error}{then}")
            except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and a sweep continues
                text = traceback.format_exc()
                return _ended(folder, console, "failed", f"{type(error).__name__}: {error}", 1, say=text,
                              traceback=text)  # fmt: skip
            finally:
                console.close()
    return 0


def _ended(
    folder: RunFolder, console: Console, state: str, message: str, code: int, *, say: str = "", **details: str
) -> int:
    console.complain(say or message)
    _record(folder, state, message, **details)
    return code


def _record(folder: RunFolder, state: str, message: str, **details: str) -> None:
    with suppress(StorageError):  # the disk is full: the message is already on the terminal
        folder.end(state, message, **details)
