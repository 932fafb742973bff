"""From words to composed, validated configs: of one run, or of every job of a sweep."""

from __future__ import annotations

import argparse
import copy
import functools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from era_cnn.compose.complaints import explained, one_for_all_jobs
from era_cnn.compose.guard import check_number_of_jobs, check_value, check_words
from era_cnn.compose.hydra_door import (
    Composed,
    as_hydra_yaml,
    hydra_values,
    require_checked,
    set_job,
    set_single_run,
    split_grid,
)
from era_cnn.compose.interpolation import limited, refusal_in
from era_cnn.compose.words import Words, load, loader_of, options_of
from era_cnn.config.schema import ModelConfig, RunConfig, parse
from era_cnn.errors import ConfigError, problem, shortened


def compose(words: Words, mode: RunMode = RunMode.RUN) -> Composed:
    """Composes a config, the `hydra` node included.

    Raises:
        ConfigError: If Hydra can't; with every override that is at fault.
    """
    with loader_of(words) as loader, explained(words, mode):
        composed = load(loader, words, words.overrides, mode)
    require_checked(composed)
    return composed


def compose_sweep(words: Words) -> Composed:
    """Composes the config of a sweep: the values that are swept are not in it.

    Raises:
        ConfigError: If Hydra can't; with every override that is at fault.
    """
    return compose(words, RunMode.MULTIRUN)


def compose_typed(words: Words, args: argparse.Namespace) -> tuple[Composed, bool]:
    """Composes what a command line asks for; says whether that is a sweep.

    Raises:
        ConfigError: If Hydra can't; with every override that is at fault.
    """
    if args.package or args.resolve:
        raise ConfigError(["--package and --resolve must go with --cfg, got neither run nor question. Add --cfg job."])
    if args.run and args.multirun:
        raise ConfigError(["--run must stand without --multirun, got both. Remove one."])
    composed = compose(words, RunMode.MULTIRUN if args.multirun else RunMode.RUN)
    return composed, bool(args.multirun or composed.hydra.mode == RunMode.MULTIRUN)


def validated(composed: Composed) -> RunConfig:
    """The typed config of a composed one.

    Raises:
        ConfigError: With every problem; if the user changed layers, with theirs as well, so that one answer has all.
    """
    return _validated(composed, without_hydra(composed))


def _validated(composed: Composed, values: Composed) -> RunConfig:
    require_checked(composed)
    require_checked(values)
    with _resolving(composed):
        try:
            return parse(_resolved_values(values))
        except ConfigError as error:
            more = list(_layer_problems(values)) if _has_own_layers(composed) else []
            raise ConfigError([*error.problems, *more]) from error


def _resolved_values(values: Composed) -> Any:
    """A composed config as plain values, its interpolations resolved.

    Raises:
        ConfigError: If one can't be resolved, or a value is missing.
    """
    try:
        with limited():
            plain_values = OmegaConf.to_container(values, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:  # the latter for values that name each other in a circle
        if refused := refusal_in(error):
            raise refused from error
        first_line = str(error).splitlines()[0]
        key = getattr(error, "full_key", None) or "the config"
        raise ConfigError([problem(key, "have a value", first_line, f"Give one: {key}=…")]) from error
    if isinstance(plain_values, dict):
        plain_values.pop("sweep", None)  # options of the sweep, not of the run
    return plain_values


def _has_own_layers(composed: Composed) -> bool:
    """Whether layers may be other than those of conf/, which are tested: only then is torch imported to check them."""
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
        return  # said already
    yield from layer_problems(model.layers, model.inherited())


def without_hydra(composed: Composed) -> Composed:
    """A config as a job sees it."""
    values = copy.copy(composed)
    with open_dict(values):
        values.pop("hydra")
    return values


def resolved(composed: Composed, key: str) -> str:
    """The path that `hydra.run.dir`, `hydra.sweep.dir` or `hydra.sweep.subdir` comes to.

    Raises:
        ConfigError: If it has none, or one that is not where it should be.
    """
    require_checked(composed)
    with _resolving(composed), explained(Words()):
        path = str(OmegaConf.select(composed, key, throw_on_missing=True))
    if not path.strip() or not path.isprintable():
        raise ConfigError([problem(key, "be a path without line breaks and the like", path, "Leave it out.")])
    if key != "hydra.sweep.subdir":
        return path
    path = os.path.normpath(path)
    if path == "." or os.path.isabs(path) or path.split(os.sep)[0] == "..":
        rule = "be a folder within that of the sweep"
        raise ConfigError([problem(key, rule, path, "Choose where the sweep lies by hydra.sweep.dir=…")])
    return path


def plain(composed: Composed) -> dict[str, Any]:
    """A composed config as plain values, interpolations unresolved.

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
def _resolving(composed: Composed) -> Iterator[None]:
    """Lets interpolations resolve within their limits outside of a job of Hydra's, `${hydra:…}` included."""
    with hydra_values(composed), limited():
        yield


@dataclass(frozen=True)
class Planned:
    """A run before it begins: a single one, which has no number, or a job of a sweep."""

    number: int | None
    overrides: tuple[str, ...]
    config: RunConfig
    folder: str
    """Of a job, within that of its sweep."""

    composed: Callable[[], Composed]
    """Composes a job once more, the `hydra` node included: thousands of them would not fit in memory."""

    def __str__(self) -> str:
        return f"job {self.number} ({', '.join(self.overrides)})"

    def hydra_files(self, path: Path, sweep_dir: Path | None = None) -> dict[str, str]:
        """What Hydra would write into the .hydra of this run in the folder `path`: text by name of the file."""
        values = plain(self.composed())
        hydra = values.pop("hydra")
        hydra["runtime"]["output_dir"] = str(path)
        if sweep_dir is not None:
            hydra["sweep"]["dir"] = str(sweep_dir)
            values.pop("sweep")  # it says how many runs are done, not how one is
        contents = {"config.yaml": values, "hydra.yaml": {"hydra": hydra}, "overrides.yaml": hydra["overrides"]["task"]}
        return {name: as_hydra_yaml(content) for name, content in contents.items()}

    def verbose_loggers(self) -> tuple[str, ...]:
        """The loggers that `hydra.verbose` lets say more; that without a name is the root of all."""
        verbose = plain(self.composed())["hydra"]["verbose"]
        if isinstance(verbose, bool):
            return ("",) if verbose else ()
        return (verbose,) if isinstance(verbose, str) else tuple(verbose)


def plan_run(words: Words, composed: Composed) -> Planned:
    """A single run.

    Raises:
        ConfigError: With every problem that its config has.
    """
    keys = [text.lstrip("+~").partition("=")[0] for text in words.overrides]
    if typed := [key for key in keys if key.partition(".")[0] == "sweep"]:
        raise ConfigError([f"{key} must go with a sweep, got a single run. Add -m, or leave it out." for key in typed])
    config = validated(composed)
    folder = resolved(composed, "hydra.run.dir")
    set_single_run(composed)
    overrides = tuple(plain(composed)["hydra"]["overrides"]["task"])
    return Planned(None, overrides, config, folder, lambda: composed)


class Planner:
    """Composes the jobs of a sweep, each to what Hydra would compose of its overrides.

    What chooses groups, adds or deletes is composed once for each combination; plain values are set on top, which is a
    hundred times faster than composing each job. Their order does not matter, since no key may be given twice.

    Args:
        words: What was typed.
        composed: What was composed of it; it may itself hold what is swept, in `hydra.sweeper.params`.

    Raises:
        ConfigError: If the words can't be read, or contradict each other.
    """

    def __init__(self, words: Words, composed: Composed) -> None:
        self.words = words
        self._bases: dict[tuple[str, ...], tuple[bytes, bytes]] = {}
        """Pickled, with and without the `hydra` node: to read that takes a fourth of the time of a deep copy."""
        with _resolving(composed), explained(words):
            presets = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
            check_words(presets)
        with loader_of(words) as loader:
            with explained(words, RunMode.MULTIRUN):
                parsed = OverridesParser.create(loader).parse_overrides([*presets, *words.overrides])
                own = [override for override in parsed if override.is_hydra_override()]
                task = [override for override in parsed if not override.is_hydra_override()]
            _check_no_sweep_over_sweeps(task)
            _check_once(task[len(presets) :])
            self._plain = {override.get_key_element() for override in task if _is_plain(loader, override)}
        self._own = [override.input_line or "" for override in own]
        self.task = list({override.get_key_element(): override for override in task}.values())
        """The overrides of the jobs, those that sweep included; of what a preset says and was typed too, the latter."""

    def grid(self) -> list[tuple[str, ...]]:
        """The overrides of each job, every combination of what is swept, as Hydra's own sweeper numbers them.

        Raises:
            ConfigError: If they are too many, or there are none.
        """
        check_number_of_jobs(self.task)
        with explained(self.words, RunMode.MULTIRUN):
            jobs = split_grid(self.task)
        if not jobs:
            raise ConfigError(["A sweep must have at least one job, got none. Give each swept key a value."])
        return [tuple(overrides) for overrides in jobs]

    def plan(self, jobs: Sequence[tuple[str, ...]], first: int = 0) -> list[Planned]:
        """Composes jobs from their overrides, and checks them.

        Raises:
            ConfigError: With every problem of any job.
        """
        planned: list[Planned] = []
        problems: dict[str, list[str]] = {}  # from a problem to the jobs that have it
        with loader_of(self.words) as loader:
            for number, overrides in enumerate(jobs, start=first):
                job, values = self._compose(loader, number, overrides)
                try:
                    folder = resolved(job, "hydra.sweep.subdir")
                    again = functools.partial(self._compose_again, number, overrides)
                    planned.append(Planned(number, overrides, _validated(job, values), folder, again))
                except ConfigError as error:
                    for said in error.problems:
                        problems.setdefault(said, []).append(f"job {number} ({', '.join(overrides)})")
        raise_problems_of_jobs(problems, len(jobs))
        return planned

    def _compose_again(self, number: int, overrides: tuple[str, ...]) -> Composed:
        with loader_of(self.words) as loader:
            return self._compose(loader, number, overrides)[0]

    def _compose(self, loader: ConfigLoader, number: int, overrides: tuple[str, ...]) -> tuple[Composed, Composed]:
        """A job, and the same as it sees itself: without the `hydra` node."""
        with explained(self.words.with_overrides(overrides)):
            base = tuple(text for text in overrides if text.partition("=")[0] not in self._plain)
            if base not in self._bases:
                composed = load(loader, self.words, [*self._own, *base], RunMode.RUN)
                self._bases[base] = pickle.dumps(composed), pickle.dumps(without_hydra(composed))
            job, values = map(pickle.loads, self._bases[base])
            for override in (_parsed(text) for text in overrides if text not in base):
                check_value(override.key_or_group, override.value())
                for each in (job, values):
                    OmegaConf.update(each, override.key_or_group, override.value())
            with limited():
                set_job(job, number, [_parsed(text) for text in overrides])
        return job, values


def _check_no_sweep_over_sweeps(overrides: Sequence[Override]) -> None:
    """Raises a `ConfigError` if what holds for a whole sweep is itself swept over."""
    problems = []
    for override in overrides:
        key = override.key_or_group
        if override.is_sweep_override() and key.partition(".")[0] == "sweep":
            problems.append(one_for_all_jobs(override))
    if problems:
        raise ConfigError(problems)


def _check_once(typed: Sequence[Override]) -> None:
    """Raises a `ConfigError` if a key was typed with different values: which of them counts is anybody's guess."""
    lines: dict[str, dict[str, None]] = {}
    for override in typed:
        lines.setdefault(override.get_key_element().lstrip("+~"), {})[override.input_line or ""] = None
    problems = [
        f"{key} must be given once in a sweep, got {shortened(' and '.join(each), 200)}. Remove all but one."
        for key, each in lines.items()
        if len(each) > 1
    ]
    deleted = [override for override in typed if override.is_delete()]
    problems += [
        f"{each.key_or_group} must stand without {whole.input_line}, got both. Remove one."
        for whole in deleted
        for each in typed
        if each.key_or_group.startswith(f"{whole.key_or_group}.")
    ]
    if problems:
        raise ConfigError(problems)


def plan_sweep(words: Words, composed: Composed) -> list[Planned]:
    """Every job of a grid.

    Raises:
        ConfigError: With every problem of any job.
    """
    planner = Planner(words, composed)
    return planner.plan(planner.grid())


def raise_problems_of_jobs(problems: dict[str, list[str]], num_jobs: int) -> None:
    """Raises what is wrong with jobs, if anything: each problem once, with the first job that has it unless all do."""
    said = [
        text if len(jobs) == num_jobs else f"In {jobs[0]}{f' and {len(jobs) - 1} more' if jobs[1:] else ''}: {text}"
        for text, jobs in problems.items()
    ]
    if said:
        raise ConfigError(said)


def _is_plain(loader: ConfigLoader, override: Override) -> bool:
    """Whether an override sets the value of an existing key: no group, nothing added or deleted."""
    key = override.key_or_group
    changes_keys = override.is_add() or override.is_force_add() or override.is_delete()
    return not (changes_keys or override.package or options_of(loader, key))


@functools.lru_cache(maxsize=1024)  # jobs share their values
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def experiments(words: Words) -> list[str]:
    """The names of all experiments that can be chosen."""
    with loader_of(words) as loader:
        return sorted(options_of(loader, "experiment"))
