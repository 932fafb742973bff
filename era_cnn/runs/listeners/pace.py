"""Warns about a run that is much slower than it could be, and says what helps."""

from __future__ import annotations

import os
from collections.abc import Callable

from era_cnn.errors import amount
from era_cnn.machine import load_of_others
from era_cnn.training.listeners import Listener, Training
from era_cnn.training.loop import Step

WINDOW_SECONDS = 10.0
"""The length of the windows over which steps are timed, since single steps vary."""

SLOWER = 3.0
"""How many times slower than the fastest window a window must be to count as slow."""


SPARE_CORES = 0.9
"""How many cores more than are free other processes must use to count: a short burst of theirs does not."""


class Pace(Listener):
    """Warns once if steps become much slower than before, or if other processes leave too few cores for the threads.

    Args:
        warn: Called with the message.
        busy_cores: Returns how many cores other processes use, given the number of threads of the run.
        num_cores: The number of cores of the machine.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        *,
        busy_cores: Callable[[int], float] = load_of_others,
        num_cores: int | None = None,
    ) -> None:
        self._warn, self._busy_cores = warn, busy_cores
        self._num_cores = num_cores or os.cpu_count() or 1  # the load average covers the whole machine
        self._fastest: float | None = None
        self._has_warned = False
        self._previous: Step | None = None
        self._seconds, self._steps = 0.0, 0

    def on_start(self, training: Training) -> None:
        """Stores the run's threads and device."""
        self._threads, self._device = training.config.threads, training.config.device

    def on_step(self, step: Step) -> None:
        """Judges each window that is complete. Evaluations between epochs do not count."""
        previous, self._previous = self._previous, step
        if previous is None or previous.epoch != step.epoch:
            return
        self._seconds += step.seconds - previous.seconds
        self._steps += 1
        if self._seconds >= WINDOW_SECONDS and not self._has_warned:
            self._judge(self._seconds / self._steps)
            self._seconds, self._steps = 0.0, 0

    def _judge(self, seconds: float) -> None:
        """Compares the mean step time of a window with the fastest one, and the load with the cores."""
        busy = self._busy_cores(self._threads) if self._device == "cpu" else 0.0
        is_crowded = busy > self._num_cores - self._threads + SPARE_CORES
        is_slower = self._fastest is not None and seconds > SLOWER * self._fastest
        self._fastest = min(seconds, self._fastest or seconds)
        if is_slower:
            self._say(f"Steps take {1000 * seconds:.0f} ms; earlier they took {1000 * self._fastest:.0f} ms.")
        elif is_crowded:
            cores, threads = amount(self._num_cores, "core"), amount(self._threads, "thread")
            self._say(f"Other processes use about {busy:.1f} of {cores}, and this run has {threads}.")

    def _say(self, what: str) -> None:
        self._has_warned = True
        self._warn(f"{what} {self._remedy()}")

    def _remedy(self) -> str:
        if self._device != "cpu":
            return "See what else uses the device."
        if self._threads == 1:
            return "Wait for the other processes."
        return (
            "Wait for the other processes, or start runs with threads=1, which they slow down least "
            "(another number of threads changes the results)."
        )
