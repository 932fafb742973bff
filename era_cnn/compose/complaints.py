"""Turns Hydra's errors into messages of the form in `era_cnn.errors`.

Hydra stops at the first mistake, with a message of its own. Here each override of a failed composition is checked again
by itself, so that every mistake is reported, with the known names and the closest one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from era_cnn.compose.defaults import problems_of_defaults
from era_cnn.compose.guard import MAX_JOBS, num_values
from era_cnn.compose.hydra_door import child_of
from era_cnn.compose.interpolation import refusal_in
from era_cnn.compose.words import Words, load, loader_of, options_of
from era_cnn.config.synonyms import THEIRS, plain, suggestion
from era_cnn.errors import ConfigError, DataError, one_of, problem, shortened
from era_cnn.nearest import asked, did_you_mean, nearest

COMMANDS = (
    "models, describe, data, resume, replay, eval, predict, explain, export, find-lr, report, compare, list, note, "
    "record, new"
)
"""The verbs, for the message about an unknown first word."""


@contextmanager
def explained(
    words: Words, mode: RunMode = RunMode.RUN, check: Callable[[DictConfig], object] | None = None
) -> Iterator[None]:
    """Turns whatever Hydra raises within the context into a `ConfigError` that names every wrong override.

    Args:
        words: What the config is composed from.
        mode: Whether it is that of a single run or of a sweep.
        check: Raises a `ConfigError` if a composed config is wrong; called without the keys that there are not.
    """
    try:
        yield
    except (ConfigError, BrokenPipeError):
        raise
    except Exception as error:  # Hydra also raises ValueError, TypeError and others for wrong overrides
        if refused := refusal_in(error):
            raise refused from error
        with loader_of(words) as loader:
            problems = list(_problems(loader, words, mode, check))
        raise ConfigError(problems or [_about(error)]) from error


def _about(error: Exception) -> str:
    """The message about an error that no override explains by itself."""
    reason = reason_of(error)
    for pattern, message in _REASONS.items():
        if found := re.match(pattern, reason):
            return message.format(**found.groupdict())
    return f"The config must compose, got: {reason}. Check the file or the key."


_TWICE = "{key} must be chosen once, got two choices. Remove one; on the command line, write {key}=… without +."

_REASONS = {
    r"Could not append to config. An item is already at '(?P<key>[^']+)'": (
        "+{key} must add what the config lacks, got a key that it has. Write {key}=… without +."
    ),
    r"(?P<key>[\w/]+) appears more than once in the final defaults list": _TWICE,
    r"Multiple values for (?P<key>[\w/]+)\.": _TWICE,
    r"Could not delete from config. The value of '(?P<key>[^']+)' is (?P<value>.*) and not (?P<other>.*)": (
        "~{key} must be given without a value, or with the present one, got {other}. It is {value}."
    ),
    r"Could not delete '(?P<key>[\w/]+)=(?P<other>.*)'\. No match": (
        "~{key} must be given without a value, or with the present one, got {other}. To choose another, write {key}=…"
    ),
    r"Could not delete '(?P<key>[\w/]+)'\. No match": (
        "~{key} must remove a single choice, got a group with several, or none. "
        "Choose others with {key}=… (for augmentation and logger, also none)."
    ),
}
"""What Hydra says where only its message tells what is wrong, by patterns, and what is said instead."""


def one_for_all_jobs(override: Override) -> str:
    """The message about a sweep over an option that must be the same for all jobs."""
    got = shortened((override.input_line or "").partition("=")[2], 80)
    return f"{override.key_or_group} must have one value for all jobs, got {got}. Start a sweep for each."


def unknown_options(words: Sequence[str]) -> Iterator[str]:
    """The message about each option that there is not: most are meant as keys, such as --epochs."""
    words_of_default = Words()
    with loader_of(words_of_default) as loader:
        known = list(_keys(load(loader, words_of_default, [], RunMode.RUN)))
    for word in words:
        option, _, value = word.partition("=")
        name = option.lstrip("-").replace("-", "_")
        near = _meant({name, *THEIRS.get(plain(name), ())}, known) or ([name] if name in known else [])
        advice = f"Write {near[0]}={value or '…'}" if len(near) == 1 else "Values are given as key=value."
        yield f"{shortened(option, 80)} must be an option of the command, got an unknown one. {advice}"


def reason_of(error: BaseException) -> str:
    """The messages of an error and its cause, on one line."""
    messages = [" ".join(str(each).split()).rstrip(".") for each in (error, error.__cause__) if each is not None]
    return ": ".join(dict.fromkeys(message for message in messages if message)) or type(error).__name__


def _problems(
    loader: ConfigLoader, words: Words, mode: RunMode, check: Callable[[DictConfig], object] | None
) -> Iterator[str]:
    """A message for each override that can't be composed, and what `check` says of the others."""
    parsed, malformed = _parsed(loader, words.overrides)
    yield from malformed
    choices, others = [], []
    for override in parsed:
        options = options_of(loader, override.key_or_group)
        if not options:
            others.append(override)
        elif override.is_hydra_override() and override.is_sweep_override():
            yield one_for_all_jobs(override)
        elif found := list(_group_problems(override, options)):
            yield from found
        elif not override.is_sweep_override():
            choices.append(override)
        if override.is_sweep_override() and mode == RunMode.RUN and not override.is_hydra_override():
            key, got = override.key_or_group, shortened((override.input_line or "").partition("=")[2], 80)
            yield f"{shortened(key, 80)} must have one value in a single run, got {got}. To sweep over it, use -m."

    # The choices decide which keys there are.
    sound = [override.input_line or "" for override in choices]
    try:
        yield from list(problems_of_defaults(loader, words.config_name, _chosen(choices)))
        composed = load(loader, words, sound, RunMode.MULTIRUN)
    except Exception:  # noqa: BLE001 - a config file is broken: the caller reports that error
        return
    groups = loader.list_groups("")
    for override in others:
        if found := list(_key_problems(override, composed, groups)):
            yield from found
        elif not override.is_sweep_override():
            sound.append(override.input_line or "")
        elif override.is_hydra_override():
            yield one_for_all_jobs(override)
    if check is not None and len(choices) + len(others) == len(words.overrides):  # else others than those meant
        yield from _problems_of_values(loader, words, sound, mode, check)


def _parsed(loader: ConfigLoader, overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides that have Hydra's grammar, and a message for each of the others."""
    parser, parsed, problems = OverridesParser.create(loader), [], []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except Exception as error:  # noqa: BLE001 - the parser also raises ValueError
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            if "=~" in text and "~" in reason:
                key, _, path = text.partition("=")
                advice = f"""Type "{key}='{path}'", or $HOME instead of ~."""
                problems.append(problem(key, "have its ~ in quotes", path, advice))
            elif "=" not in text and not text.startswith("~"):
                problems.append(_about_a_word(text, loader))
            else:
                problems.append(f"{shortened(text, 200)} must be key=value, got: {reason}. See era-cnn --help.")
    return parsed, problems


def _chosen(choices: Iterable[Override]) -> dict[str, list[str]]:
    """The names of the options that overrides choose, by group."""
    values = {each.key_or_group: each.value() for each in choices if not each.is_delete()}
    return {
        group: list(map(str, value)) if isinstance(value, list) else [str(value)] for group, value in values.items()
    }


def _problems_of_values(
    loader: ConfigLoader, words: Words, sound: list[str], mode: RunMode, check: Callable[[DictConfig], object]
) -> Iterator[str]:
    """What `check` says of the config that the sound overrides make."""
    try:
        rest = load(loader, words, sound, mode)
    except Exception:  # noqa: BLE001 - for something else, which the caller reports
        return
    with suppress(DataError):
        try:
            check(rest)
        except ConfigError as error:
            yield from error.problems


def _about_a_word(word: str, loader: ConfigLoader) -> str:
    """The message about a word that is neither a command in its place nor key=value."""
    commands = COMMANDS.split(", ")
    if word in commands:
        return f"{word} must be the first word, got it after others. Write era-cnn {word} …"
    options = {
        f"{group}={name}": name for group in ("experiment", "model", "data") for name in options_of(loader, group)
    }
    chosen = next((typed for typed, name in options.items() if name == word), "")
    if chosen:
        advice = f"Write {chosen}."
    elif nearest(word, TRAINING):
        advice = "To train, leave it out: era-cnn experiment=NAME"
    elif word in loader.list_groups(""):
        advice = f"Write {word}=NAME, without spaces."
    elif _is_key(word, loader):
        advice = f"Write {word}=VALUE, without spaces."
    elif re.match(r"[\d.-]", word):
        advice = "A value follows its key and = without spaces, and several have commas between them: seed=1,2,3."
    else:
        advice = suggestion(word, commands, "See era-cnn --help.")
    return f"{shortened(word, 200)} must be key=value or one of {COMMANDS}, got neither. {advice}"


def _is_key(word: str, loader: ConfigLoader) -> bool:
    return "." in word and _select(load(loader, Words(), [], RunMode.RUN), word) is not _ABSENT


OWN_DATA = "For images of your own, choose data=image_folder or data=npz."
OWN_OPTION = "One of your own is a file {group}/NAME.yaml in the folder that --config-dir names."

TRAINING = ("train", "run", "fit", "start")
"""What people type for training, which has no command."""


def _group_problems(override: Override, options: Sequence[str]) -> Iterator[str]:
    if override.is_delete():
        return
    key = override.key_or_group
    if num_values(override) > MAX_JOBS:
        yield f"{key} must have at most {MAX_JOBS:,} values, got more. Name them."
        return
    values: list[Any]
    try:
        values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    except (HydraException, ValueError):  # an interval, or a range with step 0
        values = [(override.input_line or "").partition("=")[2]]
    for value in values:
        for name in value if isinstance(value, list) else [value]:
            if name in options:
                continue
            if name is None:
                choice = "none" if "none" in options else options[0]
                near = "To remove it, write ~experiment." if key == "experiment" else f"Choose one: {key}={choice}"
            else:
                near = suggestion(str(name), options, OWN_DATA if key == "data" else OWN_OPTION.format(group=key))
            yield problem(key, one_of(options), name, near)


def _key_problems(override: Override, composed: DictConfig, groups: Sequence[str]) -> Iterator[str]:
    from era_cnn.config.messages import of_other_choices  # imports pydantic

    key = override.key_or_group
    parent, _, name = key.rpartition(".")
    node = _select(composed, parent) if parent else composed
    siblings = [str(child) for child in node if child != "hydra"] if isinstance(node, DictConfig) else []
    if override.is_delete() and name in siblings and _select(composed, key) is None:  # Hydra calls it absent
        yield f"~{shortened(key, 80)} must remove a value, got null, which is none. Leave it out."
    if override.is_add() or name in siblings or _select(composed, key) is not _ABSENT:  # ??? counts as a key
        return
    if parent.startswith("model.layers.") and siblings:
        fields = [field for field in _fields_of(node) if field not in siblings]
        if name in fields or not fields:
            advice = f"To add a field to the layer, write +{key}=…"
        else:
            otherwise = f"{parent} has {', '.join([*siblings, *fields])}."
            advice = suggestion(name, siblings, "", prefix=f"{parent}.") or (
                suggestion(name, fields, otherwise, prefix=f"+{parent}.")
            )
    elif unchosen := _unchosen(composed, key):
        advice = unchosen
    elif _is_in_schema(parent, name):
        advice = f"It has its default so far; to set it, write +{key}=…"
    elif other := of_other_choices(key, name):
        advice = other
    elif parent == "hydra.launcher":
        advice = "See era-cnn --cfg hydra, and choose a launcher by hydra/launcher=…"
    else:
        is_hydras = override.is_hydra_override()
        known = [] if is_hydras else [*_keys(composed), *(group for group in groups if group != "hydra")]
        exact, meant = (_meant(names, known) for names in ([name], THEIRS.get(plain(name), [])))
        see_all = f"See all keys: era-cnn --cfg {'hydra' if is_hydras else 'job'}"
        around = "" if is_hydras else _names_around(composed, key)
        near = suggestion(name, siblings, "", prefix=f"{parent}." if parent else "")
        advice = (
            (asked(exact) if len(exact) == 1 else "")
            or near
            or (asked(meant) if len(meant) == 1 else "")
            or did_you_mean(key, known, around)
            or see_all
        )
    got = "a deletion" if override.is_delete() else shortened((override.input_line or "").partition("=")[2], 80)
    yield f"{shortened(key, 80)} must be a key of the config, got {got}. {advice}"


def _unchosen(composed: DictConfig, key: str) -> str:
    """How to choose the transform or logger that would have a key; empty if the key is not that of one."""
    from era_cnn.config.choices import GROUPS  # imports pydantic
    from era_cnn.config.groups import LISTED

    group, name = [*key.split("."), ""][:2]
    is_entry = group in LISTED and name in GROUPS[group] and _select(composed, f"{group}.{name}") is _ABSENT
    return f"{group}.{name} is not chosen: write {group}={name}." if is_entry else ""


def _fields_of(layer: DictConfig) -> list[str]:
    """The fields of a layer's block, if it is known."""
    from era_cnn.config.choices import REGISTRIES  # imports pydantic

    block, blocks = layer.get("block"), REGISTRIES["block"]
    return list(blocks.section(block).model_fields) if isinstance(block, str) and block in blocks else []


def _names_around(composed: DictConfig, key: str) -> str:
    """Lists the names in the innermost section of a key that is there; empty if only the config itself is."""
    parent = key.rpartition(".")[0]
    if not parent or isinstance(node := _select(composed, parent), DictConfig):
        return f"{parent} has {', '.join(map(str, node))}." if parent and node else ""
    return _names_around(composed, parent)


def _meant(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """The keys of any section, apart from layers, that have one of these names."""
    return [each for each in known if each.rpartition(".")[2] in names and not each.startswith("model.layers.")]


def _is_in_schema(parent: str, name: str) -> bool:
    """Whether a section has a key that the YAML file of its group leaves out."""
    from era_cnn.config.schema import RunConfig  # imports pydantic

    section = RunConfig.model_fields.get(parent)
    return section is not None and name in getattr(section.annotation, "model_fields", {})


_ABSENT = object()


def _select(composed: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(composed, key, default=_ABSENT)
    except OmegaConfBaseException:  # a name as a list index, or a key below a plain value
        return _ABSENT


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        if key == "hydra" and not prefix:
            continue
        yield f"{prefix}{key}"
        child = child_of(node, key)
        if isinstance(child, DictConfig):
            yield from _keys(child, f"{prefix}{key}.")
