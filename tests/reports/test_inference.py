from __future__ import annotations

import itertools
import random
import statistics

import pytest
from scipy import stats

from era_cnn.reports.inference import (
    Difference,
    correlation,
    holm,
    mcnemar,
    paired_t,
    seeds_needed,
    t_interval,
    welch_t,
    wilson_interval,
)

SAMPLES = [
    ([0.991, 0.993], [0.990, 0.989]),
    ([0.991, 0.993, 0.992], [0.990, 0.989, 0.9905]),
    ([0.9, 0.95, 0.97, 0.91, 0.93], [0.9, 0.94, 0.98, 0.9, 0.91]),
    ([1.0, 1.0, 0.5], [0.0, 0.5, 0.0]),
]


@pytest.mark.parametrize(("values", "others"), SAMPLES)
def test_a_paired_test_is_that_of_scipy(values: list[float], others: list[float]) -> None:
    found, expected = paired_t(values, others), stats.ttest_rel(values, others)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((max(low, -1), min(high, 1)))
    assert found.value == pytest.approx(statistics.fmean(values) - statistics.fmean(others))


@pytest.mark.parametrize(("values", "others"), [*SAMPLES, ([0.9, 0.8], [0.7, 0.75, 0.74, 0.71])])
def test_a_test_of_two_samples_is_that_of_scipy(values: list[float], others: list[float]) -> None:
    found, expected = welch_t(values, others), stats.ttest_ind(values, others, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((max(low, -1), min(high, 1)))


@pytest.mark.parametrize("test", [paired_t, welch_t])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_results_that_do_not_vary_support_no_interval(test, n: int) -> None:
    """Not even those that differ: with a spread of zero, any difference would be infinitely significant."""
    for accuracy in (0.0, 0.98, 1.0):
        assert test([accuracy] * n, [accuracy] * n) == Difference(0.0, None, 1.0, 0.0)
    assert test([0.98] * n, [0.97] * n) == Difference(0.01, None, None, 0.0)


def test_differences_that_are_equal_but_for_rounding_do_not_vary() -> None:
    values, others = [0.98, 0.5, 0.06], [0.97, 0.49, 0.05]
    assert statistics.stdev([value - other for value, other in zip(values, others, strict=True)]) > 0
    assert paired_t(values, others) == Difference(0.01, None, None, 0.0)


@pytest.mark.parametrize("values", [[], [0.9], [0.9, 0.9], [1.0, 1.0, 1.0], [0.0, 0.0]])
def test_one_value_and_equal_ones_have_no_interval(values: list[float]) -> None:
    assert t_interval(values) is None


@pytest.mark.parametrize("values", [[0.9, 0.92], [0.9, 0.92, 0.91], [0.2, 0.9], [1.0, 0.999, 1.0]])
def test_the_interval_of_a_mean_is_that_of_scipy_within_what_is_possible(values: list[float]) -> None:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=statistics.fmean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx((max(low, 0), min(high, 1)))


@pytest.mark.parametrize(("correct", "images"), [(0, 10), (10, 10), (9_940, 10_000), (1, 1), (0, 1), (5, 10)])
def test_the_interval_of_one_network_is_that_of_scipy(correct: int, images: int) -> None:
    expected = stats.binomtest(correct, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("only_one", "only_other", "p"),
    [
        # Mid-p is P(X < k) * 2 + P(X = k) for k of n tosses, summed by hand.
        (0, 0, 1.0),
        (1, 0, 0.5),
        (0, 1, 0.5),
        (1, 1, 1.0),
        (5, 5, 1.0),
        (3, 1, 6 / 16),
        (6, 0, 1 / 64),
        (8, 2, (2 * (1 + 10) + 45) / 1024),
        (1, 11, (2 + 12) / 4096),
    ],
)
def test_few_disagreements_have_the_p_of_tossed_coins(only_one: int, only_other: int, p: float) -> None:
    assert mcnemar(only_one, only_other, 100).p == pytest.approx(p)


def test_p_is_never_above_1_and_below_that_of_the_exact_test() -> None:
    for one, other in itertools.product(range(12), repeat=2):
        p = mcnemar(one, other, 50).p
        assert p is not None
        assert 0 < p <= 1
        assert p <= stats.binomtest(one, one + other).pvalue if one + other else p == 1


def test_the_interval_of_two_networks_holds_the_true_difference_as_often_as_it_says() -> None:
    chance, hits, images = random.Random(1), 0, 300
    for _ in range(1000):
        drawn = chance.choices(["one", "other", "both"], [0.06, 0.02, 0.92], k=images)
        low, high = mcnemar(drawn.count("one"), drawn.count("other"), images).interval or (0.0, 0.0)
        hits += low <= 0.04 <= high
    assert 930 <= hits <= 975


def test_networks_that_never_disagree_differ_by_nothing_within_an_interval() -> None:
    found = mcnemar(0, 0, 10_000)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.interval == pytest.approx((-0.0002, 0.0002), abs=1e-5)
    assert mcnemar(1, 0, 1).interval == pytest.approx((-0.51, 1.0), abs=0.01)


def test_holm_multiplies_the_smallest_by_the_number_of_all() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_correlation_needs_variation() -> None:
    assert correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert correlation([1.0, 1.0], [3.0, 2.0]) is None


@pytest.mark.parametrize(
    ("effect", "paired", "two_samples"),
    [(2.0, 5, 6), (1.0, 10, 17), (0.8, 15, 26), (0.5, 34, 64), (0.2, 199, 394), (0.01, None, None), (0.0, None, None)],
)
def test_the_seeds_needed_are_those_of_published_tables(effect: float, paired: int | None, two_samples: int) -> None:
    """Cohen (1988): 64 of each for d = 0.5 and 26 for 0.8; G*Power: 34 pairs for 0.5, 15 for 0.8, 199 for 0.2."""
    assert seeds_needed(-effect, 1.0, are_paired=True) == paired
    assert seeds_needed(effect, 2**0.5, are_paired=False) == two_samples
