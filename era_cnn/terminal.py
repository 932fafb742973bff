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
from era_cnn.runs.machine import spin_briefly


def own_the_process() -> None:
    """Sets what holds for the whole life of a command's process."""
    gc.set_threshold(100_000)  # not each 700 objects: importing makes half a million that stay
    spin_briefly()
    _open_streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _stop)


def flushed(code: int) -> int:
    """The exit code, after all that was said to standard output has left the process."""
    try:
        sys.stdout.flush()
    except OSError:  # closed, or full
        code = code or 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes, and fails, once more
    return code


def _open_streams() -> None:
    """Gives a command that was started without standard streams ones that nobody reads."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: else the next file, a pipe perhaps, would get its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # for the workers of a sweep as well
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process


class Terminated(BaseException):
    """SIGTERM or one of Slurm's, raised where it came: nothing has begun that would have to be saved."""


_signals: list[int] = []
"""Those that came before a run had begun, or after it."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _signals.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def report(error: BaseException) -> int | None:
    """Says why a command ended; returns the exit code, or None for an error that only a traceback explains."""
    # A library that is interrupted may raise something else than what interrupted it.
    if _signals or not isinstance(error, Exception):
        by_hand = isinstance(error, KeyboardInterrupt) or _signals[-1:] == [signal.SIGINT]
        return _ended("Stopped.", 130) if by_hand else _ended("Terminated.", 143)
    if isinstance(error, EraCnnError):
        return _ended(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        return _ended("Standard output was closed.", 1)
    if isinstance(error, OSError):
        said = f"The command must be able to read and write, got: {error}. Look at the disk and the output."
        return _ended(said, 1)
    return None


def _ended(message: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # whoever closed standard error still gets the code
        print(message, file=sys.stderr, flush=True)
    return exit_code
