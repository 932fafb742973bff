"""The rows of tables: the outcome of each run, with the setting that its folder holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from era_cnn.config.settings import Setting, as_typed_key
from era_cnn.errors import RunFolderError
from era_cnn.folders.notes import Notes, read_notes
from era_cnn.folders.outcome import Outcome
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_setting

SEED = "seed"


@dataclass(frozen=True)
class Row:
    """A run in a table."""

    outcome: Outcome
    setting: Setting | None
    """None if there is no config, or it is damaged."""

    origin: dict[str, str]
    """What its result depends on besides its config: data, arithmetic, and the code of plugins."""

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json, if the run is complete and its config can be read."""
        return self.outcome.result

    @property
    def seed(self) -> int | None:
        """The seed of the run."""
        return self.setting.seed if self.setting else None

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for two results exactly if they may differ only by their seeds."""
        assert self.setting is not None, "a row with a result has a setting"
        return self.setting.sha256, *(f"{key}={value}" for key, value in sorted(self.origin.items()))

    @cached_property
    def typed(self) -> dict[str, str]:
        """The overrides that were typed for a job, by key; without those of the sweep itself."""
        values = {plain_key(key): value for key, value in self.outcome.overrides.items()}
        return {key: value for key, value in values.items() if key.partition(".")[0] != "sweep"}

    @cached_property
    def effective(self) -> dict[str, str]:
        """All values that can change the result, except the seed; empty without a setting."""
        short = {key: value[:8] for key, value in self.origin.items()}
        return {**self.setting.values, **short} if self.setting else {}

    @cached_property
    def values(self) -> dict[str, str]:
        """The value of every key: that of the config, whatever was typed, except for the name of the experiment."""
        if not self.setting:
            return self.typed
        name = {"experiment": self.typed["experiment"]} if "experiment" in self.typed else {}
        return {**self.typed, **self.setting.labels, **self.effective, SEED: str(self.seed), **name}

    @cached_property
    def notes(self) -> Notes:
        """What people noted about the run."""
        return read_notes(self.outcome.folder)

    def cells(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The values of some keys; empty where there is none."""
        return tuple(self.values.get(key, "") for key in keys)

    def folder(self, base: Path) -> Path:
        """The folder, relative to `base` if it lies there."""
        return relative(self.outcome.folder, base)


def relative(path: Path, base: Path) -> Path:
    """The path, relative to `base` if it lies there."""
    return path.relative_to(base) if path.is_relative_to(base) else path


def read_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """The rows of outcomes. A run whose config or provenance is damaged is damaged; its result does not count."""
    rows = [_read_row(outcome) for outcome in outcomes]
    devices = {row.setting.values.get("device", "auto") for row in rows if row.setting} - {"auto"}
    if len(devices) != 1:
        return rows
    (device,) = devices  # runs that have not begun are expected there as well
    return [replace(row, setting=row.setting.on(device)) if row.setting else row for row in rows]


def _read_row(outcome: Outcome) -> Row:
    folder = RunFolder(outcome.folder)
    result = outcome.result
    try:
        setting = read_setting(folder, result["config_sha256"] if result else None)
        return Row(outcome, setting, _origin(folder, result) if result else {})
    except RunFolderError as error:
        has_no_config_yet = outcome.state == "planned" and not os.path.exists(folder.path / "config.yaml")
        if has_no_config_yet or outcome.state == "damaged":  # the latter has a message already
            return Row(outcome, None, {})
        return Row(replace(outcome, state="damaged", message=str(error), result=None), None, {})


def _origin(folder: RunFolder, result: dict[str, Any]) -> dict[str, str]:
    """What a result depends on besides its config; older folders record no numerics version and no plugins."""
    is_known = os.path.exists(folder.path / "provenance.json")
    provenance = folder.read_json("provenance.json") if is_known else {}
    plugins = provenance.get("plugins")
    code = {f"plugin {name}": str(sha256) for name, sha256 in plugins.items()} if isinstance(plugins, dict) else {}
    return {"data_sha256": str(result["data_sha256"]), "numerics": str(provenance.get("numerics", 1)), **code}


def plain_key(typed: str) -> str:
    """The key of an override: `optimizer.lr` for `+optimizer.lr`, `optimizer` for `optimizer@_here_`."""
    return as_typed_key(re.sub(r"^[+~]+|@.*", "", typed))
