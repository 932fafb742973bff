"""Claims and locks: each ends, in whatever place, and a refused one leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from era_cnn.errors import RunFolderError
from era_cnn.folders import claims
from era_cnn.folders.claims import InUseError, claim, locked, locked_itself


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nothing/run", "got Not a directory: {here}/nothing is a link to nothing. Choose another folder"),
        ("nothing/day/run", "nothing is a link to nothing"),
        ("new/nothing/../../nothing/run", "nothing is a link to nothing"),
        ("loop/day/run", "loop is a link to nothing"),
        ("file/day/run", "file is not a folder"),
        ("/proc/self/run", "/proc/self/run must be a folder that can be created, got No such file or directory."),
        ("/proc/self/day/run", "must be a folder that can be created, got No such file or directory"),
        ("/dev/null/run", "/dev/null is not a folder"),
    ],
)
def test_a_place_where_no_folder_can_be(place: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunFolderError) as caught:
        claim(tmp_path / place)
    assert reason.format(here=tmp_path) in str(caught.value)
    assert caught.value.exit_code == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_nothing_in_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("elsewhere")
    assert claim(tmp_path / "run").path == tmp_path / "run_2"
    assert not (tmp_path / "elsewhere").exists()


def test_numbers_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_made_by_us", lambda path: False)
    monkeypatch.setattr(claims, "MAX_NUMBER", 10)
    with pytest.raises(RunFolderError, match="run must have a free number, got 10 folders of that name"):
        claim(tmp_path / "run")


@pytest.mark.parametrize("failing", ["mkdir", "fsync"])
def test_a_claim_that_fails_midway_leaves_nothing(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = getattr(os, failing), []

    def fail(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.EIO, "Input/output error")
        original(*arguments, **options)

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(RunFolderError, match="must be a folder that can be created, got Input/output error"):
        claim(tmp_path / "a" / "b" / "run")
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hostile", [lambda path, outside: path.symlink_to(outside), lambda path, _: os.mkfifo(path)])
def test_a_lock_that_is_no_plain_file_is_not_opened(hostile: Callable[[Path, Path], None], tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious", encoding="utf-8")
    (tmp_path / "run").mkdir()
    hostile(tmp_path / "run" / ".lock", tmp_path / "outside")
    with (
        pytest.raises(RunFolderError, match=r"\.lock must be a plain file, got a (link|pipe)"),
        locked(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "outside").read_text(encoding="utf-8") == "precious"


def test_another_user_who_may_write_to_a_folder_may_lock_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with locked(tmp_path), pytest.raises(InUseError, match="in use by another process"), locked(tmp_path):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o666


def test_a_folder_that_is_locked_itself_is_left_as_it_was(tmp_path: Path) -> None:
    with locked_itself(tmp_path):
        with pytest.raises(InUseError, match="in use by another process"), locked_itself(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    with locked_itself(tmp_path):
        pass


def test_where_folders_can_not_be_locked_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked_itself(tmp_path), pytest.raises(InUseError), locked_itself(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
