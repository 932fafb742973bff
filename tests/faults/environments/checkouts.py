"""The package in a git checkout of its own, and what git may be told or answer there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import era_cnn
from tests.faults.environments.environment import SOMEBODY, Environment, Prepare, shut, without_privileges, write

PACKAGE = Path(era_cnn.__file__).parents[1]
WHO = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always", "-c", "commit.gpgSign=false")


def _git(top: Path, *words: str) -> None:
    subprocess.run(["git", *WHO, *words], cwd=top, check=True, capture_output=True)


def _checkout(
    *git: Sequence[str],
    then: Prepare = lambda top: None,
    at: str = "checkout",
    begin: Sequence[str] = (),
    **values: str,
) -> Environment:
    """A checkout in which commands of git and more were carried out.

    Args:
        git: The commands.
        then: What happens afterwards.
        at: Which folder the package is imported from, if not this checkout.
        begin: Further words of `git init`.
        values: Variables.
    """

    def prepare(place: Path) -> None:
        top = place / "checkout"
        for name in ("era_cnn", "conf"):
            shutil.copytree(PACKAGE / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
        write(top / ".gitignore", b"__pycache__\n")
        for command in (["init", "--quiet", *begin], ["add", "."], ["commit", "--quiet", "-m", "x"], *git):
            _git(top, *command)
        then(top)

    return Environment({"PYTHONPATH": f"PLACE/{at}", **values}, prepare=prepare, commands=["run"], is_checkout=True)


def _changed(name: str = "era_cnn/errors.py", content: bytes = b"# x\n") -> Prepare:
    """Adds to a file of the checkout."""

    def change(top: Path) -> None:
        write(top / name, ((top / name).read_bytes() if (top / name).exists() else b"") + content)

    return change


def _driver(command: str, *, kind: str = "filter.x.clean") -> Environment:
    """A changed file, whose content is what a program of the user says."""

    def then(top: Path) -> None:
        _changed()(top)
        write(top / ".gitattributes", b"*.py filter=x diff=x\n")
        _git(top, "config", kind, command)
        _git(top, "config", "filter.x.required", "true")

    return _checkout(then=then)


def _fake_git(script: str) -> Environment:
    def prepare(place: Path) -> None:
        _checkout().prepare(place)
        write(place / "bin" / "git", f"#!/bin/sh\n{script}\n".encode())
        (place / "bin" / "git").chmod(0o755)

    variables = {"PYTHONPATH": "PLACE/checkout", "PATH": "PLACE/bin:/usr/bin:/bin"}
    return Environment(variables, prepare=prepare, commands=["run"], is_checkout=True)


def _no_program(content: bytes, mode: int) -> Environment:
    fake = _fake_git("")

    def prepare(place: Path) -> None:
        fake.prepare(place)
        write(place / "bin" / "git", content)
        (place / "bin" / "git").chmod(mode)

    return replace(fake, variables={**fake.variables, "PATH": "PLACE/bin"}, prepare=prepare)


def _elsewhere(*words: str) -> Callable[[Path], None]:
    """Makes another checkout of this one, beside it."""
    return lambda top: _git(top.parent, *words)


def _as_submodule(top: Path) -> None:
    outer = top.parent / "outer"
    outer.mkdir()
    _git(outer, "init", "--quiet")
    _git(outer, "submodule", "--quiet", "add", str(top), "inner")


def _with_submodule(top: Path) -> None:
    other = top.parent / "other"
    write(other / "a", b"a")
    _git(other, "init", "--quiet")
    _git(other, "add", ".")
    _git(other, "commit", "--quiet", "-m", "x")
    _git(top, "submodule", "--quiet", "add", str(other), "sub")
    write(top / "sub" / "a", b"changed")


def _in_conflict(top: Path) -> None:
    _git(top, "checkout", "--quiet", "-b", "other")
    _changed("conf/trainer/overfit.yaml", b"# one\n")(top)
    _git(top, "commit", "--quiet", "-am", "one")
    _git(top, "checkout", "--quiet", "-")
    _changed("conf/trainer/overfit.yaml", b"# two\n")(top)
    _git(top, "commit", "--quiet", "-am", "two")
    subprocess.run(["git", *WHO, "merge", "other"], cwd=top, capture_output=True, check=False)


def _without_objects(top: Path) -> None:
    for path in (top / ".git" / "objects").iterdir():
        if len(path.name) == 2:
            shutil.rmtree(path)


def _git_is(make: Callable[[Path], object]) -> Prepare:
    """Replaces .git."""

    def then(top: Path) -> None:
        shutil.rmtree(top / ".git")
        make(top / ".git")

    return then


CHECKOUTS: dict[str, Environment] = {
    "a checkout": _checkout(),
    # What was changed
    "a checkout with a change": _checkout(then=_changed()),
    "a checkout with Latin-1": _checkout(then=_changed("conf/note.txt", b"\xe4\xf6")),
    "a checkout with a name in umlauts": _checkout(then=_changed("era_cnn/ä ö.py")),
    "a checkout with a name that is not UTF-8": _checkout(then=lambda top: write(Path(os.fsdecode(os.fsencode(top) + b"/era_cnn/\xff.txt")), b"x")),
    "a checkout with an editor's lock": _checkout(then=lambda top: (top / "era_cnn" / ".#errors.py").symlink_to("me@here.123")),
    "a checkout with a link to itself": _checkout(then=lambda top: (top / "era_cnn" / "loop.py").symlink_to("loop.py")),
    "a checkout with a pipe": _checkout(then=lambda top: os.mkfifo(top / "era_cnn" / "pipe.py")),
    "a checkout with a large change": _checkout(then=_changed("conf/note.txt", b"x\n" * 2_000_000), at="checkout"),
    "a checkout with 5,000 new files": _checkout(then=lambda top: [write(top / "many" / str(number), b"") for number in range(5_000)]),
    "a checkout with a file to be added": _checkout(then=lambda top: (_changed("era_cnn/new.py")(top), _git(top, "add", "--intent-to-add", "."))),
    "a checkout with a conflict": _checkout(then=_in_conflict),
    # Its settings
    "a checkout with colours": _checkout(["config", "color.ui", "always"], ["config", "color.diff", "always"], then=_changed()),
    "a checkout with an external diff": _checkout(["config", "diff.external", "false"], then=_changed()),
    "a checkout with a pager": _checkout(["config", "core.pager", "false"], ["config", "pager.diff", "true"], then=_changed()),
    "a checkout with a monitor that hangs": _checkout(["config", "core.fsmonitor", "sleep 1000"], ["config", "core.untrackedCache", "true"]),
    "a checkout with a setting that is nonsense": _checkout(then=lambda top: _changed(".git/config", b"[core\nx\n")(top)),
    "a checkout with line ends": _checkout(["config", "core.autocrlf", "true"], ["config", "core.safecrlf", "true"], then=_changed()),
    "a checkout with a filter that fails": _driver("false"),
    "a checkout with a filter that hangs": _driver("sleep 1000"),
    "a checkout with attributes that are nonsense": _checkout(then=lambda top: (_changed()(top), write(top / ".gitattributes", b"\xff * = = text\n*.py binary\n"))),
    # Its kind
    "a checkout without commits": _checkout(["update-ref", "-d", "HEAD"]),
    "a checkout with SHA-256": _checkout(begin=["--object-format=sha256"], then=_changed()),
    "a checkout that is bare": _checkout(["config", "core.bare", "true"]),
    "a sparse checkout": _checkout(["sparse-checkout", "set", "era_cnn"], then=lambda top: shutil.copytree(PACKAGE / "conf", top / "conf", dirs_exist_ok=True)),
    "a shallow clone": _checkout(then=lambda top: _elsewhere("clone", "--quiet", "--depth", "1", top.as_uri(), "clone")(top), at="clone"),
    "another worktree": _checkout(["worktree", "add", "--quiet", "../tree"], at="tree"),
    "another worktree without its repository": _checkout(["worktree", "add", "--quiet", "../tree"], then=lambda top: shutil.rmtree(top), at="tree"),
    "a submodule": _checkout(then=_as_submodule, at="outer/inner"),
    # Damage
    "a checkout with a broken HEAD": _checkout(then=lambda top: write(top / ".git" / "HEAD", b"nonsense\n")),
    "a checkout with a broken index": _checkout(then=lambda top: write(top / ".git" / "index", b"nonsense\n")),
    "a checkout with a .git to nowhere": _checkout(then=_git_is(lambda path: path.write_text("gitdir: /nonexistent\n"))),
    "a checkout with a .git that is a pipe": _checkout(then=_git_is(os.mkfifo)),
    # What git is told
    "GIT_DIR elsewhere": _checkout(GIT_DIR="/nonexistent", GIT_WORK_TREE="/nonexistent"),
    "GIT_TRACE": _checkout(GIT_TRACE="1", GIT_TRACE_SETUP="1", GIT_TRACE2_EVENT="/nonexistent", GIT_CURL_VERBOSE="1"),
    "GIT_CONFIG_COUNT=nonsense": _checkout(GIT_CONFIG_COUNT="x"),
    # What git answers
    "git fails": _fake_git("exit 128"),
    "git says nonsense": _fake_git("head -c 1000 /dev/urandom"),
    "git says nothing": _fake_git("exit 0"),
    "git never stops": _fake_git("exec cat /dev/zero"),
    "git never answers": _fake_git("exec sleep 1000"),
    "git is no program": _no_program(b"\x7fELF nonsense", 0o755),
    "git is not there": Environment({"PYTHONPATH": "PLACE/checkout", "PATH": "/nonexistent"}, prepare=_checkout().prepare, commands=["run"], is_checkout=True),
}  # fmt: skip


if os.geteuid() == 0:
    CHECKOUTS |= {
        "a checkout of another owner": _checkout(
            then=lambda top: subprocess.run(["chown", "-R", str(SOMEBODY), top], check=True)
        ),
        "a checkout that can only be read": replace(
            _checkout(then=lambda top: subprocess.run(["chmod", "-R", "a-w", top], check=True)),
            set_up=without_privileges,
        ),
        "a .git that can't be read": replace(_checkout(then=lambda top: shut(top / ".git")), set_up=without_privileges),
    }
