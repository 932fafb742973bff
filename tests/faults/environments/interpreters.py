"""How Python itself is started: its options and variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.faults.environments.environment import MODULE, SCRIPT, Environment, variables, with_file, write


def _python(*options: str, is_loud: bool = False, commands: Sequence[str] = ()) -> Environment:
    return Environment(python=[*options, *MODULE], is_loud=is_loud, commands=commands)


def _foreign(place: Path) -> None:
    """A folder of another project, which names its own modules as it likes."""
    for name in ("tests", "conf", "runs", "data", "models", "config", "use", "folders"):
        write(place / "foreign" / name / "__init__.py", b"raise SystemExit('a foreign module was imported')\n")


INTERPRETERS: dict[str, Environment] = {
    "the script": Environment(python=SCRIPT, commands=["run", "sweep", "help"]),
    "python -I": _python("-I", commands=["run", "sweep"]),
    "python -OO": _python("-OO"),
    "python -bb": _python("-bb"),
    "python -v": _python("-v", is_loud=True, commands=["run"]),
    "python -W error": _python("-W", "error"),
    "python -X dev": _python("-X", "dev"),
    "python -X importtime": _python("-X", "importtime", is_loud=True),
    "python -X warn_default_encoding": _python("-X", "warn_default_encoding"),
    "PYTHONOPTIMIZE": variables(PYTHONOPTIMIZE="2"),
    "PYTHONDONTWRITEBYTECODE": variables(PYTHONDONTWRITEBYTECODE="1"),
    "PYTHONHASHSEED": variables(PYTHONHASHSEED="0"),
    "PYTHONWARNINGS": variables(PYTHONWARNINGS="error"),
    "PYTHONSTARTUP": with_file((), b"raise SystemExit(9)\n", PYTHONSTARTUP="PLACE/file"),
    "PYTHONMALLOC=debug": variables(PYTHONMALLOC="debug"),
    "PYTHONSAFEPATH": variables(PYTHONSAFEPATH="1"),
    "PYTHONPYCACHEPREFIX a file": with_file(PYTHONPYCACHEPREFIX="PLACE/file", PYTHONDONTWRITEBYTECODE=None),
    "PYTHONPATH missing": variables(PYTHONPATH="/nonexistent:PLACE/nothing:/dev/null"),
    "PYTHONPATH of another project": Environment({"PYTHONPATH": "PLACE/foreign"}, prepare=_foreign, commands=["run", "sweep"]),
    "a sitecustomize that fails": Environment(
        {"PYTHONPATH": "PLACE/site"}, prepare=lambda place: write(place / "site" / "sitecustomize.py", b"raise ImportError\n"), is_loud=True
    ),
    "a sitecustomize with its own logging": Environment(
        {"PYTHONPATH": "PLACE/site"},
        prepare=lambda place: write(place / "site" / "sitecustomize.py", b"import logging\nlogging.basicConfig(level=30)\nlogging.captureWarnings(True)\n"),
    ),
    "a sitecustomize that spawns": Environment(
        {"PYTHONPATH": "PLACE/site"},
        prepare=lambda place: write(place / "site" / "sitecustomize.py", b"import multiprocessing\nmultiprocessing.set_start_method('spawn')\n"),
        commands=["run", "sweep"],
    ),
}  # fmt: skip
