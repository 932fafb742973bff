"""Downloads that hang, never end or send too much, and other users and processes at the same data folder."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from era_cnn.data import download
from era_cnn.data.download import fetch, one_at_a_time, store
from era_cnn.errors import DataError
from tests.helpers import unprivileged

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@contextmanager
def server(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server for one connection; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                serve(connection)

        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def until_closed(connection: socket.socket, part: bytes) -> None:
    """Sends bytes until nobody reads them any more."""
    try:
        while True:
            connection.sendall(part)
            time.sleep(0.001)
    except OSError:
        return


def test_a_file_comes_as_it_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with server(lambda connection: connection.sendall(HEAD + b"x" * 100_000)) as address:
        assert fetch(f"{address}/file", 100_000) == b"x" * 100_000
    assert capsys.readouterr().err == f"Downloading {address}/file (gives up after 30 seconds without an answer)\n"


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"x" * 10])
@pytest.mark.parametrize("is_proxy", [False, True])
def test_a_server_or_proxy_that_falls_silent_is_given_up(
    sent: bytes, is_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.05)
    with server(lambda connection: (connection.sendall(sent), connection.recv(1))) as address:
        if is_proxy:
            monkeypatch.setenv("http_proxy", address)
        with pytest.raises(OSError, match="timed out"):
            fetch("http://example.invalid/file" if is_proxy else address, 100_000)


def test_a_file_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MOST_SECONDS", 0.05)
    serve = lambda connection: (connection.sendall(HEAD), until_closed(connection, b"x"))  # noqa: E731
    with server(serve) as address, pytest.raises(TimeoutError, match=r"only [\d,]+ bytes in 0 seconds"):
        fetch(address, 100_000)


def test_a_file_that_never_ends_is_given_up() -> None:
    serve = lambda connection: (connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), until_closed(connection, b"x" * 9_999))  # noqa: E731
    with server(serve) as address, pytest.raises(OSError, match="more than 100,000 bytes"):
        fetch(address, 100_000)


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n", b"", HEAD + b"x"])
def test_whatever_a_server_does_is_one_kind_of_error_or_fewer_bytes(sent: bytes) -> None:
    with server(lambda connection: connection.sendall(sent)) as address:
        try:
            assert fetch(address, 100_000) == b"x"  # the digest will tell
        except OSError:
            assert sent != HEAD + b"x"


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
    with one_at_a_time(tmp_path / "new" / "raw", "mnist"):
        assert list(tmp_path.iterdir()) == []
    assert len(waits) == 3
    reported = f"Waiting for another process that downloads mnist to {tmp_path}/new/raw (for at most 600 seconds)\n"
    assert capsys.readouterr().err == reported


def test_a_lock_that_is_never_released_ends_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.0)
    refusal = pytest.raises(
        DataError, match="The data must become available, got another process that downloads mnist to"
    )
    with one_at_a_time(tmp_path, "mnist"), refusal, one_at_a_time(tmp_path, "mnist"):
        pass


def test_a_file_system_without_locks_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(9, "Bad file descriptor")

    with one_at_a_time(tmp_path, "mnist") as is_alone:
        assert is_alone
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with one_at_a_time(tmp_path, "mnist") as is_alone:
        assert not is_alone


def test_a_user_does_not_lock_out_another(tmp_path: Path) -> None:
    """With any umask; also where an earlier version has left a lock that only its owner can open."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    (tmp_path / "data" / ".mnist.lock").touch(mode=0o600)
    before = os.umask(0o077)
    try:
        with one_at_a_time(tmp_path / "data", "mnist"):
            pass
        os.chdir(tmp_path)
        with unprivileged(tmp_path), one_at_a_time(Path("data"), "mnist"):
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
