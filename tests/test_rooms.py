"""Who imports whom: the direction that CONTRIBUTING.md gives, and nothing against it."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import era_cnn

PACKAGE = Path(era_cnn.__file__).parent

BELOW_ALL = {
    "errors",
    "nearest",
    "refusals",
    "randomness",
    "machine",
    "portable",
    "processor",
    "output",
    "paths",
    "sharing",
    "signals",
}
MAY_IMPORT = {
    "config": set(),
    "data": {"config"},
    "models": {"config"},
    "training": {"config", "data", "models"},
    "folders": {"config"},
    "reports": {"config", "folders"},
    "runs": {"config", "data", "models", "training", "folders", "reports"},
    "compose": {"config"},
    "use": {"config", "data", "models", "training", "folders", "reports", "runs", "compose"},
    "sweeps": {"config", "folders", "reports", "runs", "compose"},
    "terminal": set(),
    "verbs": {"config", "folders", "reports", "runs", "compose", "use", "sweeps"},
}
WHEN_CALLED = {("compose", "models"), ("compose", "api")}
"""The exceptions: CONTRIBUTING.md has their reasons. They may not be imported with the module."""


def imports_of(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Each room that a module imports, and whether that is inside a function; imports for types alone do not count."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("era_cnn."):
                yield (child.module or "").split(".")[1], inside
            elif isinstance(child, ast.ImportFrom) and child.module == "era_cnn":
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.Import):
                yield from (
                    (alias.name.split(".")[1], inside) for alias in child.names if alias.name.startswith("era_cnn.")
                )
            yield from visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from visit(tree, False)


def wrong_imports(room: str, text: str) -> list[str]:
    allowed = {room, *MAY_IMPORT[room], *BELOW_ALL}
    return [
        f"{room} imports {other}"
        for other, when_called in imports_of(ast.parse(text))
        if other not in allowed and not (when_called and (room, other) in WHEN_CALLED)
    ]


def test_every_room_is_listed() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == MAY_IMPORT.keys() - {"terminal"}


def test_every_package_goes_into_the_wheel() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split()) - {"era_cnn.conf"}
    assert listed == {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_import_runs_upward(room: str) -> None:
    files = sorted(PACKAGE.glob(f"{room}/**/*.py")) or [PACKAGE / f"{room}.py"]
    found = {str(path.relative_to(PACKAGE)): wrong_imports(room, path.read_text(encoding="utf-8")) for path in files}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("room", "text", "wrong"),
    [
        ("config", "from era_cnn.data.sets import x", ["config imports data"]),
        ("config", "def f():\n    from era_cnn.data.sets import x", ["config imports data"]),
        ("config", "import era_cnn.runs.run", ["config imports runs"]),
        ("data", "from era_cnn import training", ["data imports training"]),
        ("compose", "from era_cnn.models.build import x", ["compose imports models"]),
        ("compose", "def f():\n    from era_cnn.models.build import x", []),
        ("folders", "if TYPE_CHECKING:\n    from era_cnn.training.history import x", []),
    ],
)
def test_an_import_against_the_direction_is_found(room: str, text: str, wrong: list[str]) -> None:
    assert wrong_imports(room, text) == wrong


def names_that_are_missing(text: str) -> Iterator[str]:
    """What a file imports from the package, at any depth, that is not there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "era_cnn":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                is_module = (
                    importlib.util.find_spec(f"{node.module}.{alias.name}") if hasattr(module, "__path__") else None
                )
                if not (hasattr(module, alias.name) or is_module):
                    yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("folder", ["benchmarks", "tests"])
def test_benchmarks_and_campaigns_import_only_what_exists(folder: str) -> None:
    """They run rarely, and some of their imports only when they do."""
    files = sorted((PACKAGE.parent / folder).rglob("*.py"))
    missing = {path.name: list(names_that_are_missing(path.read_text(encoding="utf-8"))) for path in files}
    assert len(files) > 10
    assert {name: names for name, names in missing.items() if names} == {}


def test_an_import_of_a_missing_name_is_found() -> None:
    text = "def f():\n    from era_cnn.runs.process import keep_memory, set_up\n    from era_cnn.runs import run"
    assert list(names_that_are_missing(text)) == ["era_cnn.runs.process.keep_memory"]
