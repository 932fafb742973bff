"""The progress bar of a run: one line in a terminal, redrawn in place."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from tqdm import tqdm

from era_cnn.output import can_show
from era_cnn.training.loop import Step

REFRESH_SECONDS = 0.1
"""The time between two readings of the loss, since each one waits for the device."""

NARROW, WIDE = 70, 100
"""With fewer columns, there is no bar; with more, there is also the accuracy."""


class Bar:
    """Shows on standard error how far a whole run is. Reads the tallies, changes nothing.

    Args:
        epochs: The most epochs of the run.
        clock: Returns the time in seconds.
    """

    def __init__(self, epochs: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._epochs, self._clock = epochs, clock
        self._first: tuple[int, float] | None = None
        self._drawn_at = -math.inf
        self._is_shown = False

    def move(self, step: Step, *, at_once: bool = False) -> None:
        """Redraws the line after a step, unless that was done a moment ago."""
        now, done = self._clock(), (step.epoch - 1) * step.num_steps + step.step + 1
        self._first = self._first or (done, now)
        if now - self._drawn_at < REFRESH_SECONDS and not at_once:
            return
        self._drawn_at = now
        first, since = self._first
        left = self._epochs * step.num_steps - done
        seconds_left = (now - since) * left / (done - first) if done > first else None  # with all evaluations so far
        self._write(
            f"\r{describe_progress(step, self._epochs, seconds_left, shutil.get_terminal_size().columns)}\033[K"
        )
        self._is_shown = True

    def clear(self) -> None:
        """Removes the line."""
        if self._is_shown:
            self._write("\r\033[K")
        self._is_shown = False

    def _write(self, text: str) -> None:
        with suppress(OSError):  # standard error is closed
            print(text, end="", file=sys.stderr, flush=True)


def describe_progress(step: Step, epochs: int, seconds_left: float | None, columns: int) -> str:
    """The line of the bar, shorter than `columns`: the epoch, the mean loss over it, the speed and the time left."""
    epoch = f"epoch {step.epoch} of {epochs}"
    figures = [f"loss {step.tally.loss:.4f}"]
    figures += [f"accuracy {100 * step.tally.accuracy:.2f}%"] if columns >= WIDE else []
    figures += [f"{step.tally.num_images / step.seconds:,.0f} images/s"] if step.seconds else []
    figures += [] if seconds_left is None else [f"{tqdm.format_interval(seconds_left)} left"]
    text = ", ".join(figures)
    if columns < NARROW:
        return f"{epoch}, {text}"[: columns - 1]
    done, total = (step.epoch - 1) * step.num_steps + step.step + 1, epochs * step.num_steps
    bar_format = "{desc} |{bar}| " + text
    return tqdm.format_meter(
        done, total, 0, ncols=columns - 1, prefix=epoch, ascii=not can_show("█"), bar_format=bar_format
    )
