"""Explains mistakes in the defaults lists of files: Hydra names the file, but seldom what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hydra.core.config_loader import ConfigLoader

from era_cnn.compose.hydra_door import Default, defaults_of
from era_cnn.compose.ignored import without_header
from era_cnn.compose.words import options_of
from era_cnn.config.synonyms import suggestion
from era_cnn.errors import one_of, problem
from era_cnn.nearest import did_you_mean


def problems_of_defaults(loader: ConfigLoader, primary: str, typed: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The problems in the defaults lists of all files of a config.

    Args:
        loader: Hydra's loader for them.
        primary: The name of the primary config.
        typed: The options that the command line chooses, by group.
    """
    chosen = {each.group: each.names for each in defaults_of(loader, primary)[1]}
    todo = [f"{group}/{name}" for group, names in {**chosen, **typed}.items() for name in names]
    for path in todo:  # it grows
        package, defaults = defaults_of(loader, path)
        if problem_of_header := without_header(path, package or path.rpartition("/")[0]):
            yield problem_of_header
            continue
        for default in defaults:
            found = list(_problems(loader, path, default, chosen))
            yield from found
            paths = (f"{default.group}/{name}" for name in default.names)
            todo += () if found else (each for each in paths if each not in todo)


def _problems(loader: ConfigLoader, path: str, default: Default, chosen: Mapping[str, object]) -> Iterator[str]:
    group = default.group
    options = [name for name in options_of(loader, group) if f"{group}/{name}" != path]
    key = f"/{group} in {path}.yaml"
    if ".." in group.split("/"):
        return
    if not options:
        near = did_you_mean(group.rpartition("/")[2], sorted(loader.list_groups("")), "")
        advice = near.replace("mean ", "mean override /") or f"Choose one: override /{min(chosen)}"
        yield f"{key} must be a group, got no such group. {advice}"
    elif default.is_choice and not default.is_override and group in chosen:
        entry = f"/{group}: {', '.join(default.names) or 'null'}"
        yield f"{key} must be overridden, since it is chosen already, got {entry}. Write override {entry}"
    for name in default.names if options else ():
        if name not in options:
            yield problem(key, one_of(options), name, suggestion(name, options, f"Choose one, such as {options[0]}."))
