"""Composes and validates configs."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from era_cnn.compose.complaints import explained
from era_cnn.compose.hydra_door import (
    Composed,
    as_hydra_yaml,
    copy_of,
    hydra_values,
    missing_keys,
    require_checked,
    set_single_run,
)
from era_cnn.compose.interpolation import limited, unresolved
from era_cnn.compose.words import Words, load, loader_of, options_of
from era_cnn.compose.yamlfiles import with_files
from era_cnn.config.choices import DataSection
from era_cnn.config.network import ModelConfig
from era_cnn.config.parsing import parse, parse_data
from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError, problem
from era_cnn.paths import typed_path


def compose(words: Words, mode: RunMode = RunMode.RUN) -> Composed:
    """Composes a config, including the `hydra` node.

    Raises:
        ConfigError: If Hydra can't compose it; lists every wrong override.
    """
    check = validated if mode == RunMode.RUN else None
    with loader_of(words) as loader, explained(words, mode, check):
        composed = load(loader, words, words.overrides, mode)
    require_checked(composed)
    return composed


def compose_sweep(words: Words) -> Composed:
    """Composes the config of a sweep, without the values that are swept over.

    Raises:
        ConfigError: If Hydra can't compose it; lists every wrong override.
    """
    return compose(words, RunMode.MULTIRUN)


def compose_typed(words: Words, args: argparse.Namespace) -> tuple[Composed, bool]:
    """Composes the config of a command line; also returns whether it is a sweep.

    Raises:
        ConfigError: If Hydra can't compose it; lists every wrong override.
    """
    if args.package or args.resolve:
        raise ConfigError(["--package and --resolve must be used with --cfg, got no --cfg. Add --cfg job."])
    if args.run and args.multirun:
        raise ConfigError(["--run must be used without --multirun, got both. Remove one."])
    composed = compose(words, RunMode.MULTIRUN if args.multirun else RunMode.RUN)
    is_sweep = bool(args.multirun or composed.hydra.mode == RunMode.MULTIRUN)
    if is_sweep and (typed := _typed(words, ("hydra.run",))):
        raise ConfigError([f"{key} must be used with a single run, got a sweep. Set hydra.sweep.dir." for key in typed])
    return composed, is_sweep


def _typed(words: Words, sections: tuple[str, ...]) -> list[str]:
    """The typed keys that belong to any of these sections."""
    keys = [text.lstrip("+~").partition("=")[0] for text in words.overrides]
    return [key for key in keys if f"{key.replace('/', '.')}.".startswith(tuple(f"{each}." for each in sections))]


def validated(composed: Composed) -> RunConfig:
    """The typed config of a composed one.

    Raises:
        ConfigError: With every problem, including those of the layers if the user changed them.
    """
    return validated_values(composed, without_hydra(composed))


def validated_values(composed: Composed, values: Composed) -> RunConfig:
    """As `validated`, for a config whose values without the `hydra` node were already separated."""
    require_checked(composed)
    require_checked(values)
    with resolving(composed), blaming_deletions(composed):
        plain_values = resolved_values(values)
        problems = list(expand_root(plain_values))
        try:
            config = parse(plain_values)
        except ConfigError as error:
            more = list(_layer_problems(values)) if _has_own_layers(composed) else []
            raise ConfigError([*with_files(error.problems, composed), *problems, *more]) from error
    if problems:
        raise ConfigError(problems)
    return config


@contextmanager
def blaming_deletions(composed: Composed) -> Iterator[None]:
    """Names a typed deletion as the cause of the problems that it causes, such as a value that refers to its key."""
    try:
        yield
    except ConfigError as error:
        task: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
        deleted = [word[1:].partition("=")[0].replace("/", ".") for word in task if word.startswith("~")]
        problems = [_blamed(each, deleted) for each in error.problems]
        raise ConfigError(list(dict.fromkeys(problems))) from error


def _blamed(message: str, deleted: Sequence[str]) -> str:
    for key in deleted:
        is_missing = re.match(rf"{re.escape(key)}(\.\S+)? must be given, got nothing", message)
        if is_missing or re.search(rf"Interpolation key '{re.escape(key)}[.']", message):
            advice = f"Leave it out, or give another value: {key}=…"
            return f"~{key} must not remove what a run needs, got a deletion. {advice}"
    return message


def keys_to_give(composed: Composed) -> list[str]:
    """The keys of the data set that have no value, `???`, since only the user knows it."""
    return sorted(missing_keys(composed.data))


def validated_data(composed: Composed) -> DataSection:
    """The section `data` of a composed config, whatever else is in it.

    Raises:
        ConfigError: If it is wrong; lists every problem.
    """
    with resolving(composed), blaming_deletions(composed):
        plain_values = resolved_values(without_hydra(composed))
        if problems := list(expand_root(plain_values)):
            raise ConfigError(problems)
        return parse_data(plain_values["data"])


def expand_root(values: Any) -> Iterator[str]:
    """Expands a leading ~ in `data.root`; gives the problem if it is no path."""
    data = values.get("data") if isinstance(values, dict) else None
    if isinstance(data, dict) and isinstance(root := data.get("root"), str) and root:
        try:
            data["root"] = typed_path("data.root", root)
        except ConfigError as error:
            yield from (f"{each} ERA_CNN_DATA sets it if it is not given." for each in error.problems)


def resolved_values(values: Composed) -> Any:
    """A composed config as plain values, its interpolations resolved.

    Raises:
        ConfigError: If one can't be resolved, or a value is missing.
    """
    try:
        with limited():
            plain_values = OmegaConf.to_container(values, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:  # RecursionError: values refer to each other in a circle
        raise unresolved(error, "the config") from error
    if isinstance(plain_values, dict):
        plain_values.pop("sweep", None)  # options of the sweep, not of the run
    return plain_values


def _has_own_layers(composed: Composed) -> bool:
    """Whether layers may differ from those in conf/, which are tested: only then is torch imported to check them."""
    overrides: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
    sources = [source.provider for source in composed.hydra.runtime.config_sources]
    return not {"command-line", "plugin"}.isdisjoint(sources) or any(
        override.lstrip("+~").startswith("model.") for override in overrides
    )


def _layer_problems(values: Composed) -> Iterator[str]:
    from era_cnn.models.build import layer_problems

    try:
        model = ModelConfig.model_validate(OmegaConf.to_container(values, resolve=True)["model"])  # type: ignore[index, call-overload]
    except (ValidationError, KeyError, TypeError, OmegaConfBaseException, RecursionError):
        return  # reported already
    yield from layer_problems(model.layers, model.inherited())


def without_hydra(composed: Composed) -> Composed:
    """A config without the `hydra` node, as a job sees it."""
    return copy_of(composed, without="hydra")


def resolved(composed: Composed, key: str) -> str:
    """The path that `hydra.run.dir`, `hydra.sweep.dir` or `hydra.sweep.subdir` resolves to.

    Raises:
        ConfigError: If it can't be resolved, is no path, or the folder of a job would be outside that of its sweep.
    """
    require_checked(composed)
    with resolving(composed), explained(Words()):
        path = str(OmegaConf.select(composed, key, throw_on_missing=True))
    return checked_path(key, path)


def checked_path(key: str, path: str) -> str:
    """A path that a key resolves to.

    Raises:
        ConfigError: If it is no path, or the folder of a job would be outside that of its sweep.
    """
    path = typed_path(key, path)
    if key != "hydra.sweep.subdir":
        return path
    path = os.path.normpath(path)
    if path == "." or os.path.isabs(path) or path.split(os.sep)[0] == "..":
        rule = "be a folder within that of the sweep"
        raise ConfigError([problem(key, rule, path, "Choose the folder of the sweep by hydra.sweep.dir=…")])
    return path


def plain(composed: Composed) -> dict[str, Any]:
    """A composed config as plain values, with interpolations unresolved.

    Raises:
        ConfigError: If it did not pass the guard.
    """
    require_checked(composed)
    values: Any = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    return dict(values)


def as_yaml(composed: Composed) -> str:
    """A composed config as Hydra would write it."""
    return as_hydra_yaml(plain(composed))


@contextmanager
def resolving(composed: Composed) -> Iterator[None]:
    """Lets interpolations, including `${hydra:…}`, resolve within their limits outside Hydra's own jobs."""
    with hydra_values(composed), limited():
        yield


@dataclass(frozen=True)
class Planned:
    """A run before it begins: a single run, which has no number, or a job of a sweep."""

    number: int | None
    overrides: tuple[str, ...]
    config: RunConfig
    folder: str
    """The wanted folder; for a job, relative to that of its sweep."""

    values: Callable[[], dict[str, Any]]
    """Gives the config before it was typed, as `plain`: those of thousands of jobs would not fit in memory."""

    def __str__(self) -> str:
        return f"job {self.number} ({', '.join(self.overrides)})"

    def hydra_files(self, path: Path, sweep_dir: Path | None = None) -> dict[str, str]:
        """The files that Hydra would write into `path`/.hydra: maps each file name to the content."""
        values = self.values()
        hydra = values.pop("hydra")
        if hydra["output_subdir"] is None:
            return {}
        hydra["runtime"]["output_dir"] = str(path)
        if sweep_dir is not None:
            hydra["sweep"]["dir"] = str(sweep_dir)
            values.pop("sweep")  # the options of the sweep, not of its jobs
        contents = {"config.yaml": values, "hydra.yaml": {"hydra": hydra}, "overrides.yaml": hydra["overrides"]["task"]}
        return {name: as_hydra_yaml(content) for name, content in contents.items()}

    def verbose_loggers(self) -> tuple[str, ...]:
        """The loggers that `hydra.verbose` sets to DEBUG; the empty name is the root logger."""
        verbose = self.values()["hydra"]["verbose"]
        if isinstance(verbose, bool):
            return ("",) if verbose else ()
        return (verbose,) if isinstance(verbose, str) else tuple(verbose)


def compose_run(words: Words) -> RunConfig:
    """The typed config that a single run would have.

    Raises:
        ConfigError: If it is wrong, or options of a sweep are given; lists every problem.
    """
    composed = compose(words)
    _check_single(words)
    return validated(composed)


def compose_lr_test(words: Words) -> RunConfig:
    """The typed config of a learning-rate test, whose folder no config chooses.

    Raises:
        ConfigError: If it is wrong, or a folder is given; lists every problem.
    """
    advice = "Remove it: a test writes outputs/<date>/<time>_find_lr_<experiment>."
    if typed := _typed(words, ("hydra.run",)):
        raise ConfigError([f"{key} must be used with a run, got find-lr. {advice}" for key in typed])
    return compose_run(words)


def compose_data(words: Words) -> DataSection:
    """The section `data` of the config that a single run would have, whatever else is in it.

    Raises:
        ConfigError: If it is wrong, or options of a sweep are given; lists every problem.
    """
    composed = compose(words)
    _check_single(words)
    return validated_data(composed)


def _check_single(words: Words) -> None:
    """Raises a `ConfigError` for options of a sweep, which a single run would ignore."""
    if typed := _typed(words, ("sweep", "hydra.sweep", "hydra.sweeper", "hydra.launcher")):
        raise ConfigError(
            [f"{key} must be used with a sweep, got a single run. Add -m, or remove it." for key in typed]
        )


def plan_run(words: Words, composed: Composed) -> Planned:
    """Plans a single run.

    Raises:
        ConfigError: If its config is wrong; lists every problem.
    """
    _check_single(words)
    config = validated(composed)
    folder = resolved(composed, "hydra.run.dir")
    set_single_run(composed)
    overrides = tuple(plain(composed)["hydra"]["overrides"]["task"])
    return Planned(None, overrides, config, folder, lambda: plain(composed))


def experiments(words: Words) -> list[str]:
    """The names of all experiments that can be chosen."""
    with loader_of(words) as loader:
        return sorted(options_of(loader, "experiment"))
