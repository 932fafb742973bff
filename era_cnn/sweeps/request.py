"""What was asked for when a sweep began, from its folder."""

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


@dataclass(frozen=True)
class Request:
    """How jobs are done stands in multirun.yaml, composed, so that no change of conf/ since then matters.

    `typed` are the words that began the sweep. They compose it anew where that is needed: for the trials of a search
    that are still to come, and for a job whose folder is gone.
    """

    typed: Words
    sweep: dict[str, Any]
    launcher: dict[str, Any]
    sweeper: dict[str, Any]

    @classmethod
    def of(cls, sweep: SweepFolder) -> Request:
        """Reads it.

        Raises:
            RunFolderError: If it is not there or damaged.
        """
        values = sweep.read_request()
        try:
            hydra = values["hydra"]
            sources = {source["provider"]: source["path"] for source in hydra["runtime"]["config_sources"]}
            overrides = [text for text in hydra["overrides"]["hydra"] if not text.startswith("hydra.sweep.dir=")]
            name = hydra["job"]["config_name"] or "config"
            typed = Words([*overrides, *hydra["overrides"]["task"]], name, sources.get("command-line"))
            return cls(typed, dict(values["sweep"]), dict(hydra["launcher"]), dict(hydra["sweeper"]))
        except (KeyError, TypeError, ValueError) as error:
            path = sweep.path / RECORD
            raise RunFolderError(
                f"{path} must hold what the sweep began with, got: no {error}. Start it anew."
            ) from error

    def composed(self, changes: Sequence[str]) -> Composed:
        """The config of the sweep, as far as it says how jobs are done.

        Args:
            changes: Overrides of how they are done from now on, such as `hydra/launcher=local` and `sweep.retries=2`.

        Raises:
            ConfigError: If one is wrong, or the file would run code.
        """
        return changed(self.typed, self.sweep, self.launcher, self.sweeper, changes)

    def moved(self, config_dir: str | None) -> Request:
        """The same with the folder of the user's own configs elsewhere, if it is given."""
        return replace(self, typed=replace(self.typed, config_dir=config_dir)) if config_dir else self

    def planner(self) -> Planner:
        """Composes jobs as they were composed when the sweep began."""
        return Planner(self.typed, compose_sweep(self.typed))
