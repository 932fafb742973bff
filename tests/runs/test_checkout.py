"""What is recorded of the git checkout, whatever the user has set and whatever lies in it."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from era_cnn.runs import checkout
from era_cnn.runs.checkout import read_checkout
from era_cnn.runs.collector import Collector

SETTINGS = """
[color]
    ui = always
    diff = always
[core]
    quotePath = true
    pager = false
    fsmonitor = false-monitor
[diff]
    context = 0
    external = echo
    ignoreSubmodules = all
    interHunkContext = 40
    mnemonicPrefix = true
    noprefix = true
    orderFile = missing
    relative = true
    renames = copies
    submodule = log
    suppressBlankEmpty = true
    wsErrorHighlight = all
[diff "loud"]
    textconv = echo
    command = echo
"""
"""Settings of a user that would change what `git diff` prints."""

CONTENTS = {
    "text": b"one\n\ntwo\n",
    "Latin-1": "# Größe\n".encode("latin-1"),
    "binary": bytes(range(256)) * 4,
    "CRLF": b"one\r\ntwo\r\n",
    "no last line break": b"one\ntwo",
    "empty": b"",
    "terminal commands": b"\x1b[31mEqual, bit for bit\n",
}


def git(*words: str, where: Path = Path("repo")) -> None:
    subprocess.run(["git", *words], cwd=where, check=True, capture_output=True)


def commit(where: Path = Path("repo")) -> None:
    git("add", "-A", where=where)
    git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x", where=where)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    path = Path("home").absolute()
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return path


@pytest.fixture
def repo(home: Path) -> Path:
    """A checkout with a commit of the package and of a config."""
    path = Path("repo").absolute()
    for name in ("era_cnn/__init__.py", "conf/model/a.yaml", "folder/ä.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"as it was\n\nand more\n")
    git("init", "-q")
    commit()
    return path


def read(repo: Path) -> tuple[dict[str, Any], list[str]]:
    collector = Collector()
    found = read_checkout(repo / "era_cnn", collector)
    return found or {}, collector.missing


def as_bytes(recorded: str | dict[str, str]) -> bytes:
    return recorded.encode() if isinstance(recorded, str) else base64.b64decode(recorded["base64"])


def files(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(each.relative_to(path)): (each.lstat().st_mode, each.read_bytes())
        for each in path.rglob("*")
        if each.is_file() and ".git" not in each.relative_to(path).parts
    }


def applied(recorded: dict[str, Any]) -> Path:
    """A clone of the recorded commit with the recorded diff."""
    git("clone", "-q", "repo", "clone", where=Path())
    git("checkout", "-q", recorded["commit"], where=Path("clone"))
    Path("changes.diff").write_bytes(as_bytes(recorded["diff"]))
    git("apply", "--binary", "../changes.diff", where=Path("clone"))
    return Path("clone").absolute()


@pytest.mark.parametrize("settings", ["", SETTINGS], ids=["no settings", "hostile settings"])
@pytest.mark.parametrize("content", CONTENTS)
def test_the_recorded_diff_gives_the_same_files_byte_for_byte(
    content: str, settings: str, repo: Path, home: Path
) -> None:
    (home / ".gitconfig").write_text(settings, encoding="utf-8")
    (repo / ".gitattributes").write_text("*.py diff=loud\n", encoding="utf-8")
    (repo / "conf/model/a.yaml").write_bytes(CONTENTS[content])
    (repo / "folder/ä.txt").rename(repo / "folder/ö\tö.txt")
    (repo / "era_cnn/__init__.py").chmod(0o755)
    (repo / "era_cnn/new.py").write_bytes(CONTENTS[content])
    git("add", "-A")
    recorded, missing = read(repo)
    assert missing == []
    assert "\x1b[" not in str(recorded["diff"]) or content == "terminal commands"
    assert files(applied(recorded)) == files(repo)


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, *(f"[diff]\n{line}" for line in ("renames = false", "renames = copies", "submodule = log", "submodule = diff"))],
    ids=["hostile", "no renames", "copies", "submodules as logs", "submodules as diffs"],
)  # fmt: skip
def test_the_recorded_diff_is_the_same_whatever_the_settings(settings: str, repo: Path, home: Path) -> None:
    _submodule(repo)
    (repo / "sub" / "more").write_bytes(b"x")
    commit(repo / "sub")
    (repo / "folder/ä.txt").rename(repo / "folder/b.txt")
    git("add", "-A")
    expected, _ = read(repo)
    assert "\n+Subproject commit " in expected["diff"]
    assert "rename from" not in expected["diff"]
    (home / ".gitconfig").write_text(settings, encoding="utf-8")
    assert read(repo) == (expected, [])


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"])
def test_an_environment_that_points_git_elsewhere_does_not_count(
    name: str, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "conf/model/a.yaml").write_bytes(b"other\n")
    before, _ = read(repo)
    monkeypatch.setenv(name, "--unified=0" if name == "GIT_DIFF_OPTS" else "elsewhere")
    assert read(repo) == (before, [])


@pytest.mark.parametrize("content", CONTENTS)
def test_new_files_that_a_run_can_use_are_recorded(content: str, repo: Path) -> None:
    for name in ("era_cnn/deep/ü.py", "conf/own.yaml", "secret.txt", "era_cnn/ignored.py"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_bytes(CONTENTS[content])
    (repo / ".git/info/exclude").write_text("ignored.py\n", encoding="utf-8")
    recorded, missing = read(repo)
    assert missing == []
    assert {name: as_bytes(each) for name, each in recorded["untracked"].items()} == {
        "conf/own.yaml": CONTENTS[content],
        "era_cnn/deep/ü.py": CONTENTS[content],
    }


def _lock(path: Path) -> None:
    path.with_name(".#new.py").symlink_to("somebody@somewhere.1234")


def _submodule(path: Path) -> None:
    shutil.copytree("repo", "other")
    git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(Path("other").absolute()), "sub")
    commit()
    Path("repo/sub/conf/model/a.yaml").write_bytes(b"other\n")


def _fake(script: str) -> None:
    Path("bin").mkdir()
    Path("bin/git").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    Path("bin/git").chmod(0o755)
    os.environ["PATH"] = f"{Path('bin').absolute()}:{os.environ['PATH']}"


def _refuses(path: Path) -> None:
    os.environ["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"


ODD: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "an editor's lock": (_lock, {"untracked": {"era_cnn/.#new.py": {"link": "somebody@somewhere.1234"}}}, ""),
    "a large new file": (
        lambda path: path.write_bytes(bytes(2**20 + 1)),
        {"untracked": {"era_cnn/new.py": None}},
        "new file era_cnn/new.py: 1,048,577 bytes are more than 1,048,576",
    ),
    "a name that is not UTF-8": (
        lambda path: Path(os.fsdecode(bytes(path.parent) + b"/\xff.py")).touch(),
        {"untracked": {"era_cnn/\udcff.py": ""}},
        "",
    ),
    "a large diff": (
        lambda path: Path("repo/conf/model/a.yaml").write_bytes(os.urandom(2**20)),
        {"diff": None, "untracked": {}},
        "git diff: ",
    ),
    "changes within a submodule": (_submodule, {"diff": ""}, "git diff: changes within the submodule sub"),
    "no commit": (lambda path: git("update-ref", "-d", "HEAD"), {"commit": None}, "git commit: there is none, so"),
    "a repository that is bare": (
        lambda path: git("config", "core.bare", "true"),
        {},
        "git: git says that this is no work tree",
    ),
    "git is missing": (lambda path: os.environ.update(PATH="/nowhere"), {}, "git: git is not installed"),
    "git hangs": (lambda path: _fake("sleep 60 &\nsleep 60"), {}, "git: git rev-parse did not end within 1 seconds"),
    "git fails without a word": (lambda path: _fake("exit 128"), {}, "git: git rev-parse ended with 128"),
    "git answers without an end": (lambda path: _fake("exec cat /dev/zero"), {}, "git: "),
    "git complains without an end": (lambda path: _fake("exec cat /dev/zero >&2"), {}, "git: "),
    "another owner": (_refuses, {}, "git: fatal: detected dubious ownership in repository at "),
    "a damaged index": (
        lambda path: Path("repo/.git/index").write_bytes(b"x"),
        {},
        "git: fatal: .git/index: index file smaller",
    ),
    "an objects folder that is gone": (
        lambda path: shutil.rmtree("repo/.git/objects"),
        {},
        "git: fatal: not a git repository",
    ),
}
"""What may be odd: how it comes about, what is recorded then, and the reason for what is not."""


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_recorded_or_has_a_reason(what: str, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected, reason = ODD[what]
    monkeypatch.setattr(checkout, "SECONDS", 1.0)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    make(repo / "era_cnn/new.py")
    if what == "another owner":  # only git's own tests can be another owner: the rest of the variables is removed
        monkeypatch.setattr(checkout, "_environment", lambda: {**os.environ, "LC_ALL": "C"})
    recorded, missing = read(repo)
    assert {name: recorded[name] for name in expected} == expected
    assert bool(recorded) == bool(expected)
    assert len(missing) == bool(reason)
    assert "".join(missing).startswith(reason)
    if "without an end" in what:
        assert "more than 1,048,576" in missing[0]


def test_a_repository_without_a_commit_is_recorded_as_a_whole(repo: Path) -> None:
    git("update-ref", "-d", "HEAD")
    recorded, _ = read(repo)
    Path("clone").mkdir()
    git("init", "-q", where=Path("clone"))
    Path("changes.diff").write_bytes(as_bytes(recorded["diff"]))
    git("apply", "../changes.diff", where=Path("clone"))
    assert files(Path("clone").absolute()) == files(repo)


def test_trust_that_the_user_has_declared_still_counts(repo: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = {**checkout._environment(), "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    monkeypatch.setattr(checkout, "_environment", lambda: refusing)
    assert read(repo)[0] == {}
    (home / ".gitconfig").write_text(f"[safe]\n    directory = {repo}\n", encoding="utf-8")
    recorded, missing = read(repo)
    assert missing == []
    assert len(recorded["commit"]) == 40


@pytest.mark.parametrize("place", ["no checkout", "an environment within another project"])
def test_an_installed_package_has_no_checkout(place: str, repo: Path) -> None:
    elsewhere = Path("elsewhere") if place == "no checkout" else repo / ".venv"
    shutil.copytree(repo / "era_cnn", elsewhere / "era_cnn")
    assert read(elsewhere.absolute()) == ({}, [])
