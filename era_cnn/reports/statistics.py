"""Mean and spread over the runs of each setting, and the best setting, if there is one that can be called so."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from era_cnn.reports.inference import Interval, t_interval
from era_cnn.reports.rows import Row

FINAL = "final_test_accuracy"
"""The accuracy that settings are compared by: no epoch was chosen for it, while the best one may be on the test set."""


@dataclass(frozen=True)
class Group:
    """The different results of one setting: equal ones count once."""

    rows: tuple[Row, ...]
    missing: tuple[Row, ...] = ()
    """A run of each seed that has no result, because its runs failed, or are not done."""

    @property
    def example(self) -> Row:
        """A run of the setting."""
        return (self.rows or self.missing)[0]

    @property
    def unfinished(self) -> int:
        """The number of seeds that have no result."""
        return len(self.missing)

    @property
    def seeds(self) -> int:
        """The number of seeds that have a result."""
        return len({row.seed for row in self.rows})

    @property
    def n(self) -> str:
        """The number of runs; of how many, if some have no result, and of how many seeds, if one has several."""
        of = f" of {len(self.rows) + self.unfinished}" if self.unfinished else ""
        return f"{len(self.rows)}{of}" + (f" ({self.seeds} seeds)" if self.seeds < len(self.rows) else "")

    @property
    def why_missing(self) -> dict[str, int]:
        """How many seeds without a result have which state."""
        return dict(Counter(row.outcome.state for row in self.missing))

    def mean(self, name: str) -> float | None:
        """The mean of a number in the results; None if one of them does not have it."""
        values = self.values(name)
        return statistics.fmean(values) if values else None

    def sd(self, name: str) -> float | None:
        """The sample standard deviation of a number in the results; None for a single run."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def interval(self, name: str) -> Interval | None:
        """The 95% t interval of the mean of an accuracy; None for a single run, and if all are equal."""
        return t_interval(self.values(name))

    def by_seed(self, name: str) -> dict[int, float]:
        """An accuracy by seed; the mean if a seed has several results, as from several machines."""
        found = defaultdict(list)
        for row in self.rows:
            if row.result and row.seed is not None:
                found[row.seed].append(row.result[name])
        return {seed: statistics.fmean(values) for seed, values in found.items()}

    def spread(self, name: str) -> str:
        """Mean ± sample standard deviation in percent; for a single run, only its accuracy; empty if there is none."""
        mean, sd = self.mean(name), self.sd(name)
        return "" if mean is None else f"{100 * mean:.2f}" + ("" if sd is None else f" ± {100 * sd:.2f}")

    def values(self, name: str) -> list[float]:
        """A number of each result; empty if one of them does not have it."""
        found = [row.result[name] for row in self.rows if row.result]
        return [] if None in found else found


def groups(rows: Sequence[Row]) -> list[Group]:
    """Each setting that has a result.

    Results belong together if nothing that can change them differs except the seed. Results with the same weights, as
    of a run and its copy or replay, count once. Other results of the same seed, as from another machine, all count.
    """
    seeds: dict[str, dict[int, Row]] = defaultdict(dict)
    results: dict[tuple[str, ...], dict[tuple[int, str], Row]] = defaultdict(dict)
    for row in rows:
        if row.setting:
            seeds[row.setting.sha256][row.setting.seed] = row
        if row.setting and row.result:
            results[row.identity].setdefault((row.setting.seed, str(row.result["weights_sha256"])), row)
    found = []
    for key, each in results.items():
        done = {seed for seed, _ in each}
        missing = (row for seed, row in seeds[key[0]].items() if seed not in done)
        found.append(Group(tuple(each.values()), tuple(missing)))
    return found


def lost(rows: Sequence[Row]) -> list[Group]:
    """Each setting that has no result at all."""
    done = {row.identity[0] for row in rows if row.result}
    found: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row.setting and row.setting.sha256 not in done:
            found[row.setting.sha256][row.setting.seed] = row
    return [Group((), tuple(each.values())) for each in found.values()]


def repeats(rows: Sequence[Row]) -> int:
    """The number of rows whose result stands in an earlier row."""
    return sum(row.result is not None for row in rows) - sum(len(group.rows) for group in groups(rows))


def criterion(found: Sequence[Group]) -> str:
    """The accuracy by which the best setting is chosen: on the validation images, if there are any."""
    results = [row.result for group in found for row in group.rows if row.result]
    has_val = bool(results) and all(result["final_val_accuracy"] is not None for result in results)
    return "final_val_accuracy" if has_val else "final_test_accuracy"


def best(found: Sequence[Group]) -> list[Group]:
    """The setting with the highest mean final accuracy, or several that share it; none if they can't be compared."""
    if len(found) < 2 or list(why_no_best(found)):
        return []
    means = [group.mean(criterion(found)) or 0.0 for group in found]
    return [group for group, mean in zip(found, means, strict=True) if mean == max(means)]


def why_no_best(found: Sequence[Group]) -> Iterator[str]:
    """The reasons why the accuracies of settings can't be compared."""
    rows = [group.rows[0] for group in found]
    has_other_data = _differ(rows, "data") or len({row.origin["data_sha256"] for row in rows}) > 1
    keys = dict.fromkeys(key for row in rows for key in row.effective if decides_what_is_measured(key))
    differing = [key for key in keys if _differ(rows, key) and not (has_other_data and key.startswith("data."))]
    if has_other_data:
        yield "the data differs"
    if differing:
        yield they_differ(differing)
    if len({len(group.rows) for group in found}) > 1:
        yield "the settings have different numbers of results"
    elif any(group.unfinished for group in found):
        yield "some runs have no result"


def _differ(rows: Sequence[Row], key: str) -> bool:
    return len({row.effective.get(key) for row in rows}) > 1


def they_differ(keys: Sequence[str]) -> str:
    """Names keys and says that they differ: `a differs`, `a, b differ`."""
    return f"{', '.join(keys)} differ{'s' if len(keys) == 1 else ''}"


def decides_what_is_measured(key: str) -> bool:
    """Whether a key decides which images are trained on or tested, or cuts a training short."""
    is_of_data = key.startswith("data.") and key not in ("data.mean", "data.std")
    return is_of_data or key.startswith("trainer.limit_")
