"""The columns of tables: the keys in which runs differ, as few as tell all settings apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from era_cnn.reports.rows import SEED, Row

MOST_LAYER_KEYS, MOST_KEYS = 3, 6
"""The most keys of layers, and of everything that was not typed, which become columns for their own sake."""

NAMES = ("experiment", "data", "augmentation", "model", "optimizer", "scheduler")
"""The keys whose values are names of whole groups."""

LAST_RESORT = ("data.mean", "data.std", "model.layers", "data_sha256", "numerics")
"""Keys that are shown only if settings can't be told apart without them, like targets and the code of plugins."""


def columns(rows: Sequence[Row]) -> list[str]:
    """The keys to show: what was typed and differs, then all else that differs, wherever it was set.

    Networks or experiments that differ in many keys are shown by their names, and by as many further keys as are needed
    to tell all settings apart. For a single run, all that was typed. If there is nothing else to show, the experiment.
    """
    differing = _differing(rows)
    typed = list(dict.fromkeys(key for row in rows for key in row.typed))
    if len(rows) == 1:
        return typed or ["experiment"]

    # Keys for their own sake, and those that only help to tell settings apart.
    names = [key for key in NAMES if key in differing and (key != "model" or "model.layers" in differing)]
    effective = [key for key in differing if any(key in row.effective for row in rows)]
    plain = [key for key in effective if not _is_last_resort(key) and not _belongs_to_a_name(key, names, rows)]
    if sum(map(_is_of_a_layer, plain)) > MOST_LAYER_KEYS:
        plain = [key for key in plain if not _is_of_a_layer(key)]
    untyped = [key for key in plain if key not in typed and key not in names]

    # What was typed stands first, in the order in which it was typed; an untyped seed comes last.
    chosen = [*filter(differing.__contains__, typed), *names, *(untyped if len(untyped) <= MOST_KEYS else ())]
    chosen = _extended(list(dict.fromkeys(chosen)), [*plain, *filter(_is_last_resort, effective)], rows)
    if SEED in differing and SEED not in chosen:
        chosen.append(SEED)
    return chosen or ["experiment"]


def _differing(rows: Sequence[Row]) -> list[str]:
    """The keys with more than one value; what a row without a setting does not say is not another value."""
    whole = [row for row in rows if row.setting]
    keys = dict.fromkeys(key for row in (*whole, *rows) for key in row.values)

    def values(key: str) -> set[str]:
        return {row.values.get(key, "") for row in whole} | {row.values[key] for row in rows if key in row.values}

    return [key for key in keys if len(values(key)) > 1]


def _is_last_resort(key: str) -> bool:
    """Whether a key is shown only if settings can't be told apart without it."""
    return key in LAST_RESORT or key.startswith(("target.", "plugin ", "data.contents."))


def _is_of_a_layer(key: str) -> bool:
    return key.startswith("model.layers.")


def _belongs_to_a_name(key: str, names: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether only some choices of a group have a key, as `optimizer.momentum`: the group's name is shown anyway."""
    group = key.partition(".")[0]
    return group != key and group in names and any(row.setting and key not in row.effective for row in rows)


def _extended(chosen: list[str], candidates: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The chosen keys, and those candidates that are needed to tell the settings of the rows apart."""
    settings = [row for row in rows if row.setting]
    results = [row for row in settings if row.result]

    def tells_all_apart(keys: Sequence[str]) -> bool:
        by_config = _tells_apart(keys, settings, lambda row: row.setting and row.setting.sha256)
        return by_config and _tells_apart(keys, results, lambda row: row.identity)

    for key in candidates:
        if tells_all_apart(chosen):
            break
        if key not in chosen and len(_seen(rows, [*chosen, key])) > len(_seen(rows, chosen)):
            chosen = [*chosen, key]
    return chosen


def _tells_apart(keys: Sequence[str], rows: Sequence[Row], identity: Callable[[Row], Hashable]) -> bool:
    return len(_seen(rows, keys)) == len({(_cells(row, keys), identity(row)) for row in rows})


def _seen(rows: Sequence[Row], keys: Sequence[str]) -> set[tuple[str, ...]]:
    return {_cells(row, keys) for row in rows}


def _cells(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.values.get(key, "") for key in keys if key != SEED)
