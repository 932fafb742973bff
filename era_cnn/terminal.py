"""The process of a command: its streams, its signals, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from era_cnn.errors import EraCnnError
from era_cnn.machine import spin_briefly


def own_the_process() -> None:
    """Prepares a process that was started for one command: garbage collection, OpenMP, streams and signals."""
    gc.set_threshold(100_000)  # instead of 700: imports create half a million objects that are never freed
    spin_briefly()
    _open_streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _stop)


def flushed(code: int) -> int:
    """Flushes standard output; returns the exit code, which becomes 1 if the flush fails."""
    try:
        sys.stdout.flush()
    except OSError:  # closed, or full
        code = code or 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails again
    return code


def _open_streams() -> None:
    """Opens /dev/null for each standard stream that the command was started without."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # it is closed, and the next file to be opened would get its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the workers of a sweep need it as well
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - never closed


class Terminated(BaseException):
    """Raised by SIGTERM or one of Slurm's signals while no run is in progress, so there is nothing to save."""


_signals: list[int] = []
"""The signals that arrived before a run had begun, or after it."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _signals.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def report(error: BaseException) -> int | None:
    """Prints why a command ended; returns the exit code, or None for an error that needs a traceback."""
    # An interrupted library may raise an exception other than the one that interrupted it.
    if _signals or not isinstance(error, Exception):
        by_hand = isinstance(error, KeyboardInterrupt) or _signals[-1:] == [signal.SIGINT]
        return _ended("Stopped.", 130) if by_hand else _ended("Terminated.", 143)
    if isinstance(error, EraCnnError):
        return _ended(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        return _ended("Standard output was closed.", 1)
    if isinstance(error, OSError):
        return _ended(f"The command must be able to read and write, got: {error}. Check the disk and the output.", 1)
    return None


def _ended(message: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # if standard error is closed, the exit code still tells
        print(message, file=sys.stderr, flush=True)
    return exit_code
