"""All that is known of runs, settings and comparisons, as JSON. Accuracies are fractions; what is missing is null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from era_cnn.reports.columns import columns
from era_cnn.reports.comparisons import MCNEMAR, PAIRED, WELCH, Comparison
from era_cnn.reports.formats import Section
from era_cnn.reports.rows import SEED, Row
from era_cnn.reports.statistics import Group, best, criterion, groups, lost, why_no_best
from era_cnn.reports.tables import ACCURACIES, keys_of_settings, note
from era_cnn.reports.verdicts import verdict

_QUESTIONS = {PAIRED: "settings over seeds", WELCH: "settings over seeds", MCNEMAR: "networks on these images"}


def as_json(rows: Sequence[Row], base: Path, comparisons: Sequence[Comparison], more: Sequence[Section]) -> str:
    """An object with the runs, the settings, the comparisons, and the sentences of the other formats."""
    found = groups(rows)
    settings = [*found, *lost(rows)]
    keys = keys_of_settings(rows)
    winners = best(found)
    values = {
        "runs": [_run(row, columns(rows), base) for row in rows],
        "settings": [{**_setting(group, keys), "is_best": group in winners} for group in settings],
        "best_by": criterion(found) if winners else None,
        "why_no_best": list(why_no_best(found)),
        "comparisons": [_comparison(each, settings) for each in comparisons],
        "sentences": [
            sentence for sentence in (note(rows), *(said for each in more for said in each.sentences)) if sentence
        ],
    }
    return json.dumps(values, indent=2, allow_nan=False)


def _run(row: Row, keys: Sequence[str], base: Path) -> dict[str, Any]:
    names = (*ACCURACIES.values(), "best_test_epoch", "final_train_accuracy", "params", "epochs", "seconds")
    return {
        "folder": str(row.folder(base)),
        "job": row.outcome.number,
        "state": row.outcome.state,
        "message": row.outcome.message or None,
        "keys": {key: row.values.get(key) for key in keys if key != SEED},
        "seed": row.seed,
        **{name: row.result[name] if row.result else None for name in names},
        "tags": list(row.notes.tags),
        "notes": list(row.notes.lines),
    }


def _setting(group: Group, keys: Sequence[str]) -> dict[str, Any]:
    params = group.mean("params")
    return {
        "keys": {key: group.example.values.get(key) for key in keys},
        "n": len(group.rows),
        "seeds": sorted(group.by_seed("final_test_accuracy")),
        "without_result": group.why_missing,
        **{name: _spread(group, name) for name in ACCURACIES.values()},
        "params": None if params is None else round(params),
    }


def _spread(group: Group, name: str) -> dict[str, Any]:
    return {"mean": group.mean(name), "sd": group.sd(name), "interval": group.interval(name)}


def _comparison(each: Comparison, settings: Sequence[Group]) -> dict[str, Any]:
    """A comparison; settings are given by their places in `settings`."""
    difference = each.difference
    return {
        "setting": settings.index(each.group),
        "baseline": settings.index(each.baseline),
        "question": ("networks on these images" if each.test == MCNEMAR else "settings over seeds")
        if each.test
        else None,
        "test": each.test or None,
        "n": list(each.n),
        "difference": difference.value if difference else None,
        "interval": difference.interval if difference else None,
        "p": difference.p if difference else None,
        "p_adjusted": each.p_adjusted,
        "correlation": each.correlation,
        "seeds_needed": each.seeds_needed,
        "verdict": verdict(each),
        "reason": each.reason or None,
    }
