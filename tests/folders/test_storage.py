from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from era_cnn.errors import StorageError
from era_cnn.folders.claims import claim
from era_cnn.folders.storage import write_atomically


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(StorageError) as caught:
            write_atomically(path, b"new")
    said = f"{path} must be written, got: No space left on device. Free some space, or check the disk."
    assert str(caught.value) == said
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_more_space_is_no_advice_where_one_may_not_write(number: int) -> None:
    said = str(StorageError.of("result.json", OSError(number, os.strerror(number))))
    assert said == f"result.json must be written, got: {os.strerror(number)}. Check who may write there."


def test_what_could_not_be_written_takes_up_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        write_atomically(tmp_path / "result.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_the_order_is_file_then_name_then_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("rename"), replace(old, new))[1])
    write_atomically(tmp_path / "x", b"content")
    assert calls == ["x.partial", "rename", tmp_path.name]


def failing_for_folders(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `os.open` or `os.fsync` fail for folders."""
    original = getattr(os, name)

    def fail(what: object, *arguments: int) -> int | None:
        if os.path.isdir(f"/proc/self/fd/{what}" if name == "fsync" else str(what)):
            raise OSError(number, os.strerror(number))
        return original(what, *arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize(
    ("name", "number"),
    [("fsync", errno.EINVAL), ("fsync", errno.ENOTSUP), ("fsync", errno.EBADF), ("open", errno.EACCES), ("open", errno.EISDIR)],
)  # fmt: skip
def test_a_file_system_that_can_not_sync_folders_is_accepted(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_for_folders(name, number, monkeypatch)
    write_atomically(tmp_path / "x", b"content")
    assert (tmp_path / "x").read_bytes() == b"content"
    claim(tmp_path / "day" / "run")


def test_a_disk_that_fails_to_sync_a_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_for_folders("fsync", errno.EIO, monkeypatch)
    with pytest.raises(StorageError, match="Input/output error"):
        write_atomically(tmp_path / "x", b"content")
