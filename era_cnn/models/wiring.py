"""Which layer takes which output: that of the layer before it, unless `input` or `inputs` name others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from era_cnn.config.choices import BLOCKS
from era_cnn.config.signatures import given_parameters
from era_cnn.errors import one_of, problem
from era_cnn.models.network import IMAGE
from era_cnn.nearest import did_you_mean

Input = Annotated[str | None, Field(description="the name of an earlier layer, or image")]
Inputs = Annotated[
    list[str] | None, Field(min_length=2, max_length=256, description="two or more names of earlier layers, or image")
]

Layers = Mapping[str, Mapping[str, Any]]


def inputs_of(layers: Layers) -> dict[str, tuple[str, ...]]:
    """The names of each layer's inputs."""
    before = (IMAGE, *layers)
    return {name: _named(spec) or (previous,) for previous, (name, spec) in zip(before, layers.items(), strict=False)}


def is_chain(inputs: Mapping[str, Sequence[str]]) -> bool:
    """Whether each layer takes the output of the one before, and no other."""
    return list(inputs.values()) == [(name,) for name in (IMAGE, *inputs)][:-1]


def _named(spec: Mapping[str, Any]) -> tuple[str, ...]:
    one = spec.get("input")
    return tuple(spec.get("inputs") or ()) or ((one,) if one else ())


def wiring_problems(key: str, layers: Layers) -> Iterator[str]:
    """The problems of `input` and `inputs`, for layers whose fields are valid by themselves."""
    for position, (name, spec) in enumerate(layers.items()):
        yield from _misplaced(f"{key}.{name}", spec)
        yield from _unreachable(f"{key}.{name}", spec, list(layers), position)
    taken = {source for inputs in inputs_of(layers).values() for source in inputs}
    for name in list(layers)[:-1]:
        if name not in taken:
            advice = "Name it as an input, or remove it."
            yield f"{key}.{name} must be the input of a later layer, got none that takes it. {advice}"


def _misplaced(key: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """`input` for a block that merges, `inputs` for one that does not, or inputs that are missing or repeated."""
    block, inputs = spec["block"], spec.get("inputs")
    if "in_shapes" not in given_parameters(BLOCKS[block]):
        if inputs is not None:
            rule = f"not be set for {block}, which has one input"
            yield problem(f"{key}.inputs", rule, inputs, "Set input, or merge them before by {block: add}.")
        return
    if spec.get("input") is not None:
        yield problem(f"{key}.input", f"not be set for {block}, which has several", spec["input"], "Set inputs.")
    if inputs is None:
        yield f"{key}.inputs must be given, got nothing. Name the layers: {key}.inputs=[…]"
    elif len(set(inputs)) < len(inputs):
        yield problem(f"{key}.inputs", "name each layer once", inputs, "Remove the repetition.")


def _unreachable(key: str, spec: Mapping[str, Any], names: list[str], position: int) -> Iterator[str]:
    """Inputs that no earlier layer has as its name."""
    field = "inputs" if spec.get("inputs") else "input"
    earlier = [IMAGE, *names[:position]]
    for source in _named(spec):
        if source in names[position:]:
            advice = f"Move {source} above {names[position]}." if source != names[position] else "Name another."
            yield problem(f"{key}.{field}", "name an earlier layer", source, advice)
        elif source not in earlier:
            yield problem(f"{key}.{field}", one_of(earlier), source, did_you_mean(source, earlier, "Name one of them."))
