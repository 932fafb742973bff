"""Makes entries that are not built in options of their groups: `data=shapes` works once `shapes` is registered.

A config file of that name, in the user's or the plugin's folder, takes precedence.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from era_cnn.config import plugins
from era_cnn.config.groups import KINDS, LISTED

if TYPE_CHECKING:
    from pydantic import BaseModel


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
        from era_cnn.config.choices import REGISTRIES

        values = _defaults(REGISTRIES[KINDS[group]].section(name))
        config = OmegaConf.create({name: values} if group in LISTED else {**values, "name": name})
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header={"package": None})


def _options(group: str) -> set[str]:
    """The entries from outside the package; none is registered before the registries are imported."""
    if group not in KINDS:
        return set()
    names = set(plugins.entry_points(KINDS[group]))
    if choices := sys.modules.get("era_cnn.config.choices"):  # a question needs neither them nor pydantic
        registered = choices.REGISTRIES[KINDS[group]].imported()
        names |= {name for name, entry in registered.items() if not entry.__module__.startswith("era_cnn.")}
    return names


def _defaults(section: type[BaseModel]) -> dict[str, Any]:
    return {
        name: "???" if field.is_required() else field.get_default()
        for name, field in section.model_fields.items()
        if name != "name"
    }
