"""Folders of runs that nobody trained, for tests of what is read from them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest, upgraded
from era_cnn.config.yamltext import parse_yaml
from era_cnn.folders.outcome import read_outcome
from era_cnn.folders.result import Result
from era_cnn.folders.run import RunFolder
from era_cnn.reports.rows import Row, read_rows

SCHEMA_1 = Path(__file__).parents[1] / "folders" / "schema_1"
DATA = {"digits": "d" * 64, "mnist": "e" * 64}


@cache
def _base() -> dict[str, Any]:
    return upgraded(parse_yaml("config.yaml", (SCHEMA_1 / "completed" / "config.yaml").read_text(encoding="utf-8")))


def config_with(changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The config of a small network on digits, with some keys changed; `None` removes one."""
    values = copy.deepcopy(_base())
    for key, value in (changes or {}).items():
        *path, last = key.split(".")
        section = values
        for name in path:
            section = section[name]
        if value is None:
            del section[last]
        else:
            section[last] = value
    return parse(values)


def write_run(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    final: float | None = 0.5,
    machine: str = "here",
    data_sha256: str = "",
    provenance: Mapping[str, Any] | None = None,
    **result: Any,
) -> RunFolder:
    """Writes the folder of a run, as `config_with` says; with a result unless `final` is None.

    Runs with equal configs come to equal weights on one machine.
    """
    config = config_with(changes)
    folder = RunFolder(path)
    folder.plan(config, {})
    folder.begin(config)
    if provenance is not None:
        folder.write_json("provenance.json", dict(provenance))
    if final is None:
        folder.end("failed", "The loss must stay finite, got nan.")
        return folder
    whole = Result(
        schema=1, experiment=config.name, seed=config.seed, params=1028, epochs=6, best_test_accuracy=final,
        best_test_epoch=6, final_test_accuracy=final, best_train_accuracy=0.9, final_train_accuracy=0.9,
        final_test_loss=1.0, best_val_accuracy=None, best_val_epoch=None, final_val_accuracy=None, target={"met": None},
        weights_sha256=hashlib.sha256(f"{digest(config)} {machine}".encode()).hexdigest(),
        config_sha256=digest(config), data_sha256=data_sha256 or DATA[config.data.name], seconds=1.25,
        images_per_second=1.0,
    ).to_json()  # fmt: skip
    folder.complete({**whole, **result})
    return folder


def row_of(
    path: Path, changes: Mapping[str, Any] | None = None, *typed: str, number: int | None = None, **how: Any
) -> Row:
    """The row of such a run; `typed` are the overrides of the job that it is."""
    (row,) = read_rows([read_outcome(write_run(path, changes, **how).path, number, typed)])
    return row
