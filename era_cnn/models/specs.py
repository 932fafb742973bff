"""The layers of a config: their fields, where these come from, and what is wrong with them regardless of shapes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError, create_model
from torch import nn

from era_cnn.config.choices import BLOCKS
from era_cnn.config.messages import field_problems
from era_cnn.config.network import ModelConfig
from era_cnn.config.sections import FieldError, Own, Section
from era_cnn.errors import problem
from era_cnn.models.blocks.parts import check_used
from era_cnn.models.network import Graph
from era_cnn.models.options import OPTIONS
from era_cnn.models.wiring import Input, Inputs, Layers, wiring_problems

LAYERS = "model.layers"
CLASSES = "classes"
"""Written as a number of channels or features: one for each class."""

SAME = "same"
"""Written as a padding: what keeps height and width."""


def layer_problems(layers: Layers, inherited: Mapping[str, Any]) -> Iterator[str]:
    """The problems of names, blocks and their fields, regardless of shapes."""
    problems = [each for name, spec in layers.items() for each in _problems_of(name, spec, inherited)]
    yield from problems or wiring_problems(LAYERS, layers)


def _problems_of(name: str, spec: Mapping[str, Any], inherited: Mapping[str, Any]) -> Iterator[str]:
    key = f"{LAYERS}.{name}"
    if not name.isidentifier() or name in {*dir(nn.Sequential()), *vars(Graph({}))}:
        yield problem(key, "have a plain name (letters, digits, _)", name, "Rename the layer.")
    elif "block" not in spec:
        yield f"{key}.block must be given, got nothing. Choose one: {', '.join(BLOCKS)}."
    elif not isinstance(spec["block"], str) or spec["block"] not in BLOCKS:
        yield BLOCKS.unknown(f"{key}.block", spec["block"])
    else:
        yield from _problems_of_fields(key, spec, inherited)


def _problems_of_fields(key: str, spec: Mapping[str, Any], inherited: Mapping[str, Any]) -> Iterator[str]:
    schema = _layer_schema(BLOCKS.section(spec["block"]))
    try:
        schema.model_validate(_numbers(spec, num_classes=2))
    except ValidationError as error:
        yield from field_problems(error, schema, prefix=f"{key}.")
        return
    try:
        merged = block_fields(spec, inherited, num_classes=2)
        check_used(spec, merged.model_dump())
        BLOCKS.check(spec["block"], merged)
    except FieldError as error:
        yield problem(f"{key}.{error.field}", error.rule, error.got, error.advice)


@functools.cache
def _layer_schema(section: type[Section]) -> type[Section]:
    """The schema of a layer: the fields of its block, its inputs, and the options of any layer."""
    options = {name: (ModelConfig.model_fields[name].annotation, ModelConfig.model_fields[name]) for name in OPTIONS}
    fields: dict[str, Any] = {"input": (Input, None), "inputs": (Inputs, None), **options}
    return create_model(
        section.__name__,
        __base__=section,
        **{name: field for name, field in fields.items() if name not in section.model_fields},
    )


def block_fields(spec: Mapping[str, Any], inherited: Mapping[str, Any], num_classes: int) -> Section:
    """All fields of a block: from the layer, or else the model, or else the block's defaults.

    Raises:
        FieldError: If `padding: same` can't keep the size.
    """
    schema = BLOCKS.section(spec["block"])
    from_model = {name: value for name, value in inherited.items() if _is_inherited(schema, name)}
    own = {name: value for name, value in _numbers(spec, num_classes).items() if name in schema.model_fields}
    section = schema.model_validate({**from_model, **own})
    return section.model_copy(update={"padding": _same_padding(section)}) if spec.get("padding") == SAME else section


def _is_inherited(schema: type[Section], name: str) -> bool:
    field = schema.model_fields.get(name)
    return field is not None and not any(isinstance(each, Own) for each in field.metadata)


def takes_from_model(name: str, spec: Mapping[str, Any]) -> bool:
    """Whether a layer has the model's value of a field."""
    return name not in spec and not spec.get("bare") and _is_inherited(BLOCKS.section(spec["block"]), name)


def own_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a layer sets itself, unless its block has a field of that name."""
    own = BLOCKS.section(spec["block"]).model_fields
    return {name: spec[name] for name in OPTIONS if name in spec and name not in own}


def _numbers(spec: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """The fields of a layer, with numbers instead of the words `classes` and `same`, whose number follows later."""
    words = {("out_channels", CLASSES): num_classes, ("out_features", CLASSES): num_classes, ("padding", SAME): 0}
    known = BLOCKS.section(spec["block"]).model_fields
    return {
        name: words.get((name, value), value) if name in known and isinstance(value, str) else value
        for name, value in spec.items()
        if name != "block"
    }


def _same_padding(section: Any) -> int:
    """The padding that keeps height and width, as PyTorch has it, for an odd kernel."""
    if section.stride != 1:
        raise FieldError("padding", "be a number where stride is not 1", SAME, "Give the pixels on every side.")
    if section.kernel_size % 2 == 0:
        raise FieldError("padding", "be a number where kernel_size is even", SAME, "Give the pixels on every side.")
    return int(getattr(section, "dilation", 1) * (section.kernel_size // 2))
