"""Shows a sweep: a line for each running job and the totals in a terminal, a line for each change elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence

from tqdm import tqdm

from era_cnn.errors import amount, harmless
from era_cnn.folders.ledger import Job
from era_cnn.folders.outcome import DONE, Outcome, Progress
from era_cnn.output import can_show, draw, say

REFRESH_SECONDS = 0.5

WIDE = 60
"""The fewest columns of a terminal in which bars are shown."""


class Board:
    """Shows the progress of a sweep. Without a terminal, each change is printed as a line.

    Args:
        expected: The number of jobs that are not done, and the number of their epochs.
        done: The number of jobs that are done already.
        common: Overrides that all jobs share, which are not shown.
        is_terminal: Whether lines can be redrawn; detected if None.
    """

    def __init__(
        self, expected: tuple[int, int], done: int, common: Container[str] = (), *, is_terminal: bool | None = None
    ) -> None:
        self.is_terminal = sys.stdout.isatty() if is_terminal is None else is_terminal
        self._todo = expected[1]
        self._total, self._counts = expected[0] + done, {"done": done, "failed": 0}
        self._common = common
        self._ended_epochs = 0
        self._started = time.monotonic()
        self._shown_at = 0.0
        self._height = 0

    def on_start(self, job: Job) -> None:
        """Prints that a job has started."""
        if not self.is_terminal:
            say(f"{self._name(job)} started")

    def on_wait(self, job: Job, seconds: float) -> None:
        """Prints that another process works on a job, and how long that may write nothing."""
        limit = f"until it has written nothing for {tqdm.format_interval(seconds)}"
        self._say(f"{self._name(job)} is in use by another process; waiting for it ({limit})")

    def on_end(self, job: Job, outcome: Outcome, *, again: bool) -> None:
        """Prints how a job ended, and whether it is tried again."""
        if not again:
            self._counts["done" if outcome.state in DONE else "failed"] += 1
            self._ended_epochs += job.epochs
        self._say(f"{self._name(job)} {outcome.state}{_outcome(outcome)}{'; trying again' if again else ''}")
        if not self.is_terminal:
            say(self._totals(0))

    def refresh(self, read: Callable[[], Mapping[Job, Progress]]) -> None:
        """Redraws the lines at intervals; `read` returns the progress of the running jobs."""
        now = time.monotonic()
        if not self.is_terminal or now - self._shown_at < REFRESH_SECONDS:
            return
        self._shown_at = now
        progress = read()
        size = shutil.get_terminal_size()
        lines = [_line(self._name(job), job.epochs, each, size.columns) for job, each in progress.items()]
        most = max(1, size.lines - 3)
        if len(lines) > most:
            lines = [*lines[: most - 1], f"and {len(lines) - most + 1} more"]
        under_way = sum(each.epochs for each in progress.values())
        self._draw([*lines, self._totals(under_way)[: size.columns]])

    def close(self) -> None:
        """Removes the lines from the terminal."""
        if self.is_terminal:
            self._draw([])

    def _name(self, job: Job) -> str:
        own = [override for override in job.overrides if override not in self._common]
        return f"job {job.number} ({harmless(' '.join(own))})" if own else f"job {job.number}"

    def _say(self, text: str) -> None:
        self.close()
        say(text)

    def _draw(self, lines: Sequence[str]) -> None:
        up = f"\033[{self._height}F" if self._height else ""
        self._height = len(lines)
        if up or lines:
            draw(f"{up}\033[J" + "".join(f"{line}\n" for line in lines))

    def _totals(self, epochs_under_way: int) -> str:
        failed = f", {self._counts['failed']} failed or interrupted" if self._counts["failed"] else ""
        elapsed = time.monotonic() - self._started
        done = self._ended_epochs + epochs_under_way
        left = self._todo - done
        estimate = f", about {tqdm.format_interval(elapsed * left / done)} left" if done and left > 0 else ""
        jobs = amount(self._total, "job")
        return f"{self._counts['done']} of {jobs} done{failed}, {tqdm.format_interval(elapsed)}{estimate}"


def _outcome(outcome: Outcome) -> str:
    if outcome.result is None:
        return f": {outcome.message}" if outcome.message else ""
    best, final = (100 * outcome.result[f"{which}_test_accuracy"] for which in ("best", "final"))
    return f": best test {best:.2f}%, final {final:.2f}%, {outcome.result['seconds']:.1f} s"


def _line(name: str, epochs: int, progress: Progress, columns: int) -> str:
    accuracy = "" if progress.accuracy is None else f" {100 * progress.accuracy:.2f}%"
    if columns < WIDE:
        return f"{name[: columns - 16]} {progress.epochs}/{epochs}{accuracy}"
    bar_format = "{desc} |{bar}| epoch {n_fmt}/{total_fmt}" + accuracy
    prefix = name[: columns // 2]
    return tqdm.format_meter(
        progress.epochs, epochs, 0, ncols=columns - 1, prefix=prefix, ascii=not can_show("█"), bar_format=bar_format
    )
