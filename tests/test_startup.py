"""What a command imports decides how soon it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from era_cnn.compose.words import Words
from era_cnn.config.choices import OPTIMIZERS
from era_cnn.use import catalogue as module
from era_cnn.use.catalogue import Entry, catalogue

RUN = ("data=digits", "trainer=smoke", "threads=1", "trainer.limit_train_images=64", "trainer.limit_test_images=50")


def imported(*commands: tuple[str, ...], code: int = 0, unwanted: set[str] = frozenset()) -> set[str]:
    """The modules that a new interpreter has imported after these commands, all of which end with a code.

    None of the commands may import what is unwanted.
    """
    program = (
        "import json, sys\nfrom era_cnn.cli import main\n"
        "commands, code, unwanted = json.loads(sys.argv[1])\n"
        "for words in commands:\n"
        "    assert main(words) == code, words\n"
        "    assert not set(unwanted) & set(sys.modules), words\n"
        "print('\\n' + json.dumps(list(sys.modules)), file=sys.stderr)"
    )
    arguments = json.dumps([commands, code, sorted(unwanted)])
    done = subprocess.run([sys.executable, "-c", program, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
SLOW = {"torch", "scipy", "sklearn", "torchvision", "torchinfo", *COMPILER}


QUESTIONS = [("--help",), ("--hydra-help",), ("--cfg", "job"), ("list",)]
WRONG = [
    ("optimizer.lr=-1",), ("optimizr.lr=1",), ("optimizer.lrr=1",), ("model=model_99",), ("-m", "optimizer.lr=-1,-2"),
    ("-m", "seed=x"), ("describe", "sede=1"), ("data", "minst"), ("nonsense",),
]  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize(("commands", "code"), [(QUESTIONS, 0), (WRONG, 2)], ids=["questions", "wrong"])
def test_questions_and_wrong_configs_are_answered_without_torch(
    commands: list[tuple[str, ...]], code: int, tmp_path: Path
) -> None:
    imported(*commands, code=code, unwanted=SLOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_question_is_answered_without_the_schema() -> None:
    assert "pydantic" not in imported(("--cfg", "job"))


@pytest.mark.process
def test_the_version_is_known_without_hydra_and_torch() -> None:
    assert not imported(("--version",)) & {"torch", "hydra", "pydantic"}


@pytest.mark.process
def test_neither_a_description_nor_a_run_imports_a_compiler() -> None:
    recipe = ("trainer.clip_grad_norm=1", "trainer.clip_grad_value=1", "trainer.l1=1e-5", "trainer.ema_decay=0.9")
    runs = [(*RUN, f"optimizer={optimizer}", "report=false", *recipe) for optimizer in OPTIMIZERS]
    found = imported(("describe",), *runs, (*RUN, "report=true"))
    assert "torch" in found
    assert not found & (COMPILER | {"torchvision"})


@pytest.mark.process
def test_the_table_of_the_experiments_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    catalogue(Words())
    assert len(list(tmp_path.glob("cache/*/*"))) == 1
    imported(("models",), unwanted=SLOW)


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "era_cnn"


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Entry], Path]:
    """The table of the experiments, and the file that remembers it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        entries = catalogue(Words()).entries
        (path,) = Path(os.environ["XDG_CACHE_HOME"], "era_cnn").iterdir()
    return entries, path


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff\xfe", b"0\n[]"])
def test_a_damaged_memory_is_made_anew(damage: bytes, remembered: tuple[list[Entry], Path], cache_dir: Path) -> None:
    entries, whole = remembered
    cache_dir.mkdir()
    path = cache_dir / whole.name
    path.write_bytes(damage)
    assert catalogue(Words()).entries == entries
    assert path.read_bytes() == whole.read_bytes()


def test_where_nothing_can_be_remembered_it_is_only_slower(cache_dir: Path) -> None:
    cache_dir.write_text("a file where the folder would be", encoding="utf-8")
    assert catalogue(Words()).entries


def test_other_code_has_another_memory(cache_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = module._digest()
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(module.era_cnn, "__file__", str(package / "__init__.py"))
    assert module._digest() != before


@pytest.mark.process
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "Stopped."), (signal.SIGTERM, 143, "Terminated.")]
)
def test_a_signal_during_the_import_of_torch_ends_the_command_at_once(
    number: int, code: int, said: str, tmp_path: Path
) -> None:
    """In native code, an exception may end as an abort."""
    (tmp_path / "torch").mkdir()
    text = f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    os.abort()\n"
    (tmp_path / "torch" / "__init__.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "era_cnn", "describe", "experiment=model_3", "model.dropout=0.1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{said}\n")
