"""Digests of the code of entries from outside the package, for provenance."""

from __future__ import annotations

import hashlib
import inspect
from types import CodeType
from typing import Any

from era_cnn.config import plugins
from era_cnn.config.choices import REGISTRIES, file_of
from era_cnn.config.signatures import is_own


def plugin_digests() -> dict[str, str]:
    """The digest of the code of each entry that is not built in, by kind and name, such as `block.squeeze`.

    It covers all files of the entry's plugin; for an entry that was registered by hand, as in a notebook, its source.
    """
    by_file = {file: plugin.sha256 for plugin in plugins.imported() for file in plugin.files}
    return {
        f"{kind}.{name}": by_file.get(file_of(entry)) or hashlib.sha256(_source_of(entry).encode()).hexdigest()
        for kind, registry in REGISTRIES.items()
        for name, entry in registry.imported().items()
        if not is_own(entry)
    }


def _source_of(entry: Any) -> str:
    """The source of an entry; if it was typed at a prompt, what its functions compute."""
    try:
        return inspect.getsource(entry)
    except (OSError, TypeError):
        return repr(_compiled(entry))


def _compiled(entry: Any) -> Any:
    """The instructions and constants of a function, or of all functions of a class."""
    if isinstance(entry, type):
        own = {name: _compiled(value) for name, value in vars(entry).items() if not name.startswith("__doc")}
        return {name: value for name, value in own.items() if value is not None}
    if code := getattr(entry, "__code__", None):
        return _instructions(code), entry.__defaults__, entry.__kwdefaults__
    return entry if isinstance(entry, int | float | str | tuple | bool) else None


def _instructions(code: CodeType) -> Any:
    constants = [_instructions(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return code.co_code.hex(), constants, code.co_names
