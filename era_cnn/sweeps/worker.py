"""A worker process, which runs jobs one after another as the driver of a sweep sends their folders."""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from era_cnn.config.choices import load_plugins
from era_cnn.errors import EraCnnError, RunFolderError, StorageError
from era_cnn.folders.claims import InUseError
from era_cnn.folders.plain import open_to_append
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import is_portable
from era_cnn.machine import keep_memory
from era_cnn.output import accept_all_characters
from era_cnn.portable import choose_arithmetic
from era_cnn.runs.stopping import stop_requests
from era_cnn.signals import SIGNALS
from era_cnn.sweeps.executor import Manner


def serve(
    connection: Connection,
    lifeline: Connection,
    manner: Manner,
    cores: Sequence[int],
    environment: Mapping[str, str],
) -> None:
    """Runs the jobs whose folders it receives, until the driver closes the connection or a signal arrives.

    After each job it sends back whether it can take another one.

    Args:
        connection: Receives folders and sends answers.
        lifeline: Closes when the driver ends; the job then saves and stops, as after SIGTERM.
        manner: How all jobs are run.
        cores: The processor cores to use; empty for all.
        environment: The environment variables; those that this process was forked with may be outdated.
    """
    os.environ.clear()
    os.environ.update(environment)
    accept_all_characters()
    if cores and sys.platform == "linux":
        os.sched_setaffinity(0, cores)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    with stop_requests() as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the driver blocked them until they can be handled
        while stop.number is None:
            try:
                folder: Path = connection.recv()
            except EOFError:
                return
            _do_quietly(folder, manner)
            with suppress(OSError):  # the driver may have ended
                connection.send(stop.number is None)


def do_job(path: Path, manner: Manner, *, quiet: bool) -> int:
    """Runs a job in this process; returns the exit code. What happened is recorded in its folder.

    Args:
        path: The job's folder, with its config.
        manner: How all jobs of the sweep are run.
        quiet: Whether to print nothing to the terminal.
    """
    folder = RunFolder(path)
    try:
        choose_arithmetic(is_portable(folder))  # before plugins, which may import torch
        load_plugins(manner.plugins)
        from era_cnn.runs.carry_out import carry_out  # imports torch
        from era_cnn.sweeps.reuse import take_over

        keep_memory()
        take = functools.partial(take_over, reusable=manner.reusable) if manner.reusable else None
        return carry_out(folder, manner.command, data_root=manner.data_root, take_over=take, quiet=quiet)
    except InUseError as error:  # another process runs the job, and records what happens
        return error.exit_code
    except EraCnnError as error:  # raised before the run had begun
        with suppress(EraCnnError), folder.locked():
            if folder.result() is None:
                folder.end("failed", str(error))
        return error.exit_code


def _end_with(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def _do_quietly(folder: Path, manner: Manner) -> None:
    """Runs a job; what libraries print, and the traceback of a crash, goes into its run.log."""
    try:
        RunFolder(folder).check()
        log = open_to_append(folder / "run.log", encoding="utf-8")
    except RunFolderError:  # the driver finds it damaged as well
        return
    except OSError as error:
        with suppress(StorageError):  # the driver then reports that the job recorded no reason
            RunFolder(folder).set_state("failed", message=str(StorageError.of(folder / "run.log", error)))
        return
    with log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        faulthandler.enable(log)
        try:
            do_job(folder, manner, quiet=True)
        finally:
            for stream_of_python in (sys.stdout, sys.stderr):  # or the next job's log would get the output
                if stream_of_python is not None:
                    stream_of_python.flush()
            faulthandler.disable()
