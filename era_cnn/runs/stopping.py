"""SIGINT and SIGTERM as a wish that a run fulfils where it can be continued: after the present step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from era_cnn.data.batches import Batch, EvaluationBatches

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 - what happened, not an error
    """A run stops because it was asked to; `exit_code` is that of the signal, 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StopRequest:
    """Whether a signal has come. Handlers only note it: work in a handler could meet a half-written file."""

    def __init__(self) -> None:
        self.number: int | None = None

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; a second SIGINT stops at once."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


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
    """Notes signals for as long as the context lasts. Only the main thread can; elsewhere they are left as they are."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
