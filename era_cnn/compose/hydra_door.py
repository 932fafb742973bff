"""The only module that uses private names of Hydra and OmegaConf; it wraps them under public names.

Written for Hydra 1.3 and OmegaConf 2.3, see `hydra_versions`. To support another version, compare the names used here.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import version
from hydra._internal import defaults_list
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource as _HydrasStore
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import GroupDefault, InputDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import Container, DictConfig, OmegaConf, open_dict, read_write
from omegaconf._impl import select_value
from omegaconf._utils import _DEFAULT_MARKER_, get_omega_conf_dumper
from omegaconf.base import Node
from omegaconf.basecontainer import BaseContainer

from era_cnn.compose.entries import EntryDefaults
from era_cnn.config.yamltext import dump
from era_cnn.errors import ConfigError

Composed = DictConfig
"""A composed config, including the `hydra` node, before it is typed."""

PLUGIN = "plugin"
"""What Hydra records as the provider of a plugin's configs."""

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""The default values of `hydra.launcher._target_` and `hydra.sweeper._target_`."""

_ONE_AT_A_TIME = threading.RLock()
"""Hydra keeps the current application and config in globals, so only one thread at a time may compose."""


# Checked configs


def mark_checked(composed: Composed) -> None:
    """Sets a flag on a config that the guard checked; copies keep the flag, and no YAML file can set it."""
    composed._set_flag("era_cnn_checked", True)


def require_checked(composed: Composed) -> None:
    """Refuses a config that bypassed the guard, for example through a Hydra version that no longer calls it.

    Raises:
        ConfigError: If the guard has not checked it.
    """
    if not composed._get_node_flag("era_cnn_checked"):
        rule = "A config must pass era_cnn's guard before it is used, got one that Hydra composed without it."
        raise ConfigError([f"{rule} Install the Hydra version that era_cnn needs: pip install 'hydra-core==1.3.*'"])


# Composing


@dataclass(frozen=True)
class Part:
    """A file that a config is composed from."""

    path: str
    """The group and the name, such as model/model_4."""

    chosen_by: str
    """The path of the file whose defaults list chose it."""

    package: str
    """The key that its content is merged into; empty for the root."""

    content: Container

    @property
    def group(self) -> str:
        """The group, such as model; empty for a primary config."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The name within the group, such as model_4."""
        return self.path.rpartition("/")[2]

    def is_in(self, group: str) -> bool:
        """Whether it is an option of a group, or of a group within that."""
        return self.path.startswith(f"{group}/")

    def at(self, key: str) -> Any:
        """What is merged into a key, as plain values with interpolations unresolved; None if nothing is."""
        if not f"{key}.".startswith(f"{self.package}." if self.package else ""):
            return None
        inner = key[len(self.package) :].lstrip(".")
        found = self._plain
        for name in inner.split(".") if inner else ():
            if isinstance(found, list):
                found = {str(number): value for number, value in enumerate(found)}
            found = found.get(name) if isinstance(found, dict) else None
        return found

    @cached_property
    def _plain(self) -> Any:
        return OmegaConf.to_container(self.content, resolve=False)


@dataclass(frozen=True)
class Default:
    """An entry in the defaults list of a file."""

    group: str
    """The group from the top, such as model; in the file it may be relative to that of the file."""

    names: tuple[str, ...]
    """The options; empty for null, or if an interpolation gives them."""

    is_choice: bool
    """Whether it chooses an option of a group for the whole config, instead of a file to build upon."""

    is_override: bool


def defaults_of(loader: ConfigLoader, path: str) -> tuple[str, list[Default]]:
    """The package in the header of a file, which may be empty, and its defaults list; nothing if there is no file."""
    loaded = loader.repository.load_config(path)  # type: ignore[attr-defined]
    if loaded is None:
        return "", []
    return loaded.header["package"] or "", [
        _default(each, path.rpartition("/")[0])
        for each in loaded.defaults_list or ()
        if not each.is_self() and not each.is_optional()
    ]


def _default(each: InputDefault, group: str) -> Default:
    each.update_parent(group, "")
    is_group = isinstance(each, GroupDefault)
    names = each.get_options() if isinstance(each, GroupDefault) and each.is_options() else [each.get_name()]
    plain = () if each.is_interpolation() else tuple(name for name in names if name is not None)
    return Default(each.get_group_path(), plain, is_group and each.package is None, each.is_override())


class Frozen:
    """A config that stays as it is, and of which a copy takes a fifth of the time of a deep copy.

    It is pickled, but for its classes: pickle would look for them by name, and Hydra imports the modules of plugins
    twice.
    """

    def __init__(self, composed: Composed) -> None:
        self._classes: list[type] = []
        content = io.BytesIO()
        pickler = pickle.Pickler(content, pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = self._number_of  # type: ignore[method-assign]
        pickler.dump(composed)
        self._pickled = content.getvalue()

    def _number_of(self, value: object) -> int | None:
        if not isinstance(value, type):
            return None
        self._classes.append(value)
        return len(self._classes) - 1

    def copy(self) -> Composed:
        """An independent copy."""
        unpickler = pickle.Unpickler(io.BytesIO(self._pickled))
        unpickler.persistent_load = self._classes.__getitem__  # type: ignore[method-assign]
        composed: Composed = unpickler.load()
        return composed


STAMP = "era_cnn.stamp"
"""The key in the header of a packaged file that holds its stamp: the time of its last change, its size and its path."""

MOST_BASES = 256
"""The most configs that a process remembers; each takes some 100 kB."""


class Loader(ConfigLoaderImpl):
    """Hydra's config loader, whose subclass checks each step; it returns no config that was not checked."""

    _bases: ClassVar[dict[tuple[object, ...], tuple[tuple[str, ...], Frozen]]] = {}
    """Maps the options of groups to the config that they make: choosing and merging files takes three quarters of the
    time, and setting values hardly any. Remembered only if all files are the package's."""

    def __init__(
        self,
        search_path: ConfigSearchPath,
        open_folder: Callable[[str, str], ConfigSource],
        can_be_found: Callable[[str], bool],
    ) -> None:
        self.config_search_path = search_path
        self._stamps: tuple[str, ...] | None = None  # of the files of the config that was composed last
        self.repository = _Repository(search_path, open_folder, can_be_found)

    @abstractmethod
    def check_overrides(self, config_name: str | None, overrides: Sequence[str]) -> None:
        """Raises a `ConfigError` if overrides, as they were typed, must not be parsed."""

    @abstractmethod
    def check_parsed(self, overrides: Sequence[Override], primary: Container | None) -> None:
        """Raises a `ConfigError` if parsed overrides or the primary config must not be composed."""

    @abstractmethod
    def check_parts(self, parts: Sequence[Part]) -> None:
        """Raises a `ConfigError` if files must not be merged, in this order, into a config."""

    @abstractmethod
    def limits(self) -> AbstractContextManager[None]:
        """A context that is active while a config is composed."""

    @abstractmethod
    def check(self, config_name: str | None, composed: Composed, num_overrides: int) -> None:
        """Raises a `ConfigError` if a composed config must not be used."""

    def load_configuration(self, *arguments: Any, **options: Any) -> Composed:
        """Composes a config.

        Raises:
            ConfigError: If it could do harm.
        """
        composed = super().load_configuration(*arguments, **options)
        require_checked(composed)
        return composed

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> Composed:
        """Every composition ends here, whichever public method of Hydra started it."""
        self.check_overrides(config_name, overrides)
        with self.limits(), _options_by_name.replaced():
            try:
                composed = self._from_base(config_name, overrides, run_mode)
                if composed is None:
                    composed = super()._load_configuration_impl(
                        config_name, overrides, run_mode, from_shell, validate_sweep_overrides
                    )
            except HydraException:
                composed = self._with_a_choice(config_name, overrides) if run_mode == RunMode.MULTIRUN else None
                if composed is None:
                    raise
        self.check(config_name, composed, len(overrides))
        mark_checked(composed)
        return composed

    def _with_a_choice(self, config_name: str | None, overrides: list[str]) -> Composed | None:
        """The config of a sweep, with the first option of each swept group; None if it can't be composed either.

        Hydra leaves swept groups out, so a key that only their options have is unknown to it.
        """
        parsed = OverridesParser.create().parse_overrides(overrides)
        chosen = [self._first_choice(each) or text for each, text in zip(parsed, overrides, strict=True)]
        if chosen == overrides:
            return None
        try:
            composed = super()._load_configuration_impl(config_name, chosen, RunMode.MULTIRUN)
        except HydraException:
            return None
        _record_overrides(composed, parsed)
        return composed

    def _first_choice(self, override: Override) -> str | None:
        if override.is_hydra_override() or not override.is_choice_sweep():
            return None
        if not self.repository.group_exists(override.key_or_group):
            return None
        key = (override.input_line or "").partition("=")[0]
        return next((f"{key}={each}" for each in override.sweep_string_iterator()), None)

    def _from_base(self, config_name: str | None, overrides: Sequence[str], run_mode: RunMode) -> Composed | None:
        """The config that Hydra would compose, made from a remembered one; None if Hydra has to do it."""
        if config_name is None or not _is_packaged(self.repository):
            return None
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        # The config of a sweep has nothing of what is swept.
        used = [each for each in parsed if not (each.is_sweep_override() and run_mode == RunMode.MULTIRUN)]
        own = [each for each in parsed if each.is_hydra_override()]
        if any(each.is_sweep_override() for each in (*used, *own)):
            return None
        if any(each.package or _changes_hydra(each) for each in parsed):
            return None
        self._process_config_searchpath(config_name, parsed, self.repository)
        choices = [each for each in used if self.repository.group_exists(each.key_or_group)]
        composed = self._base(config_name, tuple(each.input_line or "" for each in choices), run_mode)
        if composed is None:
            return None
        self._apply_overrides_to_config([each for each in used if each not in choices], composed)
        composed.hydra.runtime.cwd = os.getcwd()
        _record_overrides(composed, parsed)
        composed.hydra.overrides.hydra = [each.input_line for each in own]
        return composed

    def _base(self, config_name: str, choices: tuple[str, ...], run_mode: RunMode) -> Composed | None:
        """A copy of the config that options of groups make, before any value is set."""
        places = ((each.provider, each.path) for each in self.config_search_path.get_path())
        key = (*places, config_name, choices, run_mode)
        if key not in self._bases or any(map(_has_changed, self._bases[key][0])):
            self._stamps = None
            composed = super()._load_configuration_impl(config_name, list(choices), run_mode)
            if self._stamps is None:
                return None
            if len(self._bases) >= MOST_BASES:
                self._bases.clear()
            self._bases[key] = self._stamps, Frozen(composed)
        return self._bases[key][1].copy()

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> Composed:
        self.check_parts([_part(default, repo) for default in defaults])
        self._stamps = _stamps(defaults, repo)
        return super()._compose_config_from_defaults_list(defaults, repo)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        self.check_overrides(config_name, overrides)
        return super()._parse_overrides_and_create_caching_repo(config_name, overrides)

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: IConfigRepository
    ) -> None:
        """Ignores the search path of a config, which could import modules by name."""
        primary = repo.load_config(config_name) if config_name is not None else None
        self.check_parsed(parsed_overrides, primary.config if primary is not None else None)

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The options of a group. Hydra's own method first copies every source, in case one was added."""
        return self.repository.get_group_options(group_name, results_filter)


INDEPENDENT = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra/launcher", "hydra/sweeper")
"""The keys and groups of Hydra that are like those of the run: nothing else in a config depends on them."""


def _changes_hydra(override: Override) -> bool:
    """Whether an override may change how Hydra itself composes."""
    return bool(re.match(r"hydra\b", override.key_or_group)) and override.key_or_group not in INDEPENDENT


class _Replacement(ABC):
    """Something global of Hydra or OmegaConf that is replaced within a context."""

    def __init__(self) -> None:
        self._lock, self._depth = threading.Lock(), 0

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Replaces it within the context; the last context to exit restores it."""
        with self._lock:
            if not self._depth:
                self._replace()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if not self._depth:
                    self._restore()

    @abstractmethod
    def _replace(self) -> None: ...

    @abstractmethod
    def _restore(self) -> None: ...


class _OptionsByName(_Replacement):
    """Spares Hydra a fifth of a composition: the options that a defaults list may refer to as `${group}`.

    Hydra collects them for every file, also if its defaults list refers to none, in which case nothing reads them.
    """

    _collect = staticmethod(defaults_list._create_interpolation_map)

    def _replace(self) -> None:
        defaults_list._create_interpolation_map = self._collect_if_needed  # type: ignore[assignment]

    def _restore(self) -> None:
        defaults_list._create_interpolation_map = self._collect

    def _collect_if_needed(self, overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig:
        needed = any(each.is_interpolation() for each in defaults)
        return self._collect(overrides, defaults, self_added) if needed else DictConfig({})


_options_by_name = _OptionsByName()


def _is_packaged(repository: ConfigRepository) -> bool:
    """Whether all files come from packages, and so are the same ones each time."""
    return not any(isinstance(source, FileSource) for source in repository.sources)


def _part(default: ResultDefault, repo: IConfigRepository) -> Part:
    assert default.config_path is not None
    loaded = repo.load_config(config_path=default.config_path)
    assert loaded is not None
    package = loaded.header["package"] if default.package is None else default.package
    return Part(default.config_path, default.parent or "", package or "", loaded.config)


def _stamps(defaults: Sequence[ResultDefault], repo: IConfigRepository) -> tuple[str, ...] | None:
    """The stamps of all files of a config; None if one is neither the package's nor Hydra's own."""
    stamps = []
    for default in defaults:
        assert default.config_path is not None
        loaded = repo.load_config(config_path=default.config_path)
        assert loaded is not None
        if stamp := loaded.header.get(STAMP):
            stamps.append(stamp)
        elif not (loaded.path == "structured://" and default.config_path.startswith("hydra/")):
            return None
    return tuple(stamps)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size} {path}"


def _has_changed(stamp: str) -> bool:
    path = Path(stamp.split(" ", 2)[2])
    return not path.exists() or _stamp(path) != stamp


class _Repository(ConfigRepository):
    """Hydra's view of all config folders, restricted to paths that stay within them."""

    def __init__(
        self,
        search_path: ConfigSearchPath,
        open_folder: Callable[[str, str], ConfigSource],
        can_be_found: Callable[[str], bool],
    ) -> None:
        self._open_folder, self._can_be_found = open_folder, can_be_found
        super().__init__(search_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.sources[-1:] = [EntryDefaults(), StructuredConfigSource("schema", "structured://")]  # must be last
        for number, source in enumerate(self.sources):
            if source.scheme() == FileConfigSource.scheme():  # isinstance fails: Hydra imports the class twice
                self.sources[number] = self._open_folder(source.provider, source.full_path())
            elif source.scheme() == PackagedFiles.scheme():
                self.sources[number] = PackagedFiles(source.provider, source.full_path())

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> ConfigSource | None:
        if not self._can_be_found(config_path):
            return None
        source = super()._find_object_source(config_path, object_type)
        if source is not None and source.provider == PLUGIN and object_type == ObjectType.CONFIG:
            self._check_only_one_has(config_path)
        return source

    def _check_only_one_has(self, config_path: str) -> None:
        """Raises a `ConfigError` if a plugin's config would silently take the place of another's, or of our own."""
        same = [each for each in self.sources if each.provider in (PLUGIN, "main") and each.is_config(config_path)]
        places = {_file_of(each, config_path): each.path for each in same}
        if len(places) > 1:
            name, got = config_path.removesuffix(".yaml"), " and ".join(places.values())
            advice = "Rename the plugin's." if same[-1].provider == "main" else "Rename one, or use one of the two."
            raise ConfigError([f"{name} must come from one place, got {got}. {advice}"])

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        return super().get_group_options(group_name, results_filter) if self._can_be_found(group_name) else []


def _file_of(source: ConfigSource, config_path: str) -> str:
    """The file of a config: a plugin file and an entry point may name the same folder."""
    name = source._normalize_file_name(config_path)
    is_package = source.scheme() == PackagedFiles.scheme()
    return os.path.realpath(str(resources.files(source.path) / name) if is_package else Path(source.path, name))


FOUNDATIONS = {
    "config": "Rename it, and add --config-name=NAME to begin with it.",
    "hydra/config": "Rename or remove it.",
    "hydra/launcher/basic": "Rename it, and choose it with hydra/launcher=NAME.",
    "hydra/sweeper/basic": "Rename it, and choose it with hydra/sweeper=NAME.",
}
"""The configs that all others build on, with what to do with a user's own file that would take the place of one."""


class PackagedFiles(ImportlibResourcesConfigSource):
    """Hydra's config source for a package. A process parses each file once: that takes a quarter of a composition."""

    _parsed: ClassVar[dict[tuple[object, ...], bytes]] = {}

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file; that of a plugin can't replace one that all others build on."""
        is_hidden = self.provider == PLUGIN and config_path.removesuffix(".yaml") in FOUNDATIONS
        found: bool = not is_hidden and super().is_config(config_path)
        return found

    def _read_config(self, res: Any) -> ConfigResult:
        if not isinstance(res, Path):  # within an archive
            return super()._read_config(res)
        stamp = _stamp(res)
        key = (self.provider, stamp)
        if key not in self._parsed:
            parsed = super()._read_config(res)
            parsed.header[STAMP] = stamp
            self._parsed[key] = pickle.dumps(parsed)
        result: ConfigResult = pickle.loads(self._parsed[key])  # a copy, since Hydra changes what it gets
        return result


class StructuredConfigSource(_HydrasStore):
    """Hydra's own configs, without those of its launcher and sweeper plugins. Hydra requires the name of the class."""

    def is_config(self, config_path: str) -> bool:
        """Whether there is a config of that path, and it belongs to no plugin."""
        return not _is_of_plugin(config_path.removesuffix(".yaml")) and super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        """A config that belongs to no plugin; Hydra would merge one with the file of the same name."""
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        return super().load_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names in a group that belong to no plugin."""
        names = super().list(config_path, results_filter)
        return [name for name in names if not _is_of_plugin(f"{config_path.strip('/')}/{name}")]


def _is_of_plugin(config_path: str) -> bool:
    group, _, name = config_path.strip("/").rpartition("/")
    return group in ("hydra/launcher", "hydra/sweeper") and name != "basic"


class FileSource(FileConfigSource):
    """Hydra's config source for a folder of files, which a subclass reads and parses."""

    @abstractmethod
    def read(self, path: Path) -> str:
        """The content of a file."""

    @abstractmethod
    def parse(self, name: str, text: str) -> dict[Any, Any]:
        """The mapping in the content of a file."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads a file, and reads it only once."""
        name = self._normalize_file_name(config_path)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {name}")
        text = self.read(Path(self.path, name))
        return ConfigResult(
            config=OmegaConf.create(self.parse(name, text)),
            path=self.full_path(),
            provider=self.provider,
            header=ConfigSource._get_header_dict(text[:512]),
        )


def search_path_of(package: str, own_folder: str | None, of_plugins: Sequence[str] = ()) -> ConfigSearchPath:
    """The search path: the user's own folder if there is one, then those of plugins, then a package.

    Hydra itself searches the package first, and ignores a user's own file that has the name of a packaged one.

    Args:
        package: The package with the configs of this project.
        own_folder: The folder given by --config-dir.
        of_plugins: Folders and packages of plugins, as file://… and pkg://….
    """
    search_path: ConfigSearchPath = create_config_search_path(f"pkg://{package}")
    anchor = SearchPathQuery(provider="main")
    if own_folder is not None:
        search_path.prepend(provider="command-line", path=f"file://{own_folder}", anchor=anchor)
    for path in of_plugins:
        search_path.prepend(provider=PLUGIN, path=path, anchor=anchor)
    return search_path


@contextmanager
def application(loader: Loader) -> Iterator[Application]:
    """Hydra's application around a loader, as `hydra.main` sets it up; Hydra's globals are restored at exit."""
    base, jobs = version.VersionBase.instance(), GlobalHydra.instance()
    with _ONE_AT_A_TIME, hydra_values(None):
        before = jobs.hydra, base.version_base
        try:
            jobs.clear()
            version.setbase("1.3")
            jobs.initialize(started := Application("run", loader))
            yield started
        finally:
            jobs.hydra, base.version_base = before


class Application(Hydra):
    """Hydra's application, which answers only questions about checked configs."""

    is_sweep = False
    """Whether the questions are about a sweep; Hydra itself answers none about one."""

    def compose_config(self, *arguments: Any, **options: Any) -> Composed:
        """Composes a config.

        Raises:
            ConfigError: If the guard has not checked it.
        """
        mode = {"run_mode": RunMode.MULTIRUN} if self.is_sweep else {}
        composed: Composed = super().compose_config(*arguments, **{**options, **mode})
        require_checked(composed)
        return composed


@contextmanager
def hydra_values(composed: Composed | None) -> Iterator[None]:
    """Lets `${hydra:…}` resolve outside Hydra's own jobs."""
    with _ONE_AT_A_TIME:
        instance = HydraConfig.instance()
        before = instance.cfg
        if composed is not None:
            instance.cfg = composed  # type: ignore[assignment]
        try:
            yield
        finally:
            instance.cfg = before


def arguments_parser() -> argparse.ArgumentParser:
    """Hydra's command-line parser."""
    parser: argparse.ArgumentParser = get_args_parser()
    return parser


# Overrides


def value_of(override: Override) -> Any:
    """The parsed value of an override; the values of a sweep are not listed."""
    return override._value


def split_grid(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job of a sweep, in the order in which Hydra's own sweeper numbers them."""
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def set_job(composed: Composed, number: int, overrides: Sequence[Override]) -> None:
    """Records in a config which job of a sweep it is, as Hydra does."""
    with open_dict(composed):
        composed.hydra.job.num = composed.hydra.job.id = number
    _record_overrides(composed, overrides)


def _record_overrides(composed: Composed, overrides: Sequence[Override]) -> None:
    """Records those overrides that are not Hydra's own."""
    overrides = [override for override in overrides if not override.is_hydra_override()]
    composed.hydra.overrides.task = [override.input_line for override in overrides]
    names = composed.hydra.job.config.override_dirname
    composed.hydra.job.override_dirname = override_dirname(overrides, names)


def override_dirname(overrides: Sequence[Override], names: Mapping[str, Any]) -> str:
    """The overrides as one name; `names` is the section `hydra.job.config.override_dirname`."""
    dirname: str = get_overrides_dirname(list(overrides), **names)
    return dirname


def set_single_run(composed: Composed) -> None:
    """Records in a config that it is a single run, as Hydra does."""
    if composed.hydra.mode is None:
        with read_write(composed):
            composed.hydra.mode = RunMode.RUN
            composed.hydra.overrides.hydra.append("hydra.mode=RUN")


# Nodes and interpolations


def child_of(node: DictConfig, key: str) -> Any:
    """The value of a key, with interpolations unresolved."""
    return node._get_node(key)


def missing_keys(node: DictConfig) -> set[str]:
    """The keys within a node, as they are typed, whose value has to be given: `???`."""
    found: set[str] = OmegaConf.missing_keys(node)
    return found


def content_of(value: object) -> object:
    """The content of a node; any other value is returned as it is."""
    return value._value() if isinstance(value, Node) else value


def select(parent: Container, key: str, *default: object) -> Any:
    """The value that OmegaConf's own `oc.select` finds."""
    return select_value(parent, key, absolute_key=True, default=default[0] if default else _DEFAULT_MARKER_)


HYDRAS_RESOLVERS = ("now", "hydra", "python_version")


class Interpolations(_Replacement):
    """Replaces OmegaConf's global resolvers, Hydra's own among them, and its method that resolves interpolations.

    Threads and contexts in which this is not active still get OmegaConf's own.

    Args:
        resolvers: The replacements, by the name of the resolver.
        is_active: Whether the replacements are active in the current context.
        on_value: Called with each value that an interpolation resolves to in such a context.
    """

    def __init__(
        self,
        resolvers: Mapping[str, Callable[..., Any]],
        is_active: Callable[[], bool],
        on_value: Callable[[Any], None],
    ) -> None:
        super().__init__()
        self._resolvers, self._is_active, self._on_value = resolvers, is_active, on_value
        self._before: dict[str, Any] = {}
        self._original = Container.resolve_parse_tree

    def _replace(self) -> None:
        known = BaseContainer._resolvers
        self._before = {name: known.get(name) for name in (*self._resolvers, *HYDRAS_RESOLVERS)}
        setup_globals()
        for name, function in self._resolvers.items():
            OmegaConf.register_new_resolver(name, function, replace=True)
            known[name] = _Chosen(known[name], self._before[name], self._is_active)
        original = self._original = Container.resolve_parse_tree

        def resolve_parse_tree(container: Container, *arguments: Any, **options: Any) -> Any:
            value = original(container, *arguments, **options)
            if self._is_active():
                self._on_value(value)
            return value

        Container.resolve_parse_tree = resolve_parse_tree  # type: ignore[method-assign, assignment]

    def _restore(self) -> None:
        Container.resolve_parse_tree = self._original  # type: ignore[method-assign]
        for name, resolver in self._before.items():
            BaseContainer._resolvers.pop(name, None)
            if resolver is not None:
                BaseContainer._resolvers[name] = resolver


@dataclass(frozen=True)
class _Chosen:
    """A resolver: ours where it is active, OmegaConf's elsewhere. A class, because launcher plugins pickle it."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    is_active: Callable[[], bool]

    def __call__(self, *arguments: Any) -> Any:
        return (self.ours if self.is_active() else self.theirs)(*arguments)


# Files


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes YAML as OmegaConf does; uses PyYAML's C version if available, which is ten times as fast."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


def as_hydra_yaml(values: Any) -> str:
    """Plain values as YAML, as Hydra would write it into .hydra/.

    Raises:
        ConfigError: If a string can't be written as UTF-8.
    """
    return dump(values, _Dumper)


# Launchers


def make_launcher(loader: ConfigLoader, composed: Composed, task: Callable[[DictConfig], Any]) -> Launcher:
    """The launcher plugin that a config names; it calls `task` with each job's config."""
    HydraConfig.instance().set_config(composed)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=composed)


def copy_of(composed: Composed, *, without: str | None = None) -> Composed:
    """An independent copy, of all but one key."""
    content = composed.__dict__["_content"]
    # The node `hydra` is as large as all others together, so it is not copied first and removed then.
    composed.__dict__["_content"] = {key: node for key, node in content.items() if key != without}
    try:
        return Frozen(composed).copy()
    finally:
        composed.__dict__["_content"] = content
