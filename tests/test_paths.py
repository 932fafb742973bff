"""Paths as they are typed: what a shell should have replaced never becomes the name of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from era_cnn.cli import VERBS
from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.output import shown
from era_cnn.paths import current_folder, expanded, typed_path
from tests.helpers import unprivileged

SMALL = ["data=digits", "trainer=smoke", "threads=1"]
UNEXPANDED = [
    "$HOME/x", "${HOME}/x", "a/$USER/b", "$(pwd)", "`pwd`/x", "~nobody-of-that-name/x", "a/~/b", "./~", '"/data"', "'a b'", '"~/x',
    "“data”", "s3://bucket/x", "file:///data",
]  # fmt: skip
TOO_LONG = ["x" * 300, "a/b/" + "x" * 300 + "/run", "/".join(["y" * 200] * 19) + "/" + "z" * 120]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of the user, which is not the current directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.parametrize("text", UNEXPANDED)
def test_what_no_shell_has_replaced_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^data.root must be a path without quotes, variables and the like, got "):
        typed_path("data.root", text)


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\x1bb"])
def test_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="^data.root must be a path without line breaks and the like, got "):
        typed_path("data.root", text)


@pytest.mark.parametrize(
    "text", ["a b", "it's a place, 100% ü=1", "cost$5", "dads' things", "a~", "x/~y", "C:/x", "a:b"]
)
def test_unusual_names_stay_as_they_are(text: str) -> None:
    assert typed_path("data.root", text) == text


def test_a_folder_that_exists_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "$HOME" / "run").mkdir(parents=True)
    assert typed_path("data.root", "$HOME/run") == "$HOME/run"
    assert typed_path("data.root", "$HOME/new") == "$HOME/new"


def test_a_leading_tilde_is_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed_path("data.root", "~/x") == f"{home}/x"
    assert expanded("~") == str(home)
    assert expanded("a/~") == "a/~"
    for without in ("", "relative"):
        monkeypatch.setenv("HOME", without)
        assert expanded("~/x") == "~/x"


@pytest.mark.slow
def test_every_path_of_a_run_may_begin_with_a_tilde(command, home: Path, tmp_path: Path) -> None:
    (home / "own").mkdir()
    (home / "mine.py").touch()
    words = ["--config-dir", "~/own", "--plugin=~/mine.py", *SMALL]
    code, _, err = command(*words, "hydra.run.dir='~/runs/first'")
    assert code == 0, err
    assert {path.name for path in home.iterdir()} - {"__pycache__"} == {"own", "mine.py", "runs"}
    for verb in ("resume", "replay", "compare"):
        assert command(verb, "~/runs/first", "--plugin=~/mine.py")[0] == 0
    assert not list(tmp_path.glob("~*"))


def test_the_data_may_lie_in_the_home_folder(command, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CNN_DATA", "~/file")
    (home / "file").touch()
    code, _, err = command("data", "mnist")
    assert code == 3
    assert f"{home}/file/MNIST/raw" in err


@pytest.mark.parametrize("text", UNEXPANDED)
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "data.root", "ERA_CNN_DATA"])
def test_no_command_creates_a_folder_with_such_a_name(
    key: str, text: str, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = text.replace("'", r"\'").replace("${", r"\${")
    words = ["-m", "seed=1,2"] if key == "hydra.sweep.dir" else []
    words += [] if key == "ERA_CNN_DATA" else [f"{key}='{quoted}'"]
    words += SMALL if key.startswith("hydra") else []
    if key == "ERA_CNN_DATA":
        monkeypatch.setenv(key, text)
    code, out, err = command(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{'data.root' if key == 'ERA_CNN_DATA' else key} must be a path without quotes")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_data_folder_is_reported_with_all_other_problems(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CNN_DATA", "$HOME/data")
    code, _, err = command("optimizer.lr=-1")
    assert code == 2
    assert err.startswith("optimizer.lr must be greater than 0")
    assert "\ndata.root must be a path without quotes, variables and the like, got '$HOME/data'." in err


def test_a_tilde_that_hydra_can_not_read_comes_with_a_way_out(command) -> None:
    code, _, err = command(*SMALL, "hydra.run.dir=~/x")
    assert code == 2
    assert err.startswith("""hydra.run.dir must have its ~ in quotes, got '~/x'. Type "hydra.run.dir='~/x'",""")


@pytest.mark.parametrize("path", TOO_LONG)
@pytest.mark.parametrize(
    "words", [["hydra.run.dir={}"], ["-m", "seed=1,2", "hydra.sweep.dir={}"]], ids=["run", "sweep"]
)
def test_a_run_folder_with_too_long_a_name_ends_with_code_4(words: list[str], path: str, command, tmp_path) -> None:
    code, _, err = command(*(word.format(path) for word in words), *SMALL)
    assert (code, err.count("\n")) == (4, 1)
    assert "must be short enough for the file system" in err
    assert list(tmp_path.iterdir()) == []


def test_a_job_with_too_long_a_name_ends_with_code_4(command, tmp_path: Path) -> None:
    name = "${hydra.job.num}_" + "x" * 300
    code, _, err = command("-m", *SMALL, "seed=1,2", f"hydra.sweep.subdir={name}")
    assert (code, err.count("\n")) == (4, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["resume", "replay", "compare"])
@pytest.mark.parametrize("path", ["nowhere", "file", "file/run", "loop", "nothing", "$HOME/run", "'run'", *TOO_LONG])
def test_a_run_that_is_not_there_ends_with_code_4(verb: str, path: str, command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nothing").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    code, out, err = command(verb, path)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert err.startswith("RUN must be the folder of a run, got ")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("verb", ["resume", "replay", "compare"])
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
@pytest.mark.parametrize("inside", ["", "/run"])
def test_a_folder_of_another_user_ends_with_code_4(verb: str, mode: int, inside: str, command, tmp_path: Path) -> None:
    command(verb, "nowhere")  # imports what is imported late
    (tmp_path / "theirs" / "run").mkdir(parents=True)
    for path in (tmp_path / "theirs" / "run", tmp_path / "theirs"):
        path.chmod(mode)
    with unprivileged(tmp_path):
        code, out, err = command(verb, f"theirs{inside}")
    (tmp_path / "theirs").chmod(0o700)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "Permission denied" in err


def test_no_run_begins_in_a_folder_of_another_user(command, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    for path in ("theirs/a/run", "theirs/run"):
        with unprivileged(tmp_path):
            code, _, err = command(*SMALL, f"hydra.run.dir={path}")
        assert (code, err.count("\n")) == (4, 1)
        assert "must be a folder that can be created, got Permission denied" in err
    assert list(tmp_path.rglob("*")) == [tmp_path / "theirs"]


@pytest.mark.parametrize("words", [SMALL, ["-m", *SMALL, "seed=1,2"], ["--help"], *([verb, "x"] for verb in VERBS)])
def test_a_current_directory_that_was_removed_ends_with_code_4(words: list[str], command, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, out, err = command(*words)
    assert (code, out) == (4, "")
    assert err == "The current directory must exist, got: No such file or directory. Change to another one with cd.\n"
    with pytest.raises(RunFolderError, match="The current directory must exist"):
        current_folder()
    assert shown(tmp_path / "run") == tmp_path / "run"
