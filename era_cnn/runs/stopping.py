"""Turns signals into requests to stop, which a run follows after the current step, where it can be continued."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from era_cnn.signals import exit_code_of, handled_signals

if TYPE_CHECKING:
    from era_cnn.data.batches import Batch, EvaluationBatches


class Interrupted(BaseException):
    """A run stops on request; `exit_code` is that of the signal.

    It is not an `Exception`, so that no library catches it as a failure of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = exit_code_of(number)


class StopRequest:
    """Whether a signal was received. Handlers only record it, since a file may be half written at that moment."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    def check(self) -> None:
        """Raises `Interrupted` if a signal was received."""
        if self.number is not None:
            raise Interrupted(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the context, a signal raises `Interrupted` immediately: for slow work that leaves nothing to save."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; a second SIGINT stops immediately."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._at_once:
            self.check()


class Interruptible:
    """Evaluation batches that stop early, with `Interrupted`, if a signal is received."""

    def __init__(self, batches: EvaluationBatches, stop: StopRequest) -> None:
        self.batches, self.stop = batches, stop

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.stop.check()
            yield batch


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Records signals within the context; a nested context shares the request of the outer one, so that none is lost.

    Only the main thread can handle signals; in other threads, the handlers are left as they are.
    """
    around = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stop = around if isinstance(around, StopRequest) else StopRequest()
    if stop is around or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in handled_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
