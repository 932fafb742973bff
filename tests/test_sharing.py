"""Other users and processes at the same folder, and files that are replaced as a whole."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from era_cnn.errors import DataError
from era_cnn.sharing import one_at_a_time, store
from tests.helpers import unprivileged


def alone_in(folder: Path, wait_seconds: float = 600.0) -> AbstractContextManager[bool]:
    return one_at_a_time(folder, "bakes bread in", wait_seconds=wait_seconds, wanted="Bread", error=DataError)


def test_a_lock_of_another_process_is_reported_once_and_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            os.close(descriptor)

    monkeypatch.setattr(time, "sleep", sleep)
    with alone_in(tmp_path / "new" / "raw"):
        assert list(tmp_path.iterdir()) == []
    assert len(waits) == 3
    reported = f"Waiting for another process that bakes bread in {tmp_path}/new/raw (for at most 600 seconds)\n"
    assert capsys.readouterr().err == reported


def test_a_lock_that_is_never_released_ends_with_a_message(tmp_path: Path) -> None:
    refusal = pytest.raises(DataError, match="Bread must become available, got another process that bakes bread in")
    with alone_in(tmp_path), refusal, alone_in(tmp_path, wait_seconds=0.0):
        pass


def test_a_file_system_without_locks_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(9, "Bad file descriptor")

    with alone_in(tmp_path) as is_alone:
        assert is_alone
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with alone_in(tmp_path) as is_alone:
        assert not is_alone


def test_a_user_does_not_lock_out_another(tmp_path: Path) -> None:
    """With any umask; also where an earlier version has left a lock that only its owner can open."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    (tmp_path / "data" / ".mnist.lock").touch(mode=0o600)
    before = os.umask(0o077)
    try:
        with alone_in(tmp_path / "data"):
            pass
        os.chdir(tmp_path)
        with unprivileged(tmp_path), alone_in(Path("data")):
            store(Path("data") / "file", b"x")
    finally:
        os.umask(before)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {".mnist.lock", "file"}


def test_a_file_is_stored_whole_and_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name, age in ((".file.0123", 4_000), (".file.4567", 10), (".other.0123", 4_000), ("file.0123", 4_000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    store(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".file.4567", ".other.0123", "file.0123"}


def test_a_file_that_can_not_be_stored_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []
