"""The request that started a sweep, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from era_cnn.compose.changes import changed
from era_cnn.compose.composition import compose_sweep
from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words
from era_cnn.errors import RunFolderError
from era_cnn.folders.sweep import RECORD, SweepFolder
from era_cnn.sweeps.launchers import renamed

RECORDED = ("hydra.sweep.dir=", "hydra/launcher", "hydra.launcher")
"""The overrides whose effect is recorded, and that decide nothing of a job."""


@dataclass(frozen=True)
class Request:
    """The options of a sweep, composed when it started, so that later edits to the YAML files do not affect them.

    `typed` are the words that started the sweep. They are composed again where needed: for the remaining trials of a
    search, and for a job whose folder is missing.
    """

    typed: Words
    sweep: dict[str, Any]
    launcher: dict[str, Any]
    sweeper: dict[str, Any]

    @classmethod
    def of(cls, sweep: SweepFolder) -> Request:
        """Reads the request from multirun.yaml.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """
        values = sweep.read_request()
        try:
            hydra = values["hydra"]
            sources = {source["provider"]: source["path"] for source in hydra["runtime"]["config_sources"]}
            overrides = [text for text in hydra["overrides"]["hydra"] if not text.lstrip("+~").startswith(RECORDED)]
            name = hydra["job"]["config_name"] or "config"
            typed = Words([*overrides, *hydra["overrides"]["task"]], name, sources.get("command-line"))
            return cls(typed, dict(values["sweep"]), renamed(hydra["launcher"]), dict(hydra["sweeper"]))
        except (KeyError, TypeError, ValueError) as error:
            path = sweep.path / RECORD
            raise RunFolderError(
                f"{path} must hold what the sweep began with, got: no {error}. Start it anew."
            ) from error

    def composed(self, changes: Sequence[str]) -> Composed:
        """The config of the sweep, as far as it decides how jobs run.

        Args:
            changes: Overrides of options to change, such as `hydra/launcher=local` and `sweep.retries=2`.

        Raises:
            ConfigError: If an override is wrong, or the file would run code.
        """
        return changed(self.typed, self.sweep, self.launcher, self.sweeper, changes)

    def moved(self, config_dir: str | None) -> Request:
        """The same request with another folder of the user's own configs, if it is given."""
        return replace(self, typed=replace(self.typed, config_dir=config_dir)) if config_dir else self

    def planner(self) -> Planner:
        """A planner that composes jobs from the words that started the sweep."""
        return Planner(self.typed, compose_sweep(self.typed))
