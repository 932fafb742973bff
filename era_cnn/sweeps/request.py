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
from era_cnn.errors import ConfigError, show
from era_cnn.folders.sweep import SweepFolder
from era_cnn.sweeps.launchers import renamed

RECORDED = ("hydra.sweep.dir=", "hydra/launcher", "hydra.launcher")
"""The overrides whose effect is recorded, and that decide nothing of a job."""


@dataclass(frozen=True)
class Request:
    """The options of a sweep, composed when it started, so that later edits to the YAML files do not affect them.

    `typed` are the words that started the sweep. They are composed again where needed: for the remaining trials of a
    search, and for a job whose folder is missing. `own_configs` is the user's own config folder at that time. It is not
    read unless it is given again, since the record may come from someone else.
    """

    typed: Words
    own_configs: str | None
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
        hydra = values.hydra
        sources = {source.provider: source.path for source in hydra.runtime.config_sources}
        overrides = [text for text in hydra.overrides.hydra if not text.lstrip("+~").startswith(RECORDED)]
        typed = Words([*overrides, *hydra.overrides.task], hydra.job.config_name or "config")
        return cls(typed, sources.get("command-line"), values.sweep, renamed(hydra.launcher), hydra.sweeper)

    def composed(self, changes: Sequence[str]) -> Composed:
        """The config of the sweep, as far as it decides how jobs run.

        Args:
            changes: Overrides of options to change, such as `hydra/launcher=local` and `sweep.retries=2`.

        Raises:
            ConfigError: If an override is wrong, or the file would run code.
        """
        return changed(self.typed, self.sweep, self.launcher, self.sweeper, changes)

    def given(self, config_dir: str | None) -> Request:
        """The same request with the user's own config folder, if it is given."""
        return replace(self, typed=self.typed.in_folder(config_dir))

    def planner(self) -> Planner:
        """A planner that composes jobs from the words that started the sweep.

        Raises:
            ConfigError: If the sweep began with the user's own configs, and their folder is not given again.
        """
        if self.own_configs is not None and self.typed.config_dir is None:
            rule = f"be given again, since jobs are composed from {show(self.own_configs)}"
            raise ConfigError([f"--config-dir must {rule}, got nothing. Check that folder, and add --config-dir."])
        return Planner(self.typed, compose_sweep(self.typed))
