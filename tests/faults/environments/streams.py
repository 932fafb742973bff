"""Standard streams that are closed, full, of another kind, or a terminal; encodings and the signals of a process."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

from tests.faults.environments.environment import Environment, variables

ENCODINGS = (
    "ascii",
    "iso-8859-1",
    "iso-8859-2",
    "cp1252",
    "koi8-r",
    "utf-16",
    "ascii:strict",
    "utf-8:strict",
    "big5",
)


def _instead(descriptor: int, path: str, flags: int) -> Callable[[], object]:
    """Opens a path as a standard stream."""
    return lambda: os.dup2(os.open(path, flags, 0o600), descriptor)


def _pipe_without_an_end(descriptor: int) -> Callable[[], None]:
    def set_up() -> None:
        reading, writing = os.pipe()
        os.dup2(reading if descriptor == 0 else writing, descriptor)
        os.close(reading)
        os.close(writing)

    return set_up


def _full_pipe_that_never_waits() -> None:
    """As when another program has switched the terminal or pipe that it shares with us, and is slow to read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.dup2(writing, 1)
    os.close(writing)
    if os.fork() == 0:
        os.closerange(1, 3)
        while os.read(reading, 4096):
            time.sleep(0.1)
        os._exit(0)
    os.close(reading)


def _socket() -> None:
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), 1)
    os.set_inheritable(theirs.fileno(), True)
    ours.detach()
    theirs.detach()


def _many_descriptors() -> None:
    for _ in range(200):
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _ignored(*numbers: int) -> Environment:
    return Environment(set_up=lambda: [signal.signal(number, signal.SIG_IGN) for number in numbers])


def _terminal(columns: int, rows: int, **values: str | None) -> Environment:
    return Environment({"COLUMNS": None, "LINES": None, **values}, terminal=(columns, rows))


STREAMS: dict[str, Environment] = {
    **{f"PYTHONIOENCODING={name}": variables(["run", "describe"], PYTHONIOENCODING=name) for name in ENCODINGS},
    "no standard input": Environment(closed=[0]),
    "no standard output": Environment(closed=[1]),
    "no standard error": Environment(closed=[2]),
    "no streams": Environment(closed=[0, 1, 2]),
    "a full device as output": Environment(set_up=_instead(1, "/dev/full", os.O_WRONLY)),
    "a full device as errors": Environment(set_up=_instead(2, "/dev/full", os.O_WRONLY), closed=[2]),
    "nobody reads the output": Environment(set_up=_pipe_without_an_end(1)),
    "nobody reads the errors": Environment(set_up=_pipe_without_an_end(2), is_loud=True),
    "an output that can only be read": Environment(set_up=_instead(1, "/dev/null", os.O_RDONLY)),
    "an output that never waits": Environment(set_up=lambda: os.set_blocking(1, False)),
    "a full output that never waits": Environment(set_up=_full_pipe_that_never_waits),
    "a socket as output": Environment(set_up=_socket),
    "one file as output and errors": Environment(
        set_up=lambda: (_instead(1, "said.txt", os.O_WRONLY | os.O_CREAT)(), os.dup2(1, 2)), is_loud=True
    ),
    "200 descriptors of the parent": Environment(set_up=_many_descriptors),
    # Terminals
    "a terminal": _terminal(80, 24),
    "a terminal of a column": _terminal(1, 1),
    "a terminal without a size": _terminal(0, 0),
    "a dumb terminal": _terminal(80, 24, TERM="dumb"),
    "a terminal without UTF-8": _terminal(80, 24, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "a terminal with settings of tqdm": _terminal(80, 24, TQDM_NCOLS="x", TQDM_MININTERVAL="x", TQDM_ASCII="1"),
    "COLUMNS=0": variables(COLUMNS="0"),
    "COLUMNS=1": variables(COLUMNS="1"),
    "COLUMNS=nonsense": variables(COLUMNS="x", LINES="-1"),
    "TERM missing": variables(TERM=None),
    "TERM=dumb": variables(TERM="dumb"),
    # Signals
    "SIGHUP ignored": _ignored(signal.SIGHUP),
    "SIGINT ignored": _ignored(signal.SIGINT, signal.SIGQUIT),  # as in the background of a script
    "SIGTERM ignored": _ignored(signal.SIGTERM),
    "SIGCHLD ignored": _ignored(signal.SIGCHLD),
    "SIGPIPE as in a shell": Environment(set_up=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL)),
    "all signals blocked": Environment(set_up=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())),
    "a session of its own": Environment(set_up=os.setsid),
}
