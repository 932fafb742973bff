"""The signals that stop a command after saving, and the exit codes that name them."""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""A closed terminal sends SIGHUP; Slurm is asked to send SIGUSR1 or SIGUSR2 before it ends a job (`--signal`)."""


def handled_signals() -> list[signal.Signals]:
    """The signals to handle: a SIGHUP that is ignored from the start, as under `nohup`, stays ignored."""
    return [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]


def exit_code_of(number: int) -> int:
    """129 for SIGHUP, 130 for SIGINT, 143 for any other signal."""
    return 128 + (number if number in (signal.SIGHUP, signal.SIGINT) else signal.SIGTERM)
