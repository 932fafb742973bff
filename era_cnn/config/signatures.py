"""The schema of an entry's fields, made from its signature; what a plugin's signature must be, with a message each."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from pydantic import ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from era_cnn.config.sections import Choice, Section
from era_cnn.errors import ConfigError, problem


def is_own(entry: Any) -> bool:
    """Whether an entry is built in."""
    return bool(entry.__module__.startswith("era_cnn."))


def place_of(entry: Any) -> str:
    """Where an entry is defined, as messages name it."""
    return f"{entry.__module__}.{entry.__qualname__}"


@functools.cache  # reading a signature takes as long as making a layer
def keyword_parameters(entry: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """The keyword-only parameters of an entry: its fields."""
    return tuple(each for each in inspect.signature(entry).parameters.values() if each.kind is each.KEYWORD_ONLY)


@functools.cache
def given_parameters(entry: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional parameters of an entry."""
    parameters = inspect.signature(entry).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)


RESERVED = {"block": {"block", "input", "inputs"}, "transform": {"probability", "transform"}}
"""The names that no field of an entry may have, by kind."""


@functools.cache
def section_of(
    kind: str, base: type[Section], given: tuple[str, ...], name: str, entry: Callable[..., Any]
) -> type[Section]:
    """The schema of an entry's fields, made from the keyword parameters of its constructor or function."""
    _check_parameters(f"{kind}.{name}", given, entry)
    fields: dict[str, Any] = {"name": (Literal[name], ...)} if issubclass(base, Choice) else {}
    reserved = RESERVED.get(kind, {*fields})
    for parameter in keyword_parameters(entry):
        if parameter.name in reserved:
            raise ConfigError([f"{kind}.{name} must have no field called {parameter.name}, got one. Rename it."])
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (_annotation(entry, parameter), default)
    if not is_own(entry) and (problems := list(unbounded(kind, name, fields))):
        raise ConfigError(problems)  # first, since pydantic names no field where it refuses a range
    try:
        title = f"{name}_{kind}".title().replace("_", "")
        section = create_model(title, __base__=base, __doc__=inspect.getdoc(entry), **fields)
    except Exception as error:  # pydantic raises various types for a plugin's annotations
        reason = " ".join(str(error).split())
        raise ConfigError([f"{kind}.{name} must have annotated fields, got: {reason}. Fix them."]) from error
    if not is_own(entry) and (problems := list(wrong_defaults(kind, name, section))):
        raise ConfigError(problems)
    return section


def _check_parameters(name: str, given: tuple[str, ...], entry: Callable[..., Any]) -> None:
    """Raises a `ConfigError` if an entry takes what nobody gives it."""
    for each in inspect.signature(entry).parameters.values():
        is_given = each.kind is each.POSITIONAL_OR_KEYWORD and each.name in given
        if not (is_given or each.kind is each.KEYWORD_ONLY):
            known = f"any of {', '.join(given)}" if given else "nothing"
            rule = f"take {known} by position, and its fields behind a *"
            has_none = isinstance(entry, type) and "__init__" not in vars(entry)
            advice = "Write an __init__ for it." if has_none else "Change its signature."
            raise ConfigError([f"{name} must {rule}, got the parameter {each}. {advice}"])


def _annotation(entry: Any, parameter: inspect.Parameter) -> Any:
    """The type of one field, resolved alone: other annotations may use names imported only under TYPE_CHECKING."""
    function: Any = entry.__init__ if isinstance(entry, type) else entry  # type: ignore[misc]
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return get_type_hints(alone, globalns=function.__globals__, include_extras=True)[parameter.name]
    except (NameError, TypeError, AttributeError) as error:
        got = f"{error}. Import the type at run time."
        raise ConfigError([f"{place_of(entry)} must have an annotation for {parameter.name}, got: {got}"]) from error


def unbounded(kind: str, name: str, fields: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """The numeric fields of a plugin's entry, given as type and default, that have no range, or one without an end."""
    for field_name, (annotation, default) in fields.items():
        types = set(_unbounded_types(annotation, [default] if isinstance(default, FieldInfo) else ()))
        if types:
            advice = "Write it as Annotated[float, Field(ge=0, le=1, description=…)]."
            got = ", ".join(sorted(each.__name__ for each in types))
            yield f"{kind}.{name} must state a finite range of its field {field_name}, got {got} without one. {advice}"


def wrong_defaults(kind: str, name: str, section: type[Section]) -> Iterator[str]:
    """The defaults that their own fields refuse: nobody could write them in a config."""
    for field_name, field in section.model_fields.items():
        if field.is_required():
            continue
        default = field.get_default(call_default_factory=True)
        value: Any = (Annotated[field.annotation, field], ...)
        alone = create_model(name, __config__=ConfigDict(strict=True, allow_inf_nan=False), value=value)
        try:
            alone.model_validate_json(to_json({"value": default}))  # as text, where a tuple is a list
        except (ValidationError, PydanticSerializationError):
            rule = f"give its field {field_name} a default of its own type and range"
            yield problem(f"{kind}.{name}", rule, default, "Change the default, or the annotation.")


def _unbounded_types(annotation: Any, constraints: Sequence[object] = ()) -> Iterator[type]:
    """The numeric types, at any depth of an annotation, that have no range."""
    if get_origin(annotation) is Annotated:
        annotation, *own = get_args(annotation)
        constraints = [*constraints, *own]
    if annotation in (int, float) and not (
        _ends(constraints, {Ge: "ge", Gt: "gt"}) and _ends(constraints, {Le: "le", Lt: "lt"})
    ):
        yield annotation
    for member in get_args(annotation):
        yield from _unbounded_types(member, constraints)


def _ends(constraints: Sequence[object], bounds: Mapping[type, str]) -> bool:
    """Whether a constraint is one of these bounds, by type and attribute, and finite: -inf and inf bound nothing."""
    flat = [each for info in constraints for each in (info.metadata if isinstance(info, FieldInfo) else [info])]
    flat = [each for info in flat for each in (info if isinstance(info, GroupedMetadata) else [info])]
    values = [getattr(each, bounds[type(each)]) for each in flat if type(each) in bounds]
    return any(-math.inf < value < math.inf for value in values)
