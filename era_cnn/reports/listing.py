"""`era-cnn list`: prints the runs and sweeps in folders, a line for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from era_cnn.errors import ConfigError, RunFolderError, problem, shortened
from era_cnn.nearest import did_you_mean
from era_cnn.output import say, terminal_columns
from era_cnn.reports.conditions import conditions
from era_cnn.reports.formats import Table, aligned, columns_of, plain, wrapped
from era_cnn.reports.listed import DEFAULT_FOLDERS, OWN_KEYS, Listed, listed_in
from era_cnn.reports.rows import relative
from era_cnn.reports.statistics import FINAL
from era_cnn.reports.tables import MOST_OF_A_NOTE


def list_runs(folder: Path | None, *, where: Sequence[str] = (), sort: str | None = None, as_json: bool = False) -> int:
    """Prints the runs and sweeps in a folder, damaged ones too; returns 0.

    Args:
        folder: The folder; None for `outputs` and `multirun` in the current one. Of a sweep, its jobs are listed.
        where: Conditions `key=value` that a run must meet, or a job of a sweep.
        sort: The key to sort by, ascending; None for the order of folders.
        as_json: Whether to print a list of objects.

    Raises:
        ConfigError: If a condition is malformed, or nothing has a key that was typed.
        RunFolderError: If there is no such folder, or it is damaged itself; raised after the rest is printed.
    """
    typed = conditions("--where", where)
    base = (folder or Path.cwd()).absolute()
    found = list(listed_in(base if folder else None))
    chosen = [each for each in found if all(condition.holds(each.values(condition.key)) for condition in typed)]
    _check_keys(found, [("--where", condition.key) for condition in typed] + ([("--sort", sort)] if sort else []))
    if sort:
        chosen.sort(key=lambda each: _rank(each.values(sort)))
    if as_json:
        say(*json.dumps([_values(each, base) for each in chosen], indent=2, allow_nan=False).split("\n"))
    elif chosen:
        say(*_text(chosen, base).split("\n"))
    else:
        place = " or ".join(DEFAULT_FOLDERS) if folder is None else base
        say(f"No {'such ' if typed else ''}runs or sweeps in {place}.")
    if damaged := [each.message for each in found if each.folder == base and each.state == "damaged"]:
        raise RunFolderError(damaged[0])
    return 0


def _check_keys(found: Sequence[Listed], typed: Sequence[tuple[str, str]]) -> None:
    """Raises a `ConfigError` if nothing in the folder has a key that was typed."""
    for option, key in typed:
        if found and key not in OWN_KEYS and not any(each.values(key) for each in found):
            known = [*OWN_KEYS, *dict.fromkeys(key for each in found for config in each.configs for key in config)]
            advice = did_you_mean(key, known, "See config.yaml for those of a run.")
            raise ConfigError([problem(option, "name a key that one of these runs has", key, advice)])


def _rank(values: Sequence[str]) -> tuple[int, float, str]:
    """Numbers, then words; what has no value comes first, so that the newest and highest are last."""
    if not values:
        return 0, 0.0, ""
    try:
        return 1, max(map(float, values)), ""
    except ValueError:
        return 2, 0.0, values[0]


def _text(chosen: Sequence[Listed], base: Path) -> str:
    width = terminal_columns()
    messages = [f"{relative(each.folder, base)}: {each.message}" for each in chosen if each.state == "damaged"]
    best = ["Of a sweep, the accuracies are those of its best job."] if any(each.is_sweep for each in chosen) else []
    table = _table(chosen, base)
    text = _by_folder(chosen, base, width) if width and columns_of(table) > width else aligned(table)
    return "\n".join([text, *(wrapped(each, width) for each in [*messages, *best])])


def _by_folder(chosen: Sequence[Listed], base: Path, width: int) -> str:
    """The table for a narrow terminal: rows below the folder that they share, with notes below them.

    The names of folders tell time and experiment. If even that is too wide, the columns are continued below.
    """
    table = _shown(
        {
            "": [f"  {_named(each)}" for each in chosen],
            **{title: cells for title, cells in _columns(chosen).items() if title in NARROW},
        }
    )
    if columns_of(table) > width:
        return aligned(_table(chosen, base), width)
    lines = aligned(table).split("\n")
    said: list[str] = lines[:1]
    parent = None
    for each, line in zip(chosen, lines[2:], strict=True):
        if each.folder.parent != parent:
            parent = each.folder.parent
            said += ["", plain(str(relative(parent, base)))]
        noted = " ".join([*(f"[{tag}]" for tag in each.notes.tags), each.notes.latest]).strip()
        said += [line, *([f"    {plain(shortened(noted, width - 4))}"] if noted else [])]
    return "\n".join(said)


NARROW = ("state", "jobs", "best test", "final test")
"""The columns that are always shown."""


def _named(each: Listed) -> str:
    """The name of a folder, with the experiment if the name does not tell it."""
    name = each.folder.name
    return name if not each.experiment or each.experiment in name else f"{name} ({each.experiment})"


def _table(chosen: Sequence[Listed], base: Path) -> Table:
    """A line for each."""
    return _shown({"folder": [str(relative(each.folder, base)) for each in chosen], **_columns(chosen)})


def _columns(chosen: Sequence[Listed]) -> dict[str, list[str]]:
    return {
        "when": [f"{each.started:%Y-%m-%d %H:%M}" if each.started else "" for each in chosen],
        "experiment": [each.experiment for each in chosen],
        "state": [each.state for each in chosen],
        "jobs": [f"{each.done} of {len(each.outcomes)}" if each.outcomes and each.is_sweep else "" for each in chosen],
        "best test": [_percent(each.result.get("best_test_accuracy")) for each in chosen],
        "final test": [_percent(each.result.get(FINAL)) for each in chosen],
        "tags": [", ".join(each.notes.tags) for each in chosen],
        "note": [shortened(each.notes.latest, MOST_OF_A_NOTE) for each in chosen],
    }


def _shown(columns: Mapping[str, list[str]]) -> Table:
    """The table of these columns; those that are empty everywhere are left out."""
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    return list(shown), [list(line) for line in zip(*shown.values(), strict=True)]


def _values(each: Listed, base: Path) -> dict[str, Any]:
    """The values for JSON; what is missing is null."""
    return {
        "folder": str(relative(each.folder, base)),
        "kind": "sweep" if each.is_sweep else "run",
        "state": each.state,
        "experiment": each.experiment or None,
        "started": each.started.isoformat() if each.started else None,
        "jobs": {"done": each.done, "all": len(each.outcomes)} if each.is_sweep else None,
        **{name: each.result.get(name) for name in ("best_test_accuracy", FINAL, "final_val_accuracy", "params")},
        "tags": list(each.notes.tags),
        "notes": list(each.notes.lines),
        "message": each.message or each.notes.damage or None,
    }


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f}%"
