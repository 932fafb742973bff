"""What was asked for when a sweep began, from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from era_cnn.compose.guard import check_composed
from era_cnn.compose.planner import Planner, compose
from era_cnn.compose.words import Words
from era_cnn.compose.yamlfiles import parse_yaml
from era_cnn.errors import ConfigError
from era_cnn.folders.run import RunFolder
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
        return RunFolder(sweep.path).read(RECORD, cls._parse)

    @classmethod
    def _parse(cls, text: str) -> Request:
        try:
            values = parse_yaml(RECORD, text)
            hydra = values["hydra"]
            sources = {source["provider"]: source["path"] for source in hydra["runtime"]["config_sources"]}
            overrides = [text for text in hydra["overrides"]["hydra"] if not text.startswith("hydra.sweep.dir=")]
            name = hydra["job"]["config_name"] or "config"
            typed = Words([*overrides, *hydra["overrides"]["task"]], name, sources.get("command-line"))
            return cls(typed, dict(values["sweep"]), dict(hydra["launcher"]), dict(hydra["sweeper"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no {error}") from error

    def composed(self, changes: list[str]) -> DictConfig:
        """The config of the sweep, as far as it says how jobs are done.

        Args:
            changes: Overrides of how they are done from now on, such as `hydra/launcher=local` and `sweep.retries=2`.

        Raises:
            ConfigError: If one is wrong, or the file would run code.
        """
        chosen = [text for text in changes if text.startswith("hydra/launcher=")]
        own_dir = self.typed.config_dir if chosen else None
        composed = compose(Words([*chosen, *_threads(self.typed)], config_dir=own_dir), RunMode.MULTIRUN)
        launcher = composed.hydra.launcher if chosen else OmegaConf.create(self.launcher)
        with open_dict(composed):
            composed.sweep = self.sweep
            composed.hydra.sweeper = self.sweeper
            composed.hydra.launcher = launcher
            for change in parse_changes([text for text in changes if text not in chosen]):
                OmegaConf.update(composed, change.key_or_group, change.value())
        check_composed(composed)
        return composed

    def planner(self) -> Planner:
        """Composes jobs as they were composed when the sweep began."""
        return Planner(self.typed, compose(self.typed, RunMode.MULTIRUN))


def _threads(words: Words) -> list[str]:
    """The threads of a job, if they are the same for all: a launcher asks for as many cores."""
    return [text for text in words.overrides if text.startswith("threads=") and text.partition("=")[2].isdecimal()]


def parse_changes(texts: Sequence[str]) -> list[Override]:
    """Overrides as they were typed.

    Raises:
        ConfigError: If one is none.
    """
    parsed = []
    for text in texts:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except Exception as error:  # Hydra's parser lets ValueError out as well
            reason = " ".join(str(error).split())
            raise ConfigError([f"{text} must be key=value, got: {reason}. See era-cnn resume --help."]) from error
    return parsed
