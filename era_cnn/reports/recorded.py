"""What the runs of a record say together. Accuracies are fractions in [0, 1]; each seed counts once."""

from __future__ import annotations

import csv
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from era_cnn.folders.record import Record, RecordedRun
from era_cnn.reports.content import reference_curve
from era_cnn.reports.inference import LEVEL, Interval, prediction_interval, t_interval

CERTAIN = 0.99
"""The probability of the band of first-epoch accuracies: a repetition that computes the same rarely misses it."""

_SAME_RECIPE = re.compile(
    r"[+~]*(experiment|portable|threads|device|trainer\.(cuda_graphs|compile|profile|checkpoint_every_seconds))="
)
"""The overrides that leave a recipe as its experiment has it."""

FEWEST_SEEDS = 3
"""What an interval needs: that of two reaches 15 standard deviations to either side, so that anything lies in it."""


@dataclass(frozen=True)
class Spread:
    """An accuracy over seeds; `sd` is the sample standard deviation, None for a single seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The sample standard deviation; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """Mean ± standard deviation, in percent."""
        sd = "" if self.sd is None else f" ± {100 * self.sd:.2f}"
        return f"{100 * self.mean:.2f}{sd}%"


def counted(record: Record) -> list[RecordedRun]:
    """One run for each seed, the first that was recorded: later ones are repetitions on other machines."""
    return list({run.seed: run for run in reversed(record.runs)}.values())[::-1]


def spread(record: Record, name: str) -> Spread | None:
    """The spread of an accuracy; None if a run does not have it."""
    values = [getattr(run, name) for run in counted(record)]
    return None if None in values else Spread(tuple(values))


def gained_by_choosing(record: Record) -> list[float]:
    """The best minus the final test accuracy of each seed; empty if the test set was watched, or looked at once."""
    runs = [] if record.watches_test else counted(record)
    return [run.best_test_accuracy - run.final_test_accuracy for run in runs if run.best_test_accuracy is not None]


def one_more_run(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Where the accuracy of another seed lies with this probability; None if there are too few, or they are equal."""
    return prediction_interval(values, level) if len(values) >= FEWEST_SEEDS else None


def of_mean(values: Sequence[float]) -> Interval | None:
    """Where the mean over seeds lies with 95%; None if there are too few, or they are equal."""
    return t_interval(values) if len(values) >= FEWEST_SEEDS else None


def first_epoch_band(record: Record) -> Interval | None:
    """Where the training accuracy of another seed lies after the first epoch, with 99%; None if seeds can't tell."""
    return one_more_run([run.curves["train_accuracy"][0] or 0.0 for run in counted(record)], CERTAIN)


def is_met(record: Record) -> bool | None:
    """Whether the mean final test accuracy reaches the target; None without a target accuracy."""
    wanted, final = record.parsed.target.test_accuracy, spread(record, "final_test_accuracy")
    # A mean that equals the target as a fraction may lie an ulp below it as a binary number
    return None if wanted is None or final is None else final.mean >= wanted or math.isclose(final.mean, wanted)


def reference_of(record: Record) -> list[dict[str, float]]:
    """The curve of the reference run that a record repeats; empty if there is none, or the recipe was changed."""
    is_unchanged = all(map(_SAME_RECIPE.match, record.overrides)) and not any(run.own_files for run in record.runs)
    return reference_curve(record.experiment) if is_unchanged and record.parsed.data.name == "mnist" else []


def place_of(reference: float, found: Spread) -> str:
    """Whether a recipe gives a single figure: whether it lies in the 95% prediction interval of one more run."""
    if (interval := one_more_run(found.values)) is None:
        return f"can't be judged: that takes at least {FEWEST_SEEDS} seeds that differ"
    where = "within" if interval[0] <= reference <= interval[1] else "outside"
    return f"lies {where} what the recipe gives: {percents(interval)} (95% interval of one more run)"


def percents(interval: Interval) -> str:
    """An interval of fractions, in percent."""
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}%"


def points(differences: Sequence[float]) -> str:
    """The mean ± sample standard deviation of differences of fractions, in percentage points."""
    sd = f" ± {100 * statistics.stdev(differences):.3f}" if len(differences) > 1 else ""
    return f"{100 * statistics.fmean(differences):.3f}{sd}"


def mean_curve(runs: Sequence[RecordedRun], key: str) -> list[tuple[float, float]]:
    """The mean of a curve over runs, as (epoch, value), of the epochs in which each of them has a value."""
    columns = [run.curves[key] for run in runs]
    whole = [[value for value in values if value is not None] for values in zip(*columns, strict=False)]
    return [(epoch, statistics.fmean(each)) for epoch, each in enumerate(whole, start=1) if len(each) == len(runs)]


@dataclass(frozen=True)
class PublicRun:
    """A network on MNIST that others published, with the accuracy after the last epoch; `n` counts its seeds."""

    params: int
    best_test_accuracy: float
    final_test_accuracy: float
    n: int
    what: str


def public_runs() -> list[PublicRun]:
    """The best networks by parameters among 287 logged runs in 49 public repositories, and papers."""
    text = resources.files("era_cnn.reports").joinpath("public_runs.csv").read_text(encoding="utf-8")
    return [
        PublicRun(int(row[0]), float(row[1]), float(row[2]), int(row[3]), row[4])
        for row in list(csv.reader(text.splitlines()))[1:]
    ]
