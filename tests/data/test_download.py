"""Downloads that hang, never end or send too much, and other processes that download the same."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from era_cnn.data import download
from era_cnn.data.download import fetch, one_download_at_a_time
from era_cnn.errors import DataError

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


def test_another_process_that_never_ends_its_download_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.0)
    refusal = pytest.raises(
        DataError, match="The data must become available, got another process that downloads mnist to"
    )
    with one_download_at_a_time(tmp_path, "mnist"), refusal, one_download_at_a_time(tmp_path, "mnist"):
        pass
