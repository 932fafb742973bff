"""Finds what Hydra would ignore without a word: values given twice, and files merged where they were to replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override

from era_cnn.compose.hydra_door import Part, value_of
from era_cnn.config.groups import LISTED
from era_cnn.errors import problem, shortened

RECORDED = ("hydra.runtime", "hydra.overrides", *(f"hydra.job.{key}" for key in ("config_name", "override_dirname")))
"""Keys that Hydra sets itself once the config is composed, whatever they were before."""


def ignored_overrides(typed: Sequence[Override]) -> Iterator[str]:
    """The problems of overrides that would have no effect, or another one than it seems."""
    lines: dict[str, dict[str, None]] = {}
    for override in typed:
        key = override.get_key_element().lstrip("+~")
        if key.startswith(RECORDED):
            yield problem(key, "be left to Hydra, which records it", override.input_line, "Leave it out.")
        if not override.is_delete():
            lines.setdefault(key, {})[override.input_line or ""] = None
            yield from _networks_in_override(override)
    for key, each in lines.items():
        if len(each) > 1:
            got = shortened(" and ".join(each), 200)
            yield f"{shortened(key, 80)} must be given once, got {got}. Remove all but one."


def ignored_parts(parts: Sequence[Part]) -> Iterator[str]:
    """The problems of files that would be merged in another way than they seem to be."""
    yield from _groups_chosen_twice(parts)
    yield from _networks_outside_models(parts)
    for part in parts:
        if found := without_header(part.path, part.package):
            yield found


def without_header(path: str, package: str) -> str:
    """The problem of an experiment whose content would be merged into a key `experiment`; empty if there is none."""
    if not path.startswith("experiment/") or package.split(".")[0].split("/")[0] != "experiment":
        return ""
    return f"{path}.yaml must begin with # @package _global_, got the package {package}. Add it as the first line."


def _groups_chosen_twice(parts: Sequence[Part]) -> Iterator[str]:
    """Groups that take one option and got a list, or got one option twice: Hydra would merge them into each other."""
    chosen: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        inherits = part.chosen_by.rpartition("/")[0] == part.group
        if not inherits:
            chosen.setdefault((part.group, part.chosen_by), []).append(part.name)
    for (group, _), names in chosen.items():
        if group in LISTED and len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            advice = f"Write the second one as {twice}_2: {{transform: {twice}, …}} in a file."
            if group != "augmentation":
                advice = "Remove one of the two."
            yield f"{group} must name {twice} once, got [{', '.join(names)}]. {advice}"
        elif group not in LISTED and len(names) > 1:
            yield f"{group} must be one choice, got [{', '.join(names)}]. Choose one: {group}={names[-1]}"


def _networks_outside_models(parts: Sequence[Part]) -> Iterator[str]:
    """Networks in files such as experiments, if they would be merged into the chosen one."""
    networks = [part.path for part in parts if part.is_in("model")]
    for part in parts:
        layers = None if part.is_in("model") or part.is_in("hydra") else part.at("model.layers")
        if not (whole := _whole_layers(layers)):
            continue
        if networks:
            rule = f"not hold a network of its own, which would be merged into {networks[-1]}"
            advice = (
                "To use it as written, add override /model: null to its defaults, or write it to model/NAME.yaml. "
                "To change fields of existing layers, leave out their block."
            )
            yield f"{part.path}.yaml must {rule}, got the layers {shortened(', '.join(whole), 80)}. {advice}"
        networks.append(part.path)


def _networks_in_override(override: Override) -> Iterator[str]:
    key, value = override.key_or_group, value_of(override)
    for each in value.list if isinstance(value, ChoiceSweep) else [value]:
        layers = each.get("layers") if key == "model" and isinstance(each, dict) else each
        if key in ("model", "model.layers") and (whole := _whole_layers(layers)):
            rule = "not be a network, which would be merged into the chosen one"
            advice = "Write it to model/NAME.yaml in the folder of --config-dir."
            yield f"{key} must {rule}, got the layers {shortened(', '.join(whole), 80)}. {advice}"


def _whole_layers(layers: Any) -> list[str]:
    """The layers that are written out with their block, rather than only fields of an existing one."""
    pairs = layers.items() if isinstance(layers, dict) else ()
    return [str(name) for name, fields in pairs if isinstance(fields, dict) and "block" in fields]
