"""Signals as a wish that a run fulfils where it can be continued: after the present step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from era_cnn.data.batches import Batch, EvaluationBatches

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SIGUSR1 and SIGUSR2 are what Slurm is asked to send before it preempts a job or its time is up (`--signal`)."""


class Interrupted(BaseException):
    """A run stops because it was asked to; `exit_code` is 130 after SIGINT and 143 after all others.

    Not an `Exception`, so that no library takes it for a failure of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = exit_code_of(number)


def exit_code_of(number: int) -> int:
    """130 for SIGINT, 143 for all others that ask to stop."""
    return 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


class StopRequest:
    """Whether a signal has come. Handlers only note it: work in a handler could meet a half-written file."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises `Interrupted` where it comes: for what may take long, and leaves nothing to save."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; a second SIGINT stops at once."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._at_once:
            self.check()


class Interruptible:
    """Evaluation batches that end early if a signal comes."""

    def __init__(self, batches: EvaluationBatches, stop: StopRequest) -> None:
        self.batches, self.stop = batches, stop

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.stop.check()
            yield batch


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes signals for as long as the context lasts, or leaves that to a context around it, so that none gets lost.

    Only the main thread can; elsewhere they are left as they are.
    """
    around = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stop = around if isinstance(around, StopRequest) else StopRequest()
    if stop is around or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
