"""What a person sees of a run: a bar and the test line in a terminal, a line an epoch elsewhere.

The wording is that of the reference runs' logs; epochs are counted from 1, as everywhere here.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from era_cnn.config.schema import RunConfig
from era_cnn.errors import StorageError
from era_cnn.folders.result import Result
from era_cnn.models.build import count_params
from era_cnn.output import say
from era_cnn.runs.parts import Parts
from era_cnn.training.history import EpochMetrics, Scores
from era_cnn.training.listeners import Listener
from era_cnn.training.loop import Step

log = logging.getLogger("era_cnn")  # into run.log: see log_to

REFRESH_SECONDS = 0.1
"""Between two readings of the loss: each one waits for the device."""


class Console(Listener):
    """Shows a run as it goes on, and keeps what was said in run.log. Reads the tallies, changes nothing.

    Args:
        is_terminal: Whether there is a terminal for a bar; found out if None.
        quiet: Whether all that is said goes into run.log alone.
    """

    is_essential = True

    def __init__(self, *, is_terminal: bool | None = None, quiet: bool = False) -> None:
        self.is_terminal = (sys.stdout.isatty() and sys.stderr.isatty()) if is_terminal is None else is_terminal
        self._quiet = quiet
        self._bar: tqdm[NoReturn] | None = None
        self._shown_at = 0.0

    def say(self, text: str) -> None:
        """To standard output.

        Raises:
            OutputError: If nothing can be written there any more.
            StorageError: If the log can't be written.
        """
        if not self._quiet:
            say(text)
        log.info("%s", text)

    def complain(self, text: str) -> None:
        """To standard error, below a bar that is under way. Nothing is raised: this is where errors are said."""
        with suppress(StorageError):
            self.warn(text)

    def warn(self, text: str) -> None:
        """To standard error, of what a run goes on in spite of.

        Raises:
            StorageError: If the log can't be written.
        """
        self.close()
        if not self._quiet:
            with suppress(OSError):
                print(text, file=sys.stderr, flush=True)
        log.error("%s", text)

    def on_step(self, step: Step) -> None:
        """Moves the bar; without one, says after the last step of an epoch what it would show."""
        is_last = step.step + 1 == step.num_steps
        if self.is_terminal and not self._quiet:
            self._move_bar(step, is_last)
            if is_last:
                log.info("%s", describe_step(step))
        elif is_last:
            self.say(describe_step(step))

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Says how the evaluations after an epoch went."""
        if metrics.val:
            self.say(describe_scores("Validation set", metrics.val))
        if metrics.test:
            self.say(describe_scores("Test set", metrics.test))

    def close(self) -> None:
        """Ends a bar that an interruption left open."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _move_bar(self, step: Step, is_last: bool) -> None:
        bar = self._bar = self._bar or tqdm(
            total=step.num_steps, initial=step.step, dynamic_ncols=True, mininterval=REFRESH_SECONDS
        )
        now = time.monotonic()
        if is_last or now - self._shown_at >= REFRESH_SECONDS:
            self._shown_at = now
            bar.set_description_str(describe_step(step), refresh=is_last)
        bar.update()
        if is_last:
            self.close()


class RunLog(logging.FileHandler):
    """run.log. A line that can't be written stops the run, as any other file of it does."""

    def _open(self) -> TextIOWrapper:
        try:
            return super()._open()
        except OSError as error:
            raise StorageError.of(self.baseFilename, error) from error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raises what logging would else print as a traceback, and forget."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise StorageError.of(self.baseFilename, error) from error
        super().handleError(record)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Adds to run.log whatever is logged within; creates it with the first line."""
    handler = RunLog(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        with suppress(OSError):  # each line was flushed as it came, and complained of if it could not be
            handler.close()


def describe_step(step: Step) -> str:
    """The words beside the bar: the loss of the last batch, the accuracy over the epoch so far in percent."""
    return (
        f"EPOCH:{step.epoch} Loss={step.tally.last_loss.item():.4f} Batch_id={step.step} "
        f"Accuracy={100 * step.tally.accuracy:.2f} LR={step.lr:.6g}"
    )


def describe_scores(name: str, scores: Scores) -> str:
    """The line of an evaluation, with the share in percent."""
    return (
        f"{name}: Average loss: {scores.loss:.4f}, Accuracy: {scores.num_correct}/{scores.num_images} "
        f"({100 * scores.accuracy:.2f}%)"
    )


PROMISE = (
    "Promise: bitwise equal results for the same packages, kind of processor or GPU, and threads; "
    "else equal statistics."
)


def describe_start(config: RunConfig, parts: Parts) -> str:
    """The first line: what is trained, on what."""
    sizes = {
        "training": len(parts.train.split),
        "validation": len(parts.val.split) if parts.val else 0,
        "test": len(parts.test.split),
    }
    images = " + ".join(f"{size:,} {name}" for name, size in sizes.items() if size)
    count = config.trainer.epochs_to_run
    precision = "" if config.precision == "fp32" else f", {config.precision}"
    return (
        f"{config.name}: {count_params(parts.state.network):,} parameters, {count} epoch{'s' if count > 1 else ''} on "
        f"{config.data.name} ({images} images), seed {config.seed}, {config.device}, {config.threads} threads"
        f"{precision}"
    )


def describe_result(result: Result, config: RunConfig) -> str:
    """The last lines but one: accuracies in percent, the target, the speed, what may be expected of a repetition."""
    chosen = "one look at the test set" if result.best_val_accuracy is not None else "chosen on the test set"
    lines = [
        f"Best test accuracy:   {100 * result.best_test_accuracy:.2f}% in epoch {result.best_test_epoch} ({chosen})",
        f"Final test accuracy:  {100 * result.final_test_accuracy:.2f}%",
        f"Final train accuracy: {100 * result.final_train_accuracy:.2f}%",
    ]
    if result.best_val_accuracy is not None:
        lines.append(
            f"Best validation accuracy: {100 * result.best_val_accuracy:.2f}% in epoch {result.best_val_epoch}"
        )
    lines += [
        f"Target: {describe_target(result, config)}",
        f"Speed: {result.images_per_second:,.0f} images/s, {result.seconds / result.epochs:.1f} s an epoch in training",
        PROMISE,
    ]
    return "\n".join(lines)


def describe_target(result: Result, config: RunConfig) -> str:
    """What was to be reached, and whether it was; both accuracies count, and only the best one is the reference's."""
    target = config.target
    wants = [
        f"at most {target.max_params:,} parameters" if target.max_params else "",
        f"at most {target.max_epochs} epochs" if target.max_epochs else "",
        f"{100 * target.test_accuracy:.2f}% test accuracy" if target.test_accuracy is not None else "",
    ]
    stated = ", ".join(want for want in wants if want)
    if not stated:
        return "none set"
    if result.target["met"] is None:
        return f"{stated}: not judged, since trainer.limit_test_images is set"
    if not result.target["met"]:
        return f"{stated}: not met"
    if target.test_accuracy is not None and result.final_test_accuracy < target.test_accuracy:
        return f"{stated}: met in the best epoch, not in the last one"
    return f"{stated}: met"
