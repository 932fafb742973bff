"""What comparisons say: a table, and sentences in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from era_cnn.errors import RunFolderError, amount
from era_cnn.reports.comparisons import MCNEMAR, PAIRED, WELCH, Comparison, read_tested
from era_cnn.reports.formats import Section, Table, interval_text
from era_cnn.reports.inference import LEVEL, MOST_SEEDS, POWER, Difference, wilson_interval
from era_cnn.reports.statistics import Group, they_differ
from era_cnn.reports.tables import setting_text

MOST_SENTENCES = 12
"""The most comparisons that are put into words one by one; the table has all."""

QUESTIONS = {
    PAIRED: "which setting is better over seeds?",
    WELCH: "which setting is better over seeds?",
    MCNEMAR: (
        "do these trained networks differ on these test images? Which setting is better is another question: that "
        "takes several seeds of each."
    ),
}
"""The question that each test answers."""


def section_of(comparisons: Sequence[Comparison], keys: Sequence[str], how_chosen: str) -> Section:
    """The table of comparisons, and what they say in words.

    Args:
        comparisons: At least one, with one baseline.
        keys: The keys that tell settings apart.
        how_chosen: How the baseline was chosen.
    """
    said = (*_what_is_compared(comparisons, keys, how_chosen), *_answers(comparisons, keys))
    return Section("Comparisons with the baseline", _table(comparisons, keys), said, labels=len(keys))


def one_run_section(group: Group) -> list[Section]:
    """How far the accuracy of a single network may be off because there are only so many test images."""
    try:
        correct = read_tested(group.rows[0]).correct
    except RunFolderError:  # folders of earlier versions, or of someone else, need not have it
        return []
    interval = wilson_interval(int(correct.sum()), len(correct))
    said = (
        f"Final test accuracy {100 * correct.mean():.2f}% of {len(correct):,} test images, 95% Wilson interval "
        f"{interval_text(interval)}: for this network on other images. It says nothing about other seeds."
    )
    return [Section("Interval", None, (said,))]


def _table(comparisons: Sequence[Comparison], keys: Sequence[str]) -> Table:
    """A row for each setting: n, the difference in points with its interval, p, and what it means."""
    are_adjusted = _tests(comparisons) > 1
    head = [*keys, "n", "difference", "95% interval", "test", "p", *(["Holm p"] if are_adjusted else []), "verdict"]
    lines = []
    for each in comparisons:
        difference = each.difference
        lines.append([
            *each.group.example.cells(keys),
            _n(each),
            f"{100 * difference.value:+.2f}" if difference else "",
            interval_text(difference.interval if difference else None),
            each.test,
            _p(difference.p if difference else None),
            *([_p(each.p_adjusted)] if are_adjusted else []),
            verdict(each),
        ])  # fmt: skip
    return head, lines


def verdict(comparison: Comparison) -> str:
    """What a comparison shows, in a word or two."""
    if comparison.difference is None or comparison.difference.p is None:
        return "no test"
    if comparison.is_identical:
        return "identical"
    if not is_distinguishable(comparison):
        return "not distinguishable"
    return "better" if comparison.difference.value > 0 else "worse"


def is_distinguishable(comparison: Comparison) -> bool:
    """Whether the p for all comparisons together is below 0.05."""
    return comparison.p_adjusted is not None and comparison.p_adjusted < 1 - LEVEL


def _what_is_compared(comparisons: Sequence[Comparison], keys: Sequence[str], how_chosen: str) -> Iterator[str]:
    baseline = setting_text(keys, comparisons[0].baseline)
    yield (
        f"Baseline: {baseline} ({how_chosen}). Differences: setting minus baseline, in percentage points of final test "
        "accuracy."
    )
    if (tests := _tests(comparisons)) > 1:
        yield f"{tests} comparisons: verdicts follow Holm's p, which is adjusted for their number; intervals are not."
    for question in dict.fromkeys(QUESTIONS[each.test] for each in comparisons if each.test):
        yield f"The question answered: {question}"


def _answers(comparisons: Sequence[Comparison], keys: Sequence[str]) -> Iterator[str]:
    if len(comparisons) > MOST_SENTENCES:
        yield f"{sum(map(is_distinguishable, comparisons))} of {len(comparisons)} settings differ from the baseline."
        return
    for each in comparisons:
        yield " ".join([_answer(each, setting_text(keys, each.group)), *_remarks(each)])


def _answer(comparison: Comparison, name: str) -> str:
    difference = comparison.difference
    if difference is None:
        return f"{name}: no test, since {comparison.reason}."
    return f"{name}: {_finding(comparison, difference)} ({', '.join(_numbers(comparison, difference))})."


def _finding(comparison: Comparison, difference: Difference) -> str:
    is_of_networks, word = comparison.test == MCNEMAR, "better" if difference.value > 0 else "worse"
    if difference.p is None:
        return f"{word} by the same in each seed, and without spread there is no test"
    if comparison.is_identical:
        return "identical predictions"
    if is_distinguishable(comparison):
        return f"{'this network is ' if is_of_networks else ''}{word} by {_points(difference.value)} points"
    if is_of_networks:
        return "the two networks are not distinguishable"
    return f"not distinguishable with {_seeds(comparison)}{_needed(comparison, difference)}"


def _remarks(comparison: Comparison) -> Iterator[str]:
    if comparison.correlation is not None and round(comparison.correlation, 2) < 0:
        yield (
            f"Accuracies of common seeds are negatively correlated ({comparison.correlation:.2f}), so pairing them "
            "makes the interval wider."
        )
    if left_out := comparison.group.unfinished + comparison.baseline.unfinished:
        yield (
            f"{amount(left_out, 'seed')} without a result {'is' if left_out == 1 else 'are'} left out."
            if left_out > 1
            else "1 seed without a result is left out."
        )
    if comparison.trained_differently:
        differing = they_differ(comparison.trained_differently)
        yield f"They were trained on other images or for fewer epochs: {differing}."


def _numbers(comparison: Comparison, difference: Difference) -> Iterator[str]:
    """The test, the interval of the difference, and p."""
    over = {PAIRED: " over common seeds", MCNEMAR: f" on {comparison.n[0]:,} test images"}
    yield comparison.test + over.get(comparison.test, "")
    yield f"difference {100 * difference.value:+.2f}"
    if difference.interval:
        yield f"95% interval {interval_text(difference.interval)}"
    if difference.p is not None:
        yield f"p = {_p(difference.p)}".replace("= <", "< ")
    if comparison.p_adjusted not in (None, difference.p):
        yield f"Holm p = {_p(comparison.p_adjusted)}".replace("= <", "< ")


def _needed(comparison: Comparison, difference: Difference) -> str:
    """How many seeds would show the difference; nothing if it is zero, or hidden only among the other comparisons."""
    needed = comparison.seeds_needed
    if not (difference.value and difference.error) or (needed and needed <= min(comparison.n)):
        return ""
    number = f"about {needed}" if needed else f"more than {MOST_SEEDS:,}"
    of_each = " of each" if comparison.test == WELCH else ""
    return f"; {number}{of_each} would be needed to detect {_points(difference.value)} points with power {POWER}"


def _seeds(comparison: Comparison) -> str:
    return f"{' and '.join(map(str, comparison.n))} seeds"


def _n(comparison: Comparison) -> str:
    unit = {PAIRED: " pairs", MCNEMAR: " images"}.get(comparison.test, "")
    return " and ".join(f"{number:,}" for number in comparison.n) + unit


def _tests(comparisons: Sequence[Comparison]) -> int:
    """The number of comparisons that have a p."""
    return sum(each.p_adjusted is not None for each in comparisons)


def _p(p: float | None) -> str:
    return "" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def _points(value: float) -> str:
    points = 100 * abs(value)
    return f"{points:.2f}" if points >= 0.1 else f"{points:.1g}"
