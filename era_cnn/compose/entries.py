"""Makes entries that are not built in options of their groups: `data=shapes` works once `shapes` is registered.

A config file of that name, in the user's or the plugin's folder, takes precedence.
"""

from __future__ import annotations

from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from era_cnn.config import plugins
from era_cnn.config.choices import GROUPS
from era_cnn.config.sections import Section


class EntryDefaults(ConfigSource):
    """A Hydra config source with the default values of an entry's fields; `???` for a field without one."""

    def __init__(self) -> None:
        super().__init__("entries", "entries://")

    @staticmethod
    def scheme() -> str:
        """The scheme, which no search path uses."""
        return "entries"

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether the group has entries that are not built in."""
        return bool(_options(config_path.strip("/")))

    def is_config(self, config_path: str) -> bool:
        """Whether the path, such as data/shapes, names such an entry."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return name in _options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names of a group's entries that are not built in."""
        return sorted(_options(config_path.strip("/"))) if results_filter in (None, ObjectType.CONFIG) else []

    def load_config(self, config_path: str) -> ConfigResult:
        """The default values of an entry; imports its plugin if it is an installed one.

        Raises:
            ConfigError: If the plugin can't be imported.
        """
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if name not in _options(group):
            raise ConfigLoadError(f"Config not found : {config_path}")
        values = _defaults(GROUPS[group].section(name))
        config = OmegaConf.create({name: values} if group == "augmentation" else {**values, "name": name})
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header={"package": None})


def _options(group: str) -> set[str]:
    if group not in GROUPS:
        return set()
    registry = GROUPS[group]
    outside = {name for name, entry in registry.imported().items() if not entry.__module__.startswith("era_cnn.")}
    return outside | plugins.entry_points(registry.kind).keys()


def _defaults(section: type[Section]) -> dict[str, Any]:
    return {
        name: "???" if field.is_required() else field.get_default()
        for name, field in section.model_fields.items()
        if name != "name"
    }
