"""Code from outside the package: files named on the command line, and installed packages with entry points.

A config never imports anything. An entry point is in the group `era_cnn.plugins`, has the name `kind.name` (such as
`block.squeeze`), and is imported when that name is used. `config.NAME` names a package of config groups. An entry point
that can't be used is ignored with a notice, and one name of two packages is refused where it is used: the rest works.
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

from era_cnn.config.groups import KINDS
from era_cnn.errors import ConfigError, EraCnnError, problem, shortened
from era_cnn.output import complain

GROUP = "era_cnn.plugins"
CONFIG = "config"
POINT_KINDS = ("block", *KINDS.values(), CONFIG)
"""The kinds of entry points: those of entries, and that of config groups."""

ADVICE = "update the package, or uninstall it."

NAME = "[a-z][a-z0-9_]*"
"""What an entry may be called: it is typed in YAML and on the command line."""

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

    A package that can't be imported gets one notice: what names none of its configs works without it.

    Raises:
        ConfigError: If a `CONFIG_DIR` is not a folder.
    """
    folders = {plugin.config_dir: plugin.name for plugin in imported() if plugin.config_dir}
    of_configs = [point for points in entry_points(CONFIG).values() for point in points]
    for folder, name in folders.items():
        if not Path(folder).is_dir():
            raise ConfigError([f"In the plugin {name}: {problem('CONFIG_DIR', 'be a folder', folder, 'Create it.')}"])
    packages = sorted({point.value for point in of_configs if _is_importable(point)})
    return [*(f"file://{Path(folder).resolve()}" for folder in folders), *(f"pkg://{name}" for name in packages)]


@functools.cache
def _is_importable(point: metadata.EntryPoint) -> bool:
    try:
        importlib.import_module(point.value)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - Hydra would ignore some, and fail for others
        groups = f"The config groups {point.value} of {package_of(point)}"
        complain(f"{groups} must be importable, got {_reason(error)}. They are ignored: {ADVICE}")
        return False
    return True


def _reason(error: BaseException) -> str:
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()), 400).rstrip(".")


def _advice(name: str, error: BaseException) -> str:
    """What to do about a plugin that can't be imported.

    The folder of a file is not searched for what it imports, as it is for a script: a `random.py` in it would replace
    the one of Python for the whole process.
    """
    missing = (getattr(error, "name", None) or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    folder = Path(name).parent
    if missing and Path(name).is_absolute() and ((folder / f"{missing}.py").exists() or (folder / missing).is_dir()):
        return f"{missing} is beside it, where Python does not search: set PYTHONPATH={folder}, or install it."
    return "Fix it, or leave it out." if Path(name).is_absolute() else f"{ADVICE[0].upper()}{ADVICE[1:]}"


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
        with _importing(point.module, lambda: sys.modules[point.module], f"{point.module} of {package_of(point)}"):
            importlib.import_module(point.module)


def forget(path: Path) -> None:
    """Undoes `import_file`, so that a wrong file can be imported again once it is fixed."""
    _imported.pop(str(path.resolve()), None)


def entry_points(kind: str) -> dict[str, list[metadata.EntryPoint]]:
    """The usable entry points of installed plugins for one kind, by name; nothing is imported.

    A name has several if different packages have it.
    """
    found: dict[str, list[metadata.EntryPoint]] = {}
    for point in _all_entry_points():
        of_kind, _, name = point.name.partition(".")
        if of_kind == kind and _fault(point) is None:
            same = found.setdefault(name, [])
            same += [point] if point.value not in [each.value for each in same] else []
    return found


def entry_point(kind: str, name: str) -> metadata.EntryPoint | None:
    """The entry point of that name, if there is one.

    Raises:
        ConfigError: If several packages have it.
    """
    points = entry_points(kind).get(name, [])
    if len(points) > 1:
        got = " and ".join(f"{point.value} of {package_of(point)}" for point in points)
        raise ConfigError([f"{kind}.{name} must be registered once, got {got}. Uninstall all but one."])
    return points[0] if points else None


def package_of(point: metadata.EntryPoint) -> str:
    """The installed package that has an entry point, as pip calls it."""
    return f"the package {point.dist.name}" if point.dist else "an unknown package"


def faults() -> list[str]:
    """A notice for each entry point that can't be used; nothing is imported."""
    found = [(point, fault) for point in _all_entry_points() if (fault := _fault(point))]
    return [
        f"The entry point {point.name} of {package_of(point)} must {fault}. It is ignored: {ADVICE}"
        for point, fault in found
    ]


def _fault(point: metadata.EntryPoint) -> str | None:
    """What an entry point must be and is not, with what it is; None if it can be used."""
    kind, _, name = point.name.partition(".")
    if kind not in POINT_KINDS or not name:
        return f"be called KIND.NAME, with one of the kinds {', '.join(POINT_KINDS)}, got {point.name!r}"
    if kind != CONFIG and not re.fullmatch(NAME, name):
        return f"have a name of lower-case letters, digits and _, got {name!r}"
    if not point.pattern.match(point.value):
        return f"name a module, got {point.value!r}"
    if kind == CONFIG and not _is_package(point.value):
        return f"name a package of config groups, got {point.value!r}"
    return None


def _is_package(name: str) -> bool:
    """Whether there is such a package; nothing is imported."""
    top, *inner = name.split(".")
    try:
        spec = util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    return any(place.joinpath(*inner).is_dir() or not place.is_dir() for place in places)  # a place may be an archive


@functools.cache
def _all_entry_points() -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=GROUP))


@contextmanager
def _importing(name: str, module: Callable[[], ModuleType], title: str | None = None) -> Iterator[None]:
    """Turns what an import raises into one message, and notes what was imported.

    Args:
        name: The absolute path of a file, or the name of a module.
        module: Gives the module once it is imported.
        title: What a message calls it; None for its name.

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
        raise ConfigError([f"In the plugin {title or name}: {each}" for each in problems]) from error
    except (Exception, SystemExit) as error:
        _forget_since(known)
        rule = f"The plugin {title or name} must be importable"
        raise ConfigError([f"{rule}, got {_reason(error)}. {_advice(name, error)}"]) from error
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
    if folder is not None and not (isinstance(folder, str | Path) and str(folder)):
        advice = 'Write CONFIG_DIR = "conf", relative to the file.'
        raise ConfigError([problem("CONFIG_DIR", "be the path of a folder", folder, advice)])
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
