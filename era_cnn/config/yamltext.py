"""Writes YAML, and reads it safely: plain values only, within limits on size and depth.

Values are interpreted as by OmegaConf: `1e-3` is a number, a date is a string, a duplicate key is an error.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor

from era_cnn.errors import ConfigError, problem

MAX_ENTRIES = 10_000
MAX_DEPTH = 20
MAX_DIGITS = 100
MAX_INTERPOLATIONS = 200

_FLOAT = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
"""OmegaConf's pattern for floats; PyYAML's own requires a decimal point."""


class _TooManyEntriesError(Exception):
    """A document is too large, even without its aliases."""


class _Limited(Composer, SafeConstructor):
    """Limits the size of a document, and what its mappings may hold."""

    num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Stops in a document that is too large, of which each entry takes a kilobyte of memory."""
        self.num_nodes += 1
        if self.num_nodes > MAX_ENTRIES:
            raise _TooManyEntriesError
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuses a duplicate key, where PyYAML would take the last value."""
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag != yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG:
                continue
            if key.value in keys:
                where = "while constructing a mapping", node.start_mark
                raise yaml.constructor.ConstructorError(*where, f"found duplicate key {key.value}", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Loader(_Limited, yaml.SafeLoader):
    """Reads whatever is YAML."""


_CLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _FastLoader(_Limited, _CLoader):  # type: ignore[misc, valid-type]
    """Reads what `_is_simple`, in a quarter of the time: the text is split in C, and nodes are composed as above."""

    def __init__(self, text: str) -> None:
        _CLoader.__init__(self, text)
        Composer.__init__(self)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # in C: ten times as fast
    """Quotes the strings that `_Loader` would read as numbers."""


for _class in (_Loader, _FastLoader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")} | {None}
for _reader in (_Loader, _FastLoader):
    _reader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _reader.yaml_implicit_resolvers.items()
    }
    _reader.yaml_constructors = {tag: make for tag, make in _reader.yaml_constructors.items() if tag in _PLAIN}


_SIMPLE_LINE = re.compile(
    r" *(?:- )*(?:[\w./-]+:(?: +|$))?(?:[\w./+~][\w./+~=, -]*|-[\w.][\w./+~=, -]*|\{\}|\[\]|'[\w., ]*')?", re.ASCII
)
"""A line that this program writes into a config, if it holds no unusual string. PyYAML reads such lines the same way in
Python and in C, which disagree on some others (`test_what_is_read_fast_is_read_the_same`)."""


def _is_simple(text: str) -> bool:
    return text.endswith("\n") and all(map(_SIMPLE_LINE.fullmatch, text.split("\n")))


def as_yaml(values: Any) -> str:
    """Plain values as YAML, in their order; `parse_yaml` reads the same values back.

    Raises:
        ConfigError: If a string can't be written as UTF-8.
    """
    return dump(values, _Dumper)


def dump(values: Any, dumper: Callable[..., Any]) -> str:
    """Values as YAML, in their order.

    A mapping is written entry by entry, and so is one that is the only entry of another: the configs of a sweep's jobs
    have most entries in common, and what was written before is remembered.

    Raises:
        ConfigError: If a string can't be written as UTF-8: the path of a folder whose name is in another encoding.
    """
    try:
        if not isinstance(values, dict) or not values:
            return _written(pickle.dumps(values), dumper)
        name, inner = next(iter(values.items()))
        is_alone = len(values) == 1 and isinstance(inner, dict) and inner
        if not (is_alone and re.fullmatch(r"\w{1,80}", str(name))):
            return "".join(_written(pickle.dumps({key: value}), dumper) for key, value in values.items())
        pieces = [_written(pickle.dumps({name: {key: value}}), dumper) for key, value in inner.items()]
        first_line = pieces[0].partition("\n")[0] + "\n"
        return first_line + "".join(piece.removeprefix(first_line) for piece in pieces)
    except UnicodeEncodeError as error:
        raise ConfigError([problem("A path", "be valid UTF-8", error.object, "Rename the folder.")]) from error


@functools.lru_cache(maxsize=1024)
def _written(pickled: bytes, dumper: Callable[..., Any]) -> str:
    return str(yaml.dump(pickle.loads(pickled), Dumper=dumper, sort_keys=False, allow_unicode=True))


def parse_yaml(name: str, text: str) -> dict[Any, Any]:
    """The mapping in a YAML document; `name` is the file that it comes from, for messages.

    Raises:
        ConfigError: If the document is not valid YAML or not a mapping, or exceeds a limit.
    """
    if text.count("${") > MAX_INTERPOLATIONS:
        rule = f"hold at most {MAX_INTERPOLATIONS} interpolations"
        raise ConfigError([problem(name, rule, text.count("${"), "Write the values themselves.")])
    is_simple = _is_simple(text)
    if is_simple and (remembered := _read_by_entry(text)) is not None:
        return remembered
    try:
        loader = (_FastLoader if is_simple else _Loader)(text)
        root = loader.get_single_node()
        if root is not None:
            _check_entries(name, root)
        values = {} if root is None else loader.construct_document(root)
    except ConfigError:
        raise
    except _TooManyEntriesError:
        raise ConfigError([_too_large(name, "more")]) from None
    except RecursionError:  # PyYAML recurses, and fails at a few hundred levels
        raise ConfigError([_too_deep(name, "many more")]) from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # PyYAML raises the latter two for malformed values
        reason = " ".join(str(error).split())
        raise ConfigError([f"{name} must be valid YAML, got: {reason}. Check the file."]) from error
    if not isinstance(values, dict):
        raise ConfigError([problem(name, "hold a mapping", values, "Write it as key: value.")])
    return values


_ENTRY = re.compile(r"(?m)^(?=[^\s-])")
"""Where the next entry of the outermost mapping of a simple text may begin."""
_MAX_REMEMBERED = 50_000


def _read_by_entry(text: str) -> dict[Any, Any] | None:
    """A simple text, read entry by entry, of which those are remembered that were read before; None if it can't be.

    The configs of a sweep's jobs have most entries in common. A simple text has no anchors and no strings of several
    entries, so its entries mean the same alone.
    """
    if len(text) > _MAX_REMEMBERED:
        return None
    before, *pieces = _ENTRY.split(text)
    if before:
        return None
    values: dict[Any, Any] = {}
    weight = 1
    for number, piece in enumerate(pieces, 1):
        entry, entries = _read_entry(piece)
        values |= pickle.loads(entry)
        weight += entries - 1
        if len(values) != number or weight > MAX_ENTRIES:
            return None
    return values or None


@functools.lru_cache(maxsize=1024)
def _read_entry(text: str) -> tuple[bytes, int]:
    """The mapping of one entry, pickled since values can be changed, and its size; an empty one for anything else."""
    loader = _FastLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            return pickle.dumps({}), 1
        entries = _check_entries("", root)
        return pickle.dumps(loader.construct_document(root)), entries
    except (_TooManyEntriesError, RecursionError, ConfigError, yaml.YAMLError, ValueError, TypeError):
        return pickle.dumps({}), 1  # the whole text is read again, for a message that says where


def _check_entries(name: str, root: yaml.Node) -> int:
    """The number of entries, with aliases expanded; raises a `ConfigError` if a document is too large or too deep."""
    weighed: dict[int, tuple[int, int] | None] = {}  # node id to its entries and depth; None while it is being weighed

    def weigh(node: yaml.Node) -> tuple[int, int]:
        if id(node) in weighed:
            known = weighed[id(node)]
            if known is None:
                raise ConfigError([f"{name} must be finite, got an alias that contains itself. Write it out."])
            return known
        weighed[id(node)] = None
        entries, depth = 1, 0
        if isinstance(node, yaml.ScalarNode):
            _check_number(name, node)
        else:
            pairs = isinstance(node, yaml.MappingNode)
            for child in (part for pair in node.value for part in pair) if pairs else node.value:
                more, deep = weigh(child)
                entries, depth = entries + more, max(depth, deep)
        weighed[id(node)] = entries, depth + 1
        return entries, depth + 1

    entries, depth = weigh(root)
    if depth > MAX_DEPTH:
        raise ConfigError([_too_deep(name, depth)])
    if entries > MAX_ENTRIES:
        got = f"{entries:,}" if entries < 10**12 else "more than can be counted"
        raise ConfigError([_too_large(name, got)])
    return entries


def _check_number(name: str, node: yaml.ScalarNode) -> None:
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
        raise ConfigError(
            [problem(name, f"hold no number of more than {MAX_DIGITS} digits", node.value, "Shorten it.")]
        )


def _too_large(name: str, got: str) -> str:
    return f"{name} must have at most {MAX_ENTRIES:,} entries, got {got}. Split it, or remove aliases."


def _too_deep(name: str, got: object) -> str:
    return f"{name} must be nested at most {MAX_DEPTH} levels deep, got {got}. Make it flatter."
