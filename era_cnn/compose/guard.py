"""Refuses command lines and configs that would run code, write outside the run's folder, or never finish.

Every composition goes through `GuardedLoader`, and code that uses a config requires that it did.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf

from era_cnn.compose.hydra_door import BASIC_LAUNCHER, BASIC_SWEEPER, Loader, Part, mark_checked, value_of
from era_cnn.compose.ignored import ignored_overrides, ignored_parts
from era_cnn.compose.interpolation import VARIABLES, from_environment, limited
from era_cnn.compose.yamlfiles import OwnFiles, can_be_found
from era_cnn.config.yamltext import MAX_DEPTH, MAX_DIGITS
from era_cnn.errors import ConfigError, problem, show

MAX_WORD = 4_000
MAX_WORDS = 10_000
"""The most characters in one override, and in all: Hydra's parser needs a second for a list of 4,000 numbers."""

MAX_JOBS = 10_000
UNCOUNTED = 10**15
"""The most jobs in a sweep, and the number from which on messages do not give it."""


class GuardedLoader(Loader):
    """Hydra's config loader, with the checks of this module."""

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path, OwnFiles, can_be_found)

    def check_overrides(self, config_name: str | None, overrides: Sequence[str]) -> None:
        """Checks overrides as they were typed.

        Raises:
            ConfigError: If they are too long for the parser, or are given with --hydra-help.
        """
        if config_name is None and overrides:
            raise ConfigError(
                [problem("--hydra-help", "be used alone", " ".join(overrides), "For a config, use --help.")]
            )
        check_words(overrides)

    def check_parsed(self, overrides: Sequence[Override], primary: Container | None) -> None:
        """Checks parsed overrides, and the search path that the primary config asks for.

        Raises:
            ConfigError: If the sweep is too large, the search path is set, or an override would be ignored.
        """
        check_number_of_jobs(overrides)
        if problems := list(ignored_overrides(overrides)):
            raise ConfigError(problems)
        asked = [override.value() for override in overrides if override.key_or_group == "hydra.searchpath"]
        if primary is not None:
            asked.append(OmegaConf.select(primary, "hydra.searchpath"))
        for value in filter(None, asked):
            rule, advice = _FIXED["hydra.searchpath"][1:]
            raise ConfigError([problem("hydra.searchpath", rule, value, advice)])

    def check_parts(self, parts: Sequence[Part]) -> None:
        """Checks the files that a config is composed from.

        Raises:
            ConfigError: If one would be ignored, or merged into another that it was meant to replace.
        """
        if problems := list(ignored_parts(parts)):
            raise ConfigError(problems)

    def limits(self) -> AbstractContextManager[None]:
        """Limits interpolations while a config is composed."""
        return limited()

    def check(self, config_name: str | None, composed: DictConfig, num_overrides: int) -> None:
        """Checks a composed config. Without a name it is Hydra's own, for --hydra-help, and needs no check.

        Raises:
            ConfigError: If it could do harm.
        """
        if config_name and (problems := list(_problems_of_composed(composed, num_overrides))):
            raise ConfigError(problems)


def check_words(overrides: Sequence[str]) -> None:
    """Raises a `ConfigError` for overrides that would block the parser or make it fail."""
    problems = [each for word in overrides for each in _problems_of_word(word)]
    if sum(map(len, overrides)) > MAX_WORDS:
        got = f"{sum(map(len, overrides)):,}"
        problems.append(f"All overrides must have at most {MAX_WORDS:,} characters, got {got}. Write a config file.")
    if problems:
        raise ConfigError(problems)


def _problems_of_word(word: str) -> Iterator[str]:
    key, _, value = word.partition("=")
    depth = deepest = key.count(".") + key.count("/")
    for bracket in re.findall(r"[\[({})\]]", value):
        depth += 1 if bracket in "[({" else -1
        deepest = max(deepest, depth)
    if len(word) > MAX_WORD:
        advice = "Write a config file."
        yield f"{show(key)} must have at most {MAX_WORD:,} characters, got {len(word):,}. {advice}"
    elif deepest > MAX_DEPTH:
        yield f"{show(key)} must be nested at most {MAX_DEPTH} levels deep, got {deepest}. Make it flatter."
    elif re.search(rf"[0-9_]{{{MAX_DIGITS + 1}}}", word):
        yield problem(key, f"hold no number of more than {MAX_DIGITS} digits", value, "Shorten it.")
    elif not _is_unicode(word):
        yield problem(show(key), "be valid UTF-8", word, "Set the terminal to UTF-8.")


def _is_unicode(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # Python reads bytes that are not UTF-8 as lone surrogates
        return False
    return True


def check_number_of_jobs(overrides: Sequence[Override]) -> None:
    """Raises a `ConfigError` if a sweep is too large, before its jobs are listed."""
    last = {override.get_key_element(): override for override in overrides}
    number = math.prod(map(num_values, last.values()))
    if number > MAX_JOBS:
        got = f"{number:,}" if number < UNCOUNTED else "more than can be counted"
        raise ConfigError([f"A sweep must have at most {MAX_JOBS:,} jobs, got {got}. Sweep over fewer values."])


def num_values(override: Override) -> int:
    """The number of values that an override sweeps over; 1 if it does not sweep."""
    value = value_of(override)
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, Glob):
        return len(list(override.sweep_iterator())) if override.config_loader else 1
    if not isinstance(value, RangeSweep):
        return 1
    start, stop, step = value.start or 0, value.stop or 0, value.step
    if not all(map(math.isfinite, (start, stop, step))):
        return UNCOUNTED  # it is infinite, or NaN
    return max(0, math.ceil((Fraction(stop) - Fraction(start)) / Fraction(step))) if step else 0


_NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}
_CODE = "a config can't run code"

_FIXED: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "hydra.searchpath": (([],), "be empty: the groups are era_cnn's", "Add your own with --config-dir."),
    "hydra.callbacks": (({},), f"be empty: {_CODE}", "Leave it out."),
    "hydra.job_logging": ((_NO_LOGGING,), f"be left alone: {_CODE}", "A run logs to its run.log."),
    "hydra.hydra_logging": ((_NO_LOGGING,), f"be left alone: {_CODE}", "For more log lines, set hydra.verbose=true."),
    "hydra.job.env_set": (({},), f"be empty: {_CODE}", "Set it in the shell."),
    "hydra.job.env_copy": (([],), "be empty: it may copy secrets into a file", "Set it in the shell."),
    "hydra.job.chdir": ((False,), "be false: data.root is relative to the current directory", "Leave it out."),
    "hydra.job.id": (("???",), "be left to Hydra, which records it", "Leave it out."),
    "hydra.job.num": (("???",), "be left to Hydra, which records it", "Leave it out."),
    "hydra.runtime.output_dir": (("???",), "be left to Hydra, which records it", "Leave it out."),
    "hydra.output_subdir": ((".hydra", None), "be .hydra or null", "Leave it out."),
    "hydra.env": (({},), "be empty: nothing reads it", "Leave it out."),
    "hydra.mode": ((None, RunMode.RUN, RunMode.MULTIRUN), "be RUN or MULTIRUN", "Use -m for a sweep."),
}
"""Keys of Hydra's own, the values that each may have, and the rule and advice about others. Compared unresolved."""

_SCHEMA: Any = OmegaConf.to_container(OmegaConf.structured(HydraConf))
del _SCHEMA["defaults"]
_SCHEMA["env"] = {}
"""Hydra's own keys; all others are refused. A mapping that is empty here is fixed, or has a schema elsewhere."""

_INSTANTIATE = re.compile(r"_(target|args|partial|recursive|convert|call)_")
"""Keys that make Hydra call something."""

_ENVIRONMENT = re.compile(rf"\$\{{\s*oc\.env:\s*(?!(?:{'|'.join(VARIABLES)})\s*[,}}])([^,}}$]+)")

_OWN_TARGETS = {"hydra.launcher._target_": BASIC_LAUNCHER, "hydra.sweeper._target_": BASIC_SWEEPER}
"""What Hydra itself may call. A launcher plugin is called through its entry in `config.choices.LAUNCHERS`."""


def check_composed(composed: DictConfig) -> None:
    """Checks a composed config that was changed after its composition.

    Raises:
        ConfigError: If it would do harm.
    """
    overrides = composed.hydra.overrides
    if problems := list(_problems_of_composed(composed, len(overrides.task) + len(overrides.hydra))):
        raise ConfigError(problems)
    mark_checked(composed)


def check_value(key: str, value: Any) -> None:
    """Checks a value that will be set in a composed config.

    Raises:
        ConfigError: If it would do harm.
    """
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if problems := list(_problems_of_values({key: plain})):
        raise ConfigError(problems)


def _problems_of_composed(composed: DictConfig, num_overrides: int) -> Iterator[str]:
    values: Any = OmegaConf.to_container(composed, resolve=False)
    hydra = values["hydra"]
    for key, (allowed, rule, advice) in _FIXED.items():
        got = _at(values, key)
        if not any(got == each and type(got) is type(each) for each in allowed):
            hidden = key == "hydra.job.env_set" and isinstance(got, dict)  # it may hold secrets that env_copy copied
            yield problem(key, rule, list(got) if hidden else got, advice)
    for key, value in _unknown(hydra, _SCHEMA, "hydra."):
        yield problem(key, "be a key of Hydra's", value, "See era-cnn --cfg hydra.")
    if len(hydra["overrides"]["task"]) + len(hydra["overrides"]["hydra"]) != num_overrides:
        yield problem("hydra.overrides", "hold only what was typed", hydra["overrides"], "Leave it out.")
    if not re.fullmatch(r"[\w.-]+", str(hydra["job"]["name"])):
        yield problem("hydra.job.name", "be a name", hydra["job"]["name"], "Give letters, digits, _, - and . only.")
    if not _is_verbosity(hydra["verbose"]):
        yield problem("hydra.verbose", "be true, false or names of loggers", hydra["verbose"], "Leave it out.")
    for key in ("launcher", "sweeper"):
        if not isinstance(hydra[key], dict) and hydra[key] != "???":
            yield problem(f"hydra.{key}", "be a mapping", hydra[key], f"Choose one by hydra/{key}=…")
    batch_size = hydra["sweeper"].get("max_batch_size") if isinstance(hydra["sweeper"], dict) else None
    if isinstance(batch_size, int) and batch_size < 1:
        yield problem("hydra.sweeper.max_batch_size", "be null or at least 1", batch_size, "Leave it out.")
    yield from _problems_of_values(values)


def _problems_of_values(values: Any) -> Iterator[str]:
    """Finds values, at any depth, that Hydra would call or that would read the environment."""
    for key, value in _entries(values):
        if key.startswith(("hydra.overrides.", "hydra.job.override_dirname")):
            continue  # a copy of what was typed
        if _INSTANTIATE.fullmatch(key.rpartition(".")[2]):
            yield from _problems_of_call(key, value)
        elif isinstance(value, str) and (read := _ENVIRONMENT.search(value)):
            # A variable whose name is itself interpolated is refused when it is resolved.
            yield from_environment(read[1], key)


def _problems_of_call(key: str, target: object) -> Iterator[str]:
    if target != _OWN_TARGETS.get(key):
        group = key.removesuffix("._target_").replace(".", "/")
        advice = f"Choose one by {group}=…" if key in _OWN_TARGETS else "Leave it out."
        yield problem(key, f"not be given: {_CODE}", target, advice)


def _unknown(values: dict[str, Any], known: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The keys, at any depth, that `known` does not have, with their values."""
    for key, value in values.items():
        if key not in known:
            yield f"{prefix}{key}", value
        elif isinstance(value, dict) and known[key] and isinstance(known[key], dict):
            yield from _unknown(value, known[key], f"{prefix}{key}.")


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part, "nothing") if isinstance(values, dict) else "nothing"
    return values


def _is_verbosity(value: object) -> bool:
    return isinstance(value, bool | str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _entries(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key, at any depth and as it is typed, with its value."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        yield f"{prefix}{key}", value
        yield from _entries(value, f"{prefix}{key}.")
