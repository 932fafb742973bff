"""Composes and validates the jobs of a sweep."""

from __future__ import annotations

import functools
import itertools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from era_cnn.compose.complaints import explained, one_for_all_jobs
from era_cnn.compose.composition import (
    Planned,
    checked_path,
    expand_root,
    plain,
    resolved,
    resolving,
    validated_values,
    without_hydra,
)
from era_cnn.compose.guard import MAX_JOBS, check_number_of_jobs, check_value, check_words
from era_cnn.compose.hydra_door import Composed, set_job, split_grid
from era_cnn.compose.interpolation import limited
from era_cnn.compose.templates import Template
from era_cnn.compose.words import Words, load, loader_of, options_of
from era_cnn.config.description import describing_once
from era_cnn.config.parsing import parse
from era_cnn.errors import ConfigError, show
from era_cnn.output import counted


@dataclass
class _Base:
    """What many jobs are made from: a pickled config, with and without the `hydra` node.

    Unpickling takes a quarter of the time of a deep copy.
    """

    composed: bytes
    values: bytes

    def copies(self) -> tuple[Composed, Composed]:
        """Both configs."""
        return pickle.loads(self.composed), pickle.loads(self.values)

    @functools.cached_property
    def template(self) -> Template | None:
        """Makes the jobs, if it can."""
        return Template.of(self.copies()[0])


class Planner:
    """Composes the jobs of a sweep; each config is the one that Hydra would compose from the job's overrides.

    Overrides that choose groups, add or delete, and those that are the same for all jobs, are composed once for each
    combination: a base. Swept values are then set in it, by a `Template` if that can be done without OmegaConf. Their
    order does not matter, since no key may be given twice; where one key lies within another, Hydra composes each job.

    Args:
        words: The words that started the sweep.
        composed: The config of the sweep; it may add swept keys in `hydra.sweeper.params`.

    Raises:
        ConfigError: If the overrides can't be parsed, or contradict each other.
    """

    def __init__(self, words: Words, composed: Composed) -> None:
        self.words = words
        self._options = _options_of_sweep(composed)
        self._bases: dict[tuple[str, ...], _Base] = {}
        with resolving(composed), explained(words):
            presets = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
            check_words(presets)
        with loader_of(words) as loader:
            with explained(words, RunMode.MULTIRUN):
                parsed = OverridesParser.create(loader).parse_overrides([*presets, *words.overrides])
                own = [override for override in parsed if override.is_hydra_override()]
                task = [override for override in parsed if not override.is_hydra_override()]
            _check_no_sweep_over_sweeps(task)
            _check_deletions(task[len(presets) :])
            values = [override for override in task if not _is_group(loader, override)]
        swept = {override.get_key_element() for override in values if override.is_sweep_override()}
        self._set_later = set() if _has_nested_keys(values) else {key for key in swept if key[0] not in "+~"}
        """The keys that are set in a base."""
        self._own = [override.input_line or "" for override in own]
        self.task = list({override.get_key_element(): override for override in task}.values())
        """The overrides of the jobs, including those that sweep; what was typed wins over a preset."""

    def grid(self) -> list[tuple[str, ...]]:
        """The overrides of each job: every combination of the swept values, numbered as by Hydra's own sweeper.

        Raises:
            ConfigError: If there are too many jobs, or none.
        """
        check_number_of_jobs(self.task)
        with explained(self.words, RunMode.MULTIRUN):
            jobs = split_grid(self.task)
        if not jobs:
            raise ConfigError(["A sweep must have at least one job, got none. Give each swept key a value."])
        return [tuple(overrides) for overrides in jobs]

    def plan(self, jobs: Sequence[tuple[str, ...]], first: int = 0) -> list[Planned]:
        """Composes and validates jobs.

        Raises:
            ConfigError: If a job is wrong; lists every problem of every job.
        """
        planned: list[Planned] = []
        problems: dict[str, list[str]] = {}  # maps each problem to the jobs that have it
        numbers = range(first, first + len(jobs))
        with loader_of(self.words) as loader, describing_once(), counted(numbers, "Planning job") as counting:
            for number, overrides in zip(counting, jobs, strict=True):
                if filled := self._fill(number, overrides):
                    planned.append(filled)
                    continue
                job, values = self._compose(loader, number, overrides)
                try:
                    folder = resolved(job, "hydra.sweep.subdir")
                    again = partial(self._compose_again, number, overrides)
                    planned.append(Planned(number, overrides, validated_values(job, values), folder, again))
                except ConfigError as error:
                    for each in error.problems:
                        problems.setdefault(each, []).append(f"job {number} ({', '.join(overrides)})")
        raise_problems_of_jobs(problems, len(jobs))
        return planned

    def _fill(self, number: int, overrides: tuple[str, ...]) -> Planned | None:
        """Plans a job by the template of its base; None if that can't set its values, or its config is wrong."""
        base = self._bases.get(self._base_of(overrides))
        if base is None or (template := base.template) is None:
            return None
        parsed = [_parsed(text) for text in overrides]
        changes = {each.key_or_group: each.value() for each in parsed if each.get_key_element() in self._set_later}
        values = template.values(changes)
        if values is None or list(expand_root(values)):
            return None
        try:
            config = parse(values)
            folder = checked_path("hydra.sweep.subdir", template.folder(number, config.name))
        except ConfigError:  # explained with its file when Hydra has composed it
            return None
        return Planned(number, overrides, config, folder, partial(template.with_hydra, number, parsed, changes))

    def _compose_again(self, number: int, overrides: tuple[str, ...]) -> dict[str, Any]:
        with loader_of(self.words) as loader:
            return plain(self._compose(loader, number, overrides)[0])

    def _base_of(self, overrides: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text for text in overrides if text.partition("=")[0] not in self._set_later)

    def _compose(self, loader: ConfigLoader, number: int, overrides: tuple[str, ...]) -> tuple[Composed, Composed]:
        """The config of a job, with and without the `hydra` node."""
        with explained(self.words.with_overrides(overrides)):
            base = self._base_of(overrides)
            is_new = base not in self._bases
            if is_new:
                composed = load(loader, self.words, [*self._own, *base], RunMode.RUN)
                self._bases[base] = _Base(pickle.dumps(composed), pickle.dumps(without_hydra(composed)))
            job, values = self._bases[base].copies()
            for override in (_parsed(text) for text in overrides if text not in base):
                check_value(override.key_or_group, override.value())
                for each in (job, values):
                    OmegaConf.update(each, override.key_or_group, override.value())
            if is_new:
                self._check_options(job, number, overrides)
            with limited():
                set_job(job, number, [_parsed(text) for text in overrides])
        return job, values

    def _check_options(self, job: Composed, number: int, overrides: tuple[str, ...]) -> None:
        """Raises a `ConfigError` if a file that only this job chose sets an option of the sweep, which ignores it."""
        of_job = _options_of_sweep(job)
        problems = [
            f"{key} must be the same for all jobs of a sweep, got {show(of_job.get(key))} "
            f"in job {number} ({', '.join(overrides)}). Give it on the command line: {_as_typed(key)}=…"
            for key in sorted(of_job.keys() | self._options.keys())
            if of_job.get(key) != self._options.get(key)
        ]
        if problems:
            raise ConfigError(problems)


def _options_of_sweep(composed: Composed) -> dict[str, Any]:
    """The options that all jobs of a sweep share, by key, with interpolations unresolved."""
    values = plain(composed)
    hydra = values["hydra"]
    sections = {
        "sweep": values.get("sweep"),
        "hydra.launcher": hydra["launcher"],
        "hydra.sweeper": {key: value for key, value in hydra["sweeper"].items() if key != "params"},
        "hydra.sweeper.params": hydra["sweeper"].get("params"),
        "hydra.sweep": {"dir": hydra["sweep"]["dir"]},
    }
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in (section or {}).items()}


def _as_typed(key: str) -> str:
    """How an option is given: a launcher by its group, since its keys come with it, and a swept key by itself."""
    return "hydra/launcher" if key.startswith("hydra.launcher.") else key.removeprefix("hydra.sweeper.params.")


def _check_no_sweep_over_sweeps(overrides: Sequence[Override]) -> None:
    """Raises a `ConfigError` if an option of the sweep itself is swept over."""
    problems = []
    for override in overrides:
        key = override.key_or_group
        if override.is_sweep_override() and key.partition(".")[0] == "sweep":
            problems.append(one_for_all_jobs(override))
    if problems:
        raise ConfigError(problems)


def _check_deletions(typed: Sequence[Override]) -> None:
    """Raises a `ConfigError` if a key is both deleted and given: in a sweep, the order of overrides does not count."""
    problems = [
        f"{each.key_or_group} must be used without {whole.input_line}, got both. Remove one."
        for whole in typed
        for each in typed
        if whole.is_delete() and each is not whole and f"{each.key_or_group}.".startswith(f"{whole.key_or_group}.")
    ]
    if problems:
        raise ConfigError(problems)


def raise_problems_of_jobs(problems: dict[str, list[str]], num_jobs: int) -> None:
    """Raises the problems of jobs, if any: each problem once, with the first job that has it unless all do."""
    lines = [
        text if len(jobs) == num_jobs else f"In {jobs[0]}{f' and {len(jobs) - 1} more' if jobs[1:] else ''}: {text}"
        for text, jobs in problems.items()
    ]
    if lines:
        raise ConfigError(lines)


def _is_group(loader: ConfigLoader, override: Override) -> bool:
    """Whether an override chooses an option of a group, or may do so."""
    return bool(override.package or options_of(loader, override.key_or_group))


def _has_nested_keys(overrides: Sequence[Override]) -> bool:
    """Whether a key lies within another one: then the order in which they are set counts."""
    ways = sorted(override.key_or_group.split(".") for override in overrides)
    return any(inner[: len(outer)] == outer for outer, inner in itertools.pairwise(ways))


@functools.lru_cache(maxsize=MAX_JOBS)  # jobs share their values
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)
