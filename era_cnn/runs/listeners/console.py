"""Shows a run: lines for each epoch and, in a terminal, a progress bar below them.

The wording is that of the reference runs' logs; epochs are counted from 1, as everywhere in this package.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from era_cnn.config.schema import RunConfig
from era_cnn.errors import StorageError, amount, block, harmless
from era_cnn.folders.plain import open_to_append
from era_cnn.folders.result import Result
from era_cnn.models.build import count_params
from era_cnn.output import complain, say
from era_cnn.runs.listeners.bar import Bar
from era_cnn.runs.parts import Parts
from era_cnn.training.averaging import decay_at
from era_cnn.training.history import EpochMetrics, Scores
from era_cnn.training.listeners import Listener, Training
from era_cnn.training.loop import Step

log = logging.getLogger("era_cnn")  # goes into run.log: see log_to


class Console(Listener):
    """Shows the progress of a run, and logs its messages to run.log. Reads the tallies, changes nothing.

    Args:
        is_terminal: Whether there is a terminal for a bar; detected if None.
        quiet: Whether to write messages only to run.log.
    """

    is_essential = True

    def __init__(self, *, is_terminal: bool | None = None, quiet: bool = False) -> None:
        self.is_terminal = (sys.stdout.isatty() and sys.stderr.isatty()) if is_terminal is None else is_terminal
        self._quiet = quiet
        self._bar: Bar | None = None

    def say(self, *lines: str) -> None:
        """Prints a message to standard output; each argument is one line, whatever it contains.

        Raises:
            OutputError: If standard output can no longer be written to.
            StorageError: If the log can't be written.
        """
        self.close()
        if not self._quiet:
            say(*lines)
        log.info("%s", _record(lines))

    def complain(self, *lines: str) -> None:
        """Prints an error to standard error, instead of the bar. Raises nothing, since it reports errors itself."""
        with suppress(StorageError):
            self.warn(*lines)

    def warn(self, *lines: str) -> None:
        """Prints a warning to standard error; the run continues.

        Raises:
            StorageError: If the log can't be written.
        """
        self.close()
        if not self._quiet:
            complain(*lines)
        log.error("%s", _record(lines))

    def on_start(self, training: Training) -> None:
        """Prepares the bar."""
        if self.is_terminal and not self._quiet:
            self._bar = Bar(training.config.trainer.epochs_to_run)

    def on_step(self, step: Step) -> None:
        """Prints a line at the end of an epoch, and moves the bar."""
        is_last = step.step + 1 == step.num_steps
        if is_last:
            self.say(describe_step(step))
        if self._bar is not None:
            self._bar.move(step, at_once=is_last)  # the evaluation takes time

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Prints the scores of the evaluations after an epoch, and why the training ended if it ended early."""
        for what, scores in (
            ("Validation set", metrics.val),
            ("Test set", metrics.test),
            ("Averaged weights, validation set", metrics.ema_val),
            ("Averaged weights, test set", metrics.ema_test),
        ):
            if scores:
                self.say(describe_scores(what, scores))
        if metrics.end_reason:
            self.say(f"Ended after epoch {metrics.epoch}: {metrics.end_reason}")

    def close(self) -> None:
        """Removes the bar; the next step brings it back."""
        if self._bar is not None:
            self._bar.clear()


def _record(lines: Sequence[str]) -> str:
    return "\n".join(map(harmless, lines))


class OneBlock(logging.Formatter):
    """Formats a record so that no line of it can pass for another record, whatever a library logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record; its further lines, such as those of a traceback, are indented."""
        return block(super().format(record))


class RunLog(logging.FileHandler):
    """The handler of run.log. A line that can't be written stops the run, as with any other of its files."""

    def _open(self) -> TextIOWrapper:
        try:
            return cast(TextIOWrapper, open_to_append(Path(self.baseFilename), encoding="utf-8"))
        except OSError as error:
            raise StorageError.of(self.baseFilename, error) from error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raises the error, which logging would only print as a traceback."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise StorageError.of(self.baseFilename, error) from error
        super().handleError(record)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Appends to run.log whatever is logged within the context; creates the file with the first line."""
    handler = RunLog(path, encoding="utf-8", delay=True)
    handler.setFormatter(OneBlock("%(asctime)s %(levelname)s %(message)s"))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        with suppress(OSError):  # each line was flushed already, and a failure reported
            handler.close()


def describe_step(step: Step) -> str:
    """The line of an epoch: the loss of the last batch, and the accuracy over the epoch so far in percent."""
    return (
        f"EPOCH:{step.epoch} Loss={step.tally.last_loss.item():.4f} Batch_id={step.step} "
        f"Accuracy={100 * step.tally.accuracy:.2f} LR={step.lr:.6g}"
    )


def describe_scores(name: str, scores: Scores) -> str:
    """The line of an evaluation, with the accuracy also in percent."""
    return (
        f"{name}: Average loss: {scores.loss:.4f}, Accuracy: {scores.num_correct}/{scores.num_images} "
        f"({100 * scores.accuracy:.2f}%)"
    )


def promise(*, portable: bool) -> str:
    """What is promised of the results of a run."""
    what = "packages" if portable else "packages, kind of processor or GPU, and threads"
    where = " on x86-64 processors with AVX2, as far as tried (experiments/portability)" if portable else ""
    return f"Promise: bitwise equal results for the same {what}{where}; otherwise equal statistics."


def describe_start(config: RunConfig, parts: Parts) -> str:
    """The first line: the network, the data and the device."""
    sizes = {
        "training": len(parts.train.split),
        "validation": len(parts.val.split) if parts.val else 0,
        "test": len(parts.test.split),
    }
    repeats = config.trainer.repeat_train_images
    each = {"training": f"{sizes['training'] // repeats:,} × {repeats} = "} if repeats > 1 else {}
    images = " + ".join(f"{each.get(name, '')}{size:,} {name}" for name, size in sizes.items() if size)
    count = config.trainer.epochs_to_run
    precision = "" if config.precision == "fp32" else f", {config.precision}"
    return (
        f"{config.name}: {count_params(parts.state.network):,} parameters, {amount(count, 'epoch')} on "
        f"{config.data.name} ({images} images), seed {config.seed}, {config.device}, {amount(config.threads, 'thread')}"
        f"{precision}"
    )


def announce_average(console: Console, decay: float, num_steps: int) -> None:
    """Says over how many of the steps averaged weights look back at the end, and warns if that is not up to `decay`."""
    reached = decay_at(num_steps - 1, decay)
    looks_back = f"look back over about {1 / (1 - reached):,.0f} of {num_steps:,} steps"
    if reached == decay:
        console.say(f"Averaged weights {looks_back}")
    else:
        console.warn(
            f"trainer.ema_decay must be reached by a decay that grows with the steps, got {decay:g}, and at most "
            f"{reached:.3g}: averaged weights {looks_back}. Lower it, or train longer."
        )


def describe_result(result: Result, config: RunConfig) -> str:
    """The lines at the end: accuracies in percent, the target, the speed, and what can be expected of a replay."""
    watches_test = (result.watched or "").startswith("test_")
    is_tested_once = result.best_val_accuracy is not None and not watches_test
    chosen = "test set evaluated once" if is_tested_once else "chosen on the test set"
    lines = [
        f"Best test accuracy:   {100 * result.best_test_accuracy:.2f}% in epoch {result.best_test_epoch} ({chosen})",
        f"Final test accuracy:  {100 * result.final_test_accuracy:.2f}%",
        f"Final train accuracy: {100 * result.final_train_accuracy:.2f}%",
    ]
    if result.best_val_accuracy is not None:
        lines.append(
            f"Best validation accuracy: {100 * result.best_val_accuracy:.2f}% in epoch {result.best_val_epoch}"
        )
    if result.ema_test_accuracy is not None:
        lines.append(f"Final test accuracy of the averaged weights: {100 * result.ema_test_accuracy:.2f}%")
    if watches_test:
        lines.append(f"The training watched {result.watched}, so its test accuracies are too optimistic")
    if result.end_reason is not None:
        lines.append(
            f"Ended after {result.epochs} of {amount(config.trainer.epochs_to_run, 'epoch')}: {result.end_reason}"
        )
    lines += [
        f"Target: {describe_target(result, config)}",
        f"Speed: {result.images_per_second:,.0f} images/s, {result.seconds / result.epochs:.1f} s per training epoch",
        promise(portable=config.portable),
    ]
    return "\n".join(lines)


def describe_target(result: Result, config: RunConfig) -> str:
    """The target, and whether it was met; if the best epoch met it but the last one did not, says so."""
    target = config.target
    wants = [
        f"at most {amount(target.max_params, 'parameter')}" if target.max_params else "",
        f"at most {amount(target.max_epochs, 'epoch')}" if target.max_epochs else "",
        f"a receptive field of at least {target.min_receptive_field} px" if target.min_receptive_field else "",
        *target.requires,
        f"{100 * target.test_accuracy:.2f}% test accuracy" if target.test_accuracy is not None else "",
    ]
    stated = ", ".join(want for want in wants if want)
    if not stated:
        return "none set"
    if result.target["met"] is None:
        used = config.limits["limit_test_images"]
        return f"{stated}: not judged by {used:,} of {config.info.test_size:,} test images (trainer.limit_test_images)"
    if not result.target["met"]:
        limits = ", ".join(f"trainer.{key}={limit}" for key, limit in config.limits.items())
        return f"{stated}: not met" + (f" by a trial run ({limits})" if limits else "")
    if target.test_accuracy is not None and result.final_test_accuracy < target.test_accuracy:
        return f"{stated}: met in the best epoch, not in the last one"
    return f"{stated}: met"
