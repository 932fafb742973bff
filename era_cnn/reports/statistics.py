"""Mean and spread over the runs of each setting, and the best setting, if there is one that can be called so."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from era_cnn.reports.rows import Row


@dataclass(frozen=True)
class Group:
    """The different results of one setting: equal ones count once."""

    rows: tuple[Row, ...]
    unfinished: int
    """The number of seeds that have no result, because their runs failed, or are not done."""

    @property
    def seeds(self) -> int:
        """The number of seeds that have a result."""
        return len({row.seed for row in self.rows})

    @property
    def n(self) -> str:
        """The number of runs; of how many, if some have no result, and of how many seeds, if one has several."""
        of = f" of {len(self.rows) + self.unfinished}" if self.unfinished else ""
        return f"{len(self.rows)}{of}" + (f" ({self.seeds} seeds)" if self.seeds < len(self.rows) else "")

    def mean(self, name: str) -> float:
        """The mean of a number in the results."""
        return statistics.fmean(self._values(name))

    def spread(self, name: str) -> str:
        """Mean ± sample standard deviation in percent; for a single run, only its accuracy; empty if there is none."""
        values = [100 * value for value in self._values(name)]
        if len(values) < len(self.rows):
            return ""
        sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{sd}"

    def _values(self, name: str) -> list[float]:
        return [row.result[name] for row in self.rows if row.result and row.result[name] is not None]


def groups(rows: Sequence[Row]) -> list[Group]:
    """Each setting that has a result.

    Results belong together if nothing that can change them differs except the seed. Results with the same weights, as
    of a run and its copy or replay, count once. Other results of the same seed, as from another machine, all count.
    """
    seeds: dict[str, set[int]] = defaultdict(set)
    results: dict[tuple[str, ...], dict[tuple[int, str], Row]] = defaultdict(dict)
    for row in rows:
        if row.setting:
            seeds[row.setting.sha256].add(row.setting.seed)
        if row.setting and row.result:
            results[row.identity].setdefault((row.setting.seed, str(row.result["weights_sha256"])), row)
    return [
        Group(tuple(each.values()), len(seeds[key[0]] - {seed for seed, _ in each})) for key, each in results.items()
    ]


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
    means = [group.mean(criterion(found)) for group in found]
    return [group for group, mean in zip(found, means, strict=True) if mean == max(means)]


def why_no_best(found: Sequence[Group]) -> Iterator[str]:
    """The reasons why the accuracies of settings can't be compared."""
    rows = [group.rows[0] for group in found]
    has_other_data = _differ(rows, "data") or len({row.origin["data_sha256"] for row in rows}) > 1
    keys = dict.fromkeys(key for row in rows for key in row.effective if _decides_what_is_measured(key))
    differing = [key for key in keys if _differ(rows, key) and not (has_other_data and key.startswith("data."))]
    if has_other_data:
        yield "the data differs"
    if differing:
        yield f"{', '.join(differing)} differ{'s' if len(differing) == 1 else ''}"
    if len({len(group.rows) for group in found}) > 1:
        yield "the settings have different numbers of results"
    elif any(group.unfinished for group in found):
        yield "some runs have no result"


def _differ(rows: Sequence[Row], key: str) -> bool:
    return len({row.effective.get(key) for row in rows}) > 1


def _decides_what_is_measured(key: str) -> bool:
    """Whether a key decides which images are trained on or tested, or cuts a training short."""
    is_of_data = key.startswith("data.") and key not in ("data.mean", "data.std")
    return is_of_data or key.startswith("trainer.limit_")
