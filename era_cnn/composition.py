"""From words to composed, validated configs: of one run, or of every job of a sweep."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from era_cnn.complaints import explained
from era_cnn.config import ModelConfig, RunConfig, parse
from era_cnn.errors import ConfigError, problem
from era_cnn.guard import check_number_of_jobs, check_words
from era_cnn.interpolation import limited
from era_cnn.words import Words, load, loader_of, options_of


def compose(words: Words, mode: RunMode = RunMode.RUN) -> DictConfig:
    """Composes a config, the `hydra` node included.

    Raises:
        ConfigError: If Hydra can't; with every override that is at fault.
    """
    with loader_of(words) as loader, explained(words, mode):
        return load(loader, words, words.overrides, mode)


def validated(composed: DictConfig) -> RunConfig:
    """The typed config of a composed one.

    Raises:
        ConfigError: With every problem; if the user changed layers, with theirs as well, so that one answer has all.
    """
    with _hydra_values(composed):
        values = without_hydra(composed)
        try:
            return parse(values)
        except ConfigError as error:
            more = list(_layer_problems(values)) if _has_own_layers(composed) else []
            raise ConfigError([*error.problems, *more]) from error


def _has_own_layers(composed: DictConfig) -> bool:
    """Whether layers may be other than those of conf/, which are tested: only then is torch imported to check them."""
    overrides: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
    sources = [source.provider for source in composed.hydra.runtime.config_sources]
    return "command-line" in sources or any(override.lstrip("+~").startswith("model.") for override in overrides)


def _layer_problems(values: DictConfig) -> Iterator[str]:
    from era_cnn.models.build import layer_problems

    try:
        model = ModelConfig.model_validate(OmegaConf.to_container(values, resolve=True)["model"])  # type: ignore[index, call-overload]
    except (ValidationError, KeyError, TypeError, OmegaConfBaseException, RecursionError):
        return  # said already
    yield from layer_problems(model.layers, model.inherited())


def without_hydra(composed: DictConfig) -> DictConfig:
    """A config as a job sees it."""
    values = copy.copy(composed)
    with open_dict(values):
        values.pop("hydra")
    return values


def resolved(composed: DictConfig, key: str) -> str:
    """The path that `hydra.run.dir`, `hydra.sweep.dir` or `hydra.sweep.subdir` comes to.

    Raises:
        ConfigError: If it has none, or one that is not where it should be.
    """
    with _hydra_values(composed), explained(Words()):
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


@contextmanager
def _hydra_values(composed: DictConfig) -> Iterator[None]:
    """Lets interpolations resolve outside of a job, `${hydra:…}` included."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = composed  # type: ignore[assignment]
    try:
        with limited():
            yield
    finally:
        HydraConfig.instance().cfg = before


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep before it runs: `subdir` is its folder within that of the sweep."""

    number: int
    overrides: tuple[str, ...]
    config: RunConfig
    subdir: str

    def __str__(self) -> str:
        return f"job {self.number} ({', '.join(self.overrides)})"


def plan_sweep(words: Words, composed: DictConfig) -> list[PlannedJob]:
    """Every job of a sweep, as Hydra's own sweeper will number them.

    Groups are composed once for each combination of theirs; plain values are set on top, which is a hundred times
    faster than composing each job.

    Args:
        words: What was typed.
        composed: What was composed of it; it may itself hold what is swept, in `hydra.sweeper.params`.

    Raises:
        ConfigError: With every problem of any job.
    """
    with _hydra_values(composed), explained(words):
        presets = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
        check_words(presets)
    jobs: list[PlannedJob] = []
    problems: dict[str, list[str]] = {}  # from a problem to the jobs that have it
    bases: dict[tuple[str, ...], DictConfig] = {}
    with loader_of(words) as loader:
        with explained(words, RunMode.MULTIRUN):
            parsed = OverridesParser.create(loader).parse_overrides([*presets, *words.overrides])
            own = [override.input_line or "" for override in parsed if override.is_hydra_override()]
            task = [override for override in parsed if not override.is_hydra_override()]
            plain = {override.get_key_element() for override in task if _is_plain(loader, override)}
            check_number_of_jobs(task)
            overrides_of_jobs = list(itertools.chain.from_iterable(BasicSweeper.split_arguments(task, None)))
        for number, overrides in enumerate(overrides_of_jobs):
            with explained(words.with_overrides(overrides)):
                base = tuple(text for text in overrides if text.partition("=")[0] not in plain)
                if base not in bases:
                    bases[base] = load(loader, words, [*own, *base], RunMode.RUN)
                job = copy.deepcopy(bases[base])
                _set_plain(job, [text for text in overrides if text not in base])
            with open_dict(job):
                job.hydra.job.num = job.hydra.job.id = number
            try:
                jobs.append(PlannedJob(number, tuple(overrides), validated(job), resolved(job, "hydra.sweep.subdir")))
            except ConfigError as error:
                for said in error.problems:
                    problems.setdefault(said, []).append(f"job {number} ({', '.join(overrides)})")
    raise_problems_of_jobs(problems, len(overrides_of_jobs))
    if not jobs:
        raise ConfigError(["A sweep must have at least one job, got none. Give each swept key a value."])
    return jobs


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
    return not (override.is_add() or override.is_delete() or override.package or options_of(loader, key))


def _set_plain(job: DictConfig, overrides: Sequence[str]) -> None:
    for text in overrides:
        override = OverridesParser.create().parse_override(text)
        OmegaConf.update(job, override.key_or_group, override.value())
        job.hydra.overrides.task.append(text)


def experiments(words: Words) -> list[str]:
    """The names of all experiments that can be chosen."""
    with loader_of(words) as loader:
        return sorted(options_of(loader, "experiment"))
