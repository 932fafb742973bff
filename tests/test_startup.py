"""What a command imports decides how soon it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from era_cnn.compose.words import Words
from era_cnn.use import catalogue as module
from era_cnn.use.catalogue import catalogue

RUN = ("data=digits", "trainer=smoke", "trainer.limit_train_images=64")


def imported(*words: str, code: int = 0, **environment: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps(list(sys.modules)), file=sys.__stderr__))\n"
        "from era_cnn.cli import main\nsys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
SLOW = {"torch", "sklearn", "torchvision", "torchinfo", *COMPILER}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--help",), 0),
        (("--cfg", "job"), 0),
        (("optimizer.lr=-1",), 2),
        (("optimizr.lr=1",), 2),
        (("-m", "seed=x"), 2),
    ],
)
def test_questions_and_wrong_configs_are_answered_without_torch(words: tuple[str, ...], code: int) -> None:
    assert not imported(*words, code=code) & SLOW


def test_a_question_is_answered_without_the_schema() -> None:
    assert "pydantic" not in imported("--cfg", "job")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_run_imports_no_compiler(optimizer: str) -> None:
    found = imported(*RUN, f"optimizer={optimizer}")
    assert "torch" in found
    assert not found & (COMPILER | {"torchvision"})


def test_describing_a_network_imports_no_compiler() -> None:
    assert not imported("describe") & COMPILER


def test_the_table_of_the_experiments_is_remembered(tmp_path: Path) -> None:
    assert "torch" in imported("models", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert not imported("models", XDG_CACHE_HOME=str(tmp_path / "cache")) & SLOW


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "era_cnn"


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff\xfe", b"0\n[]"])
def test_a_damaged_memory_is_made_anew(damage: bytes, cache_dir: Path) -> None:
    entries = catalogue(Words())
    (path,) = cache_dir.iterdir()
    path.write_bytes(damage)
    assert catalogue(Words()) == entries
    assert path.read_bytes() != damage


def test_where_nothing_can_be_remembered_it_is_only_slower(cache_dir: Path) -> None:
    cache_dir.write_text("a file where the folder would be", encoding="utf-8")
    assert [entry.experiment for entry in catalogue(Words())]


def test_other_code_has_another_memory(cache_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = module._digest()
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(module.era_cnn, "__file__", str(package / "__init__.py"))
    assert module._digest() != before
