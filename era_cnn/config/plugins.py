"""Code from outside the package: files named on the command line, and installed packages with entry points.

A config never imports anything. An entry point is in the group `era_cnn.plugins`, has the name `kind.name` (such as
`block.squeeze`), and is imported when that name is used. `config.NAME` names a package of config groups.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

from era_cnn.errors import ConfigError, EraCnnError, problem, shortened

GROUP = "era_cnn.plugins"
PREFIX = "era_cnn_plugin_"
"""The prefix of the names of modules that come from a file."""


@dataclass(frozen=True)
class Plugin:
    """An imported plugin: `files` are its own files and those it imported, `sha256` is their digest."""

    name: str
    sha256: str
    files: frozenset[str]
    config_dir: str | None
    """The plugin's folder of config groups: `CONFIG_DIR` in its module."""


_imported: dict[str, Plugin] = {}


def imported() -> tuple[Plugin, ...]:
    """The plugins that were imported so far, in order."""
    return tuple(_imported.values())


def config_folders() -> list[str]:
    """Hydra's search paths to the config groups of plugins: the `CONFIG_DIR` of each file, and packages.

    Raises:
        ConfigError: If a `CONFIG_DIR` is not a folder.
    """
    folders = [plugin.config_dir for plugin in imported() if plugin.config_dir]
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError([problem("CONFIG_DIR of a plugin", "be a folder", folder, "Create it.")])
    packages = [point.value for point in entry_points("config").values()]
    return [*(f"file://{Path(folder).resolve()}" for folder in folders), *(f"pkg://{name}" for name in packages)]


def import_file(path: Path) -> None:
    """Imports a Python file, once.

    Raises:
        ConfigError: If it can't be imported.
    """
    name = str(path.resolve())
    if name in _imported:
        return
    module_name = PREFIX + re.sub(r"\W", "_", path.stem) + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    spec = util.spec_from_file_location(module_name, name)
    if spec is None or spec.loader is None:
        raise ConfigError([problem("--plugin", "be a file of Python code", str(path), "Give one that ends in .py.")])
    module = util.module_from_spec(spec)
    with _importing(name, lambda: module):
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise


def import_entry_point(point: metadata.EntryPoint) -> None:
    """Imports the module that an entry point names, once.

    Raises:
        ConfigError: If it can't be imported.
    """
    if point.module not in _imported:
        with _importing(point.module, lambda: sys.modules[point.module]):
            importlib.import_module(point.module)


def forget(path: Path) -> None:
    """Undoes `import_file`, so that a wrong file can be imported again once it is fixed."""
    _imported.pop(str(path.resolve()), None)


def entry_points(kind: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of installed plugins for one kind, by name; nothing is imported.

    Raises:
        ConfigError: If two of them have the same name.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for point in _all_entry_points():
        of_kind, _, name = point.name.partition(".")
        if of_kind != kind or not name:
            continue
        if name in found and found[name].value != point.value:
            both = f"{found[name].value} and {point.value}"
            raise ConfigError([f"{point.name} must be registered once, got {both}. Uninstall one of the two."])
        found[name] = point
    return found


@functools.cache
def _all_entry_points() -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=GROUP))


@contextmanager
def _importing(name: str, module: Callable[[], ModuleType]) -> Iterator[None]:
    """Turns what an import raises into one message, and notes what was imported.

    Raises:
        ConfigError: If it fails. Modules that came with it are then imported again the next time.
    """
    known, before = set(sys.modules), sys.dont_write_bytecode
    # Bytecode counts as current while a file has the same size and second of change: after a quick edit, the digest
    # would be of the new code and the results of the old one.
    sys.dont_write_bytecode = True
    try:
        yield
        _note(name, module())
    except EraCnnError as error:
        _forget_since(known)
        problems = getattr(error, "problems", (str(error),))
        raise ConfigError([f"In the plugin {name}: {each}" for each in problems]) from error
    except (Exception, SystemExit) as error:
        _forget_since(known)
        reason = shortened(" ".join(f"{type(error).__name__}: {error}".split()), 400)
        raise ConfigError([f"The plugin {name} must be importable, got {reason}. Fix it, or leave it out."]) from error
    finally:
        sys.dont_write_bytecode = before


def _forget_since(known: set[str]) -> None:
    for name in sys.modules.keys() - known:
        if _own_file(sys.modules[name]):
            del sys.modules[name]


def _note(name: str, module: ModuleType) -> None:
    """Notes a plugin with the digest of its file and of all files outside of the environment that it uses."""
    files = sorted(_files_of(module), key=lambda file: (Path(file).name, file))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{Path(file).name}\0".encode() + Path(file).read_bytes())
    folder = getattr(module, "CONFIG_DIR", None)
    config_dir = str(Path(module.__file__ or "").parent / folder) if folder else None
    _imported[name] = Plugin(name, digest.hexdigest(), frozenset(files), config_dir)


def _files_of(module: ModuleType) -> set[str]:
    """The file of a module, those of its package, and those of the user's own that they import, at any depth."""
    package = module.__name__.partition(".")[0]
    siblings = [each for name, each in sys.modules.items() if name.partition(".")[0] == package]
    files: set[str] = set()
    pending = {file for each in (module, *siblings) if (file := getattr(each, "__file__", None))}
    while pending:
        files.add(file := pending.pop())
        found = {own for name in _imports_of(file) if (own := _own_file_of(name))}
        pending |= found - files
    return files


def _imports_of(file: str) -> set[str]:
    """The names of all modules that a file of Python code imports, also within functions."""
    names: set[str] = set()
    if not file.endswith(".py"):
        return names
    for node in ast.walk(ast.parse(Path(file).read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _own_file_of(name: str) -> str | None:
    """The file of a module of the user's own, by its name; nothing is imported."""
    if name in sys.modules:
        return _own_file(sys.modules[name])
    if "." in name or (spec := util.find_spec(name)) is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return None if _is_installed(spec.origin) else spec.origin


def _own_file(module: ModuleType) -> str | None:
    """The file of a module that is neither installed nor part of this package; None of any other."""
    file = getattr(module, "__file__", None)
    is_ours = module.__name__.partition(".")[0] in ("era_cnn", "__main__")
    return file if file and file.endswith(".py") and not is_ours and not _is_installed(file) else None


def _is_installed(file: str) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return "site-packages" in file or any(file.startswith(place) for place in places)
