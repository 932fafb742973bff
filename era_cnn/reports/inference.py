"""Intervals and tests: numbers in, numbers out. Accuracies and differences are fractions, intervals cover 95%.

A statement that numbers do not allow is None, never NaN: a spread of zero, or of one seed, supports no interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
POWER = 0.8
"""The chance of a p below 1 - LEVEL that `seeds_needed` asks for."""

MOST_SEEDS = 1_000
"""The largest number of seeds that is worth naming."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The difference of two accuracies, with what can be said about it.

    Attributes:
        value: In [-1, 1].
        interval: Of the difference.
        p: Two-sided, for no difference.
        error: The standard error of the difference times the square root of the number of seeds (for two samples, of
            seeds of each); None without seeds.
    """

    value: float
    interval: Interval | None
    p: float | None
    error: float | None = None


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's interval of the mean of accuracies over seeds; None for one value, and for equal ones."""
    if len(values) < 2 or not (sd := statistics.stdev(values)):
        return None
    low, high = _t_interval(statistics.fmean(values), sd / math.sqrt(len(values)), len(values) - 1)
    return max(low, 0.0), min(high, 1.0)


def prediction_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Where the accuracy of one further seed lies with this probability; None for one value, and for equal ones."""
    if len(values) < 2 or not (sd := statistics.stdev(values)):
        return None
    error = sd * math.sqrt(1 + 1 / len(values))
    low, high = _t_interval(statistics.fmean(values), error, len(values) - 1, level)
    return max(low, 0.0), min(high, 1.0)


def wilson_interval(correct: int, images: int) -> Interval:
    """The interval of a proportion over images, for one network (Wilson, 1927)."""
    from scipy.special import ndtri

    z = float(ndtri((1 + LEVEL) / 2))
    share, weight = correct / images, z**2 / images
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / images + weight / images / 4) / (1 + weight)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def paired_t(values: Sequence[float], others: Sequence[float]) -> Difference:
    """The mean of `values - others`, which belong together one by one, as results of the same seeds; at least two."""
    # Differences of fractions such as 0.98 - 0.97 and 0.97 - 0.96 are equal but for rounding.
    differences = [round(value - other, 12) for value, other in zip(values, others, strict=True)]
    return _t_test(statistics.fmean(differences), statistics.stdev(differences), len(differences), len(differences) - 1)


def welch_t(values: Sequence[float], others: Sequence[float]) -> Difference:
    """The difference of the means of two samples with spreads of their own, of at least two each (Welch, 1947)."""
    shares = [statistics.variance(each) / len(each) for each in (values, others)]
    difference = round(statistics.fmean(values) - statistics.fmean(others), 12)
    below = sum(share**2 / (len(each) - 1) for share, each in zip(shares, (values, others), strict=True))
    degrees = sum(shares) ** 2 / below if below else 1.0
    n = 2 / (1 / len(values) + 1 / len(others))
    return _t_test(difference, math.sqrt(sum(shares) * n), n, degrees)


def mcnemar(only_one: int, only_other: int, images: int) -> Difference:
    """Whether two networks differ on the same images: McNemar's test, mid-p (Fagerland, Lydersen & Laake, 2013).

    It looks only at the images that one network gets right and the other wrong. The interval is that of Agresti and
    Min (2005), which also holds if there are few of them.

    Args:
        only_one: The number of images that only the first network gets right.
        only_other: The number of those that only the other one gets right.
        images: The number of all images.
    """
    from scipy.special import bdtr, ndtri

    fewer, total = min(only_one, only_other), only_one + only_other
    p = float(bdtr(fewer, total, 0.5) + (bdtr(fewer - 1, total, 0.5) if fewer else 0.0))
    n, difference = images + 2, only_one - only_other
    half = float(ndtri((1 + LEVEL) / 2)) * math.sqrt(total + 1 - difference**2 / n) / n
    return Difference(
        difference / images, (max(difference / n - half, -1.0), min(difference / n + half, 1.0)), min(p, 1.0)
    )


def correlation(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Pearson's correlation; None if either side is constant."""
    try:
        return statistics.correlation(values, others)
    except statistics.StatisticsError:
        return None


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values, adjusted for their number (Holm, 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def seeds_needed(difference: float, error: float, *, are_paired: bool) -> int | None:
    """About how many seeds (of each setting) show a difference with power 0.8; None if more than `MOST_SEEDS`.

    From the noncentral t distribution (Cohen, 1988), for two samples of the same size.

    Args:
        difference: The true difference to detect.
        error: As `Difference.error`.
        are_paired: Whether seeds are paired.
    """
    import numpy as np
    from scipy.special import nctdtr, stdtrit

    seeds = np.arange(2, MOST_SEEDS + 1)
    degrees = (seeds - 1) * (1 if are_paired else 2)
    critical = stdtrit(degrees, (1 + LEVEL) / 2)
    power: NDArray[Any] = 1 - nctdtr(degrees, abs(difference) * np.sqrt(seeds) / error, critical)
    enough = seeds[power >= POWER]
    return int(enough[0]) if len(enough) else None


def _t_test(difference: float, error: float, n: float, degrees: float) -> Difference:
    """The t test of a difference whose standard error is `error / sqrt(n)`."""
    from scipy.special import stdtr

    if not error:  # nothing varies: equal results are equal, others can't be told from chance
        return Difference(difference, None, None if difference else 1.0, 0.0)
    standard_error = error / math.sqrt(n)
    low, high = _t_interval(difference, standard_error, degrees)
    p = 2 * float(stdtr(degrees, -abs(difference) / standard_error))
    return Difference(difference, (max(low, -1.0), min(high, 1.0)), p, error)


def _t_interval(centre: float, standard_error: float, degrees: float, level: float = LEVEL) -> Interval:
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, (1 + level) / 2)) * standard_error
    return centre - half, centre + half
