"""The process of a command: its streams, its signals, and how it ends."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from era_cnn.errors import EraCnnError, OutputError, harmless, shortened
from era_cnn.machine import spin_briefly
from era_cnn.output import accept_all_characters, complain, discard_output, draw, drop_complaints
from era_cnn.signals import exit_code_of, handled_signals


def own_the_process() -> None:
    """Prepares a process that was started for one command: garbage collection, OpenMP, streams and signals."""
    gc.set_threshold(100_000)  # instead of 700: imports create half a million objects that are never freed
    spin_briefly()
    _open_streams()
    accept_all_characters()
    sys.unraisablehook = _not_raised
    for number in handled_signals():
        signal.signal(number, _stop)


def flushed(code: int) -> int:
    """Flushes both streams; returns the exit code. If standard output can't be flushed, says so, and returns 1."""
    try:
        sys.stderr.flush()
    except OSError:  # a library's warning, for example
        drop_complaints()
    try:
        draw("")
    except OutputError as error:
        discard_output()
        return code or _ended(str(error), error.exit_code)
    return code


def _open_streams() -> None:
    """Opens /dev/null for each standard stream that the command was started without, and lets the others wait.

    Another program that shares a terminal or a pipe may have made it non-blocking: then what a slow reader has no room
    for would be lost, and would end the run.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # it is closed, and the next file to be opened would get its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the workers of a sweep need it as well
    for descriptor in (1, 2):
        with suppress(OSError):
            os.set_blocking(descriptor, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - never closed


class Terminated(BaseException):
    """Raised by any signal but SIGINT while no run is in progress, so there is nothing to save."""


_signals: list[int] = []
"""The signals that arrived before a run had begun, or after it."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _signals.append(number)
    if _is_importing("torch"):  # nothing is to be saved, and in its native code an exception may abort the process
        with suppress(RuntimeError):  # the signal came while standard error was written to
            _say_stopped(number)
        os._exit(flushed(exit_code_of(number)))
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _not_raised(event: sys.UnraisableHookArgs) -> None:
    """Sends a signal again that came while an object was removed, where Python lets no exception through."""
    if isinstance(event.exc_value, KeyboardInterrupt | Terminated):
        again = threading.Timer(0.01, os.kill, (os.getpid(), _signals[-1]))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(event)


def _is_importing(name: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def _say_stopped(number: int) -> None:
    complain("Stopped." if number == signal.SIGINT else "Terminated.")


def report(error: BaseException) -> int | None:
    """Prints why a command ended; returns the exit code, or None for an error that needs a traceback."""
    # An interrupted library may raise an exception other than the one that interrupted it.
    if _signals or not isinstance(error, Exception):
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else _signals[-1]
        _say_stopped(number)
        return exit_code_of(number)
    if isinstance(error, EraCnnError):
        return _ended(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        return _ended("Standard output was closed.", 1)
    if library := _not_imported(error):
        got = harmless(shortened(" ".join(f"{type(error).__name__}: {error}".split()), 300).rstrip("."))
        advice = "Check its installation, and the environment variables that it reads."
        return _ended(f"The library {library} must be importable, got {got}. {advice}", 1)
    if isinstance(error, OSError):
        got = harmless(str(error))
        return _ended(f"The command must be able to read and write, got: {got}. Check the disk and the output.", 1)
    return None


def _not_imported(error: Exception) -> str:
    """The library whose import an error ended, if any: many read the environment then, and fail if they dislike it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [str(frame.f_globals.get("__name__")) for frame in frames if frame.f_code.co_name == "<module>"]
    if isinstance(error, ModuleNotFoundError):
        names.append(error.name or "")
    libraries = [library for name in names if (library := name.partition(".")[0]) not in ("era_cnn", "__main__")]
    return libraries[-1] if libraries else ""


def _ended(message: str, exit_code: int) -> int:
    complain(*message.split("\n"))
    return exit_code
