"""From the words of a command line to composed, validated configs; Hydra's complaints in our form.

Hydra stops at the first mistake and says so in its own way. Here a failed composition is looked into once more,
override by override, so that every mistake is named with what is known and what is nearest.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hydra import initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from era_cnn.config import RunConfig, parse
from era_cnn.errors import ConfigError, did_you_mean, one_of, problem

CONFIG_MODULE = "era_cnn.conf"

COMMANDS = "models, describe, data"
"""The verbs, for the message about a first word that is none."""


@dataclass(frozen=True)
class Words:
    """What was typed, as far as it decides the config."""

    overrides: list[str] = field(default_factory=list)
    config_name: str = "config"
    config_dir: str | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Words:
        """Takes them from the arguments that Hydra's own parser read.

        Raises:
            ConfigError: If they would compose something else than this package's groups.
        """
        if args.config_path is not None:
            rule = "not be given: the groups are era_cnn's"
            raise ConfigError([problem("--config-path", rule, args.config_path, "Add yours with --config-dir.")])
        return cls(list(args.overrides), args.config_name or "config", args.config_dir)

    def with_overrides(self, overrides: Sequence[str]) -> Words:
        """The same words with other overrides."""
        return Words(list(overrides), self.config_name, self.config_dir)


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """Reads a command line with Hydra's own parser, which ends the command with code 2 if a flag is wrong."""
    parser: argparse.ArgumentParser = get_args_parser()
    parser.prog = "era-cnn"
    return parser.parse_args(words)


def compose(words: Words, mode: RunMode = RunMode.RUN) -> DictConfig:
    """Composes a config, the `hydra` node included.

    Raises:
        ConfigError: If Hydra can't; with every override that is at fault.
    """
    with _loader(words) as loader, explained(words, mode):
        return _load(loader, words, words.overrides, mode)


def validated(composed: DictConfig) -> RunConfig:
    """The typed config of a composed one.

    Raises:
        ConfigError: With every problem; if layers were changed, with theirs as well, so that one answer has all.
    """
    with _hydra_values(composed):
        values = without_hydra(composed)
        try:
            return parse(values)
        except ConfigError as error:
            overrides: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
            if not any("model.layers" in override for override in overrides):
                raise
            from era_cnn.models.build import (
                layer_problems,
            )  # imports torch, which the other errors do without

            plain: Any = OmegaConf.to_container(values, resolve=True)
            layers = plain["model"].get("layers") if isinstance(plain.get("model"), dict) else None
            if not isinstance(layers, dict) or not all(isinstance(spec, dict) for spec in layers.values()):
                raise
            raise ConfigError([*error.problems, *layer_problems(layers, {})]) from error


def without_hydra(composed: DictConfig) -> DictConfig:
    """A config as a job sees it."""
    values = copy.copy(composed)
    OmegaConf.set_struct(values, False)
    values.pop("hydra")
    OmegaConf.set_struct(values, True)
    return values


def output_dir(composed: DictConfig, key: str) -> str:
    """The value of `hydra.run.dir` or another of Hydra's own keys, resolved."""
    with _hydra_values(composed):
        return str(OmegaConf.select(composed, key))


def sweep_jobs(words: Words, composed: DictConfig) -> list[RunConfig]:
    """The config of each job of a sweep, in the order of the jobs.

    Groups are composed once for each combination of theirs; plain values are set on top, which is a hundred times
    faster than composing each job.

    Args:
        words: What was typed.
        composed: What was composed of it; it may itself hold what is swept, in `hydra.sweeper.params`.

    Raises:
        ConfigError: With every problem of any job.
    """
    jobs: list[RunConfig] = []
    problems: dict[str, None] = {}  # an ordered set: many jobs share a problem
    bases: dict[tuple[str, ...], DictConfig] = {}
    presets = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
    with _loader(words) as loader, explained(words, RunMode.MULTIRUN):
        parsed = OverridesParser.create(loader).parse_overrides([*presets, *words.overrides])
        own = [override.input_line or "" for override in parsed if override.is_hydra_override()]
        task = [override for override in parsed if not override.is_hydra_override()]
        plain = {override.get_key_element() for override in task if _is_plain(loader, override)}
        for override_list in itertools.chain.from_iterable(BasicSweeper.split_arguments(task, None)):
            keys = [override.partition("=")[0] for override in override_list]
            base = tuple(text for key, text in zip(keys, override_list, strict=True) if key not in plain)
            if base not in bases:
                bases[base] = _load(loader, words, [*own, *base], RunMode.RUN)
            job = copy.deepcopy(bases[base])
            for key, text in zip(keys, override_list, strict=True):
                if key in plain:
                    OmegaConf.update(job, key, OverridesParser.create().parse_override(text).value())
                    job.hydra.overrides.task.append(text)
            try:
                jobs.append(validated(job))
            except ConfigError as error:
                problems.update(dict.fromkeys(error.problems))
    if problems:
        raise ConfigError(list(problems))
    if not jobs:
        raise ConfigError(["A sweep must have at least one job, got none. Give each swept key a value."])
    return jobs


def experiments(words: Words) -> list[str]:
    """The names of all experiments that can be chosen."""
    with _loader(words) as loader:
        return sorted(_options(loader, "experiment"))


@contextmanager
def explained(words: Words, mode: RunMode = RunMode.RUN) -> Iterator[None]:
    """Turns what Hydra raises within into a `ConfigError` that names every override at fault."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # Hydra also lets ValueError, TypeError and others out, all about the words
        with _loader(words) as loader:
            problems = list(_problems(loader, words, mode))
        if not problems:
            cause = error.__cause__ if not str(error) and error.__cause__ else error
            reason = " ".join(str(cause).split())
            problems = [f"The config must compose, got: {reason}. Look at it with: era-cnn --cfg job"]
        raise ConfigError(problems) from error


@contextmanager
def _loader(words: Words) -> Iterator[ConfigLoader]:
    """Hydra's config loader over conf/ and, if given, a folder of the user's own."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        if before is not None:
            GlobalHydra.instance().initialize(before)


def _load(loader: ConfigLoader, words: Words, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    return loader.load_configuration(
        config_name=words.config_name, overrides=[*_search_path(words), *overrides], run_mode=mode
    )


def _search_path(words: Words) -> list[str]:
    if words.config_dir is None:
        return []
    folder = os.path.abspath(words.config_dir)
    if not os.path.isdir(folder):
        raise ConfigError(["--config-dir " + problem("", "be a folder", words.config_dir, "Create it.").lstrip()])
    return [f"hydra.searchpath=['{quote('file://' + folder)}']"]


def quote(text: str) -> str:
    """What stands between single quotes in an override so that it means `text`, whatever characters it has."""
    # A backslash means itself unless a quote follows; at the end, the closing quote does.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return escaped.replace("${", "\\${")


@contextmanager
def _hydra_values(composed: DictConfig) -> Iterator[None]:
    """Lets `${hydra:…}` resolve outside of a job."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = composed  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _options(loader: ConfigLoader, group: str) -> list[str]:
    return list(loader.get_group_options(group, ObjectType.CONFIG))


def _is_plain(loader: ConfigLoader, override: Override) -> bool:
    """Whether an override sets the value of an existing key: no group, nothing added or deleted."""
    key = override.key_or_group
    return not (override.is_add() or override.is_delete() or override.package or _options(loader, key))


def _problems(loader: ConfigLoader, words: Words, mode: RunMode) -> Iterator[str]:
    """Each override that can't be composed, and why."""
    parser = OverridesParser.create(loader)
    parsed = []
    for text in words.overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            reason = str(error).splitlines()[0].rstrip(".")
            what = "be key=value" if "=" in text or text.startswith("~") else f"be key=value or one of {COMMANDS}"
            yield f"{text} must {what}, got: {reason}. See era-cnn --help."
    sound: list[str] = []  # the overrides that choose groups rightly: they decide which keys there are
    others: list[Override] = []
    for override in parsed:
        options = _options(loader, override.key_or_group)
        if options:
            found = list(_group_problems(override, options))
            yield from found
            if not found and not override.is_sweep_override():
                sound.append(override.input_line or "")
        elif not override.is_hydra_override():
            others.append(override)
        if mode == RunMode.RUN and override.is_sweep_override():
            got = (override.input_line or "").partition("=")[2]
            yield f"{override.key_or_group} must have one value in a single run, got {got}. To sweep over it, add -m."
    try:
        composed = _load(loader, words, sound, RunMode.MULTIRUN)
    except (HydraException, OmegaConfBaseException):
        return
    groups = loader.list_groups("")
    for override in others:
        yield from _key_problems(override, composed, groups)


def _group_problems(override: Override, options: Sequence[str]) -> Iterator[str]:
    if override.is_delete():
        return
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        if value not in options and not isinstance(value, list):  # a list chooses several; Hydra checks those
            advice = did_you_mean(str(value), options, f"Choose one: {override.key_or_group}={options[0]}")
            yield problem(override.key_or_group, one_of(options), value, advice)


def _key_problems(override: Override, composed: DictConfig, groups: Sequence[str]) -> Iterator[str]:
    key = override.key_or_group
    if override.is_add() or OmegaConf.select(composed, key, default=_ABSENT) is not _ABSENT:
        return
    known = [*_keys(without_hydra(composed)), *(group for group in groups if group != "hydra")]
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(composed, parent) if parent else composed
    siblings = [str(child) for child in node] if isinstance(node, DictConfig) else []
    near = did_you_mean(name, siblings, "")
    prefix = f"Did you mean {parent}." if parent else "Did you mean "
    advice = near.replace("Did you mean ", prefix) or did_you_mean(key, known, "See all keys: era-cnn --cfg job")
    if parent.startswith("model.layers.") and siblings:
        advice = f"To set a field that the layer does not state, write +{key}=…"
    got = "a deletion" if override.is_delete() else (override.input_line or "").partition("=")[2]
    yield f"{key} must be a key of the config, got {got}. {advice}"


_ABSENT = object()


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            yield from _keys(child, f"{prefix}{key}.")
