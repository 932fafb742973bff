"""CIFAR's format: where its files may lie, what is verified, and that no pickle runs."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from era_cnn.data import cifar
from era_cnn.data.cifar import CIFAR_SOURCES, CifarSource, read_cifar, unpickled
from era_cnn.data.published import PublishedFile
from era_cnn.errors import DataError

RNG = np.random.default_rng(0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(("name", "theirs"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_files_and_digests_are_those_of_torchvision(name: str, theirs: Any) -> None:
    source = CIFAR_SOURCES[name]
    assert source.folder == theirs.base_folder
    assert (source.archive.name, source.archive.digest, source.archive.url) == (
        theirs.filename,
        theirs.tgz_md5,
        theirs.url,
    )
    assert [[file.name, file.digest] for file in source.train] == theirs.train_list
    assert [[source.test.name, source.test.digest]] == theirs.test_list
    meta = {"filename": source.meta.name, "key": source.names_key.decode(), "md5": source.meta.digest}
    assert meta == theirs.meta


@pytest.fixture(params=["cifar10", "cifar100"])
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A small data set in CIFAR's format under its name: unpacked below one folder, and the archive in another."""
    source, root = CIFAR_SOURCES[request.param], tmp_path / "data"
    folder = root / source.folder
    folder.mkdir(parents=True)

    def written(file: PublishedFile, values: dict[bytes, Any]) -> PublishedFile:
        content = pickle.dumps(values, protocol=2)
        (folder / file.name).write_bytes(content)
        return replace(file, digest=md5(content))

    def batch(file: PublishedFile, count: int) -> PublishedFile:
        pixels = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
        return written(file, {b"data": pixels, source.labels_key: list(range(count))})

    train = tuple(batch(file, 4) for file in source.train)
    test = batch(source.test, 3)
    meta = written(source.meta, {source.names_key: [b"a", b"b", b"c", b"d"]})
    archive = tmp_path / "archive" / source.archive.name
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, source.folder)
    packed = replace(source.archive, digest=md5(archive.read_bytes()), url="http://127.0.0.1:9/nothing")
    changed = replace(source, train=train, test=test, meta=meta, archive=packed)
    monkeypatch.setitem(cifar.CIFAR_SOURCES, request.param, changed)
    return request.param, root


def source_of(fake: tuple[str, Path]) -> CifarSource:
    return CIFAR_SOURCES[fake[0]]


def test_unpacked_files_and_the_archive_give_the_same(fake: tuple[str, Path], tmp_path: Path) -> None:
    name, root = fake
    arrays = read_cifar(name, root)
    assert arrays.train_images.shape == (4 * len(source_of(fake).train), 3, 32, 32)
    assert arrays.train_labels.tolist() == [0, 1, 2, 3] * len(source_of(fake).train)
    assert arrays.test_labels.tolist() == [0, 1, 2]
    assert arrays.class_names == ("a", "b", "c", "d")
    first = pickle.loads((root / source_of(fake).folder / source_of(fake).train[0].name).read_bytes())
    assert np.array_equal(arrays.train_images[1, 2], first[b"data"][1, 2048:].reshape(32, 32))  # blue is last
    assert read_cifar(name, tmp_path / "archive").sha256 == arrays.sha256
    assert read_cifar(name, root / source_of(fake).folder).sha256 == arrays.sha256


def test_reading_the_archive_unpacks_nothing(fake: tuple[str, Path], tmp_path: Path) -> None:
    read_cifar(fake[0], tmp_path / "archive")
    assert len(list((tmp_path / "archive").rglob("*"))) == 1


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine that has the archive."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "archive"))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_missing_archive_is_downloaded_and_kept(
    fake: tuple[str, Path], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, root = fake
    archive = source_of(fake).archive
    changed = replace(source_of(fake), archive=replace(archive, url=f"{address}/{archive.name}"))
    monkeypatch.setitem(cifar.CIFAR_SOURCES, name, changed)
    assert read_cifar(name, tmp_path / "new").sha256 == read_cifar(name, root).sha256
    assert [path.name for path in (tmp_path / "new").iterdir()] == [archive.name]
    wrong = replace(changed, archive=replace(changed.archive, digest="0" * 32))
    monkeypatch.setitem(cifar.CIFAR_SOURCES, name, wrong)
    with pytest.raises(DataError, match="must have the MD5 0{32}, got "):
        read_cifar(name, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_had_is_said_with_a_way_out(fake: tuple[str, Path], tmp_path: Path) -> None:
    archive = source_of(fake).archive.name
    with pytest.raises(DataError) as caught:
        read_cifar(fake[0], tmp_path / "nothing")
    assert str(caught.value).startswith(f"{tmp_path}/nothing/{archive} must exist or be downloadable, got: ")
    assert f"Put {fake[0]}'s files there" in str(caught.value)


def attack(path: Path) -> bytes:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (path,)

    return pickle.dumps({b"data": Attack()}, protocol=2)


@pytest.mark.parametrize("which", ["train", "test", "meta"])
def test_a_replaced_file_is_refused_before_it_is_opened(
    which: str, fake: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, root = fake
    file = source_of(fake).train[0] if which == "train" else getattr(source_of(fake), which)
    (root / source_of(fake).folder / file.name).write_bytes(attack(tmp_path / "ran"))
    monkeypatch.setattr(cifar, "unpickled", lambda content: pytest.fail("it must not be opened"))
    with pytest.raises(DataError, match=f"{file.name} must have the MD5 {file.digest}, got"):
        read_cifar(name, root)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_does_not_run_even_with_the_right_digest(protocol: int, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    with pytest.raises(DataError, match=r"A pickle must hold arrays, lists, strings and numbers alone, got: it holds"):
        unpickled(pickle.dumps({b"data": Attack()}, protocol=protocol))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"x", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02cnumpy\nload\n."])
def test_what_is_no_pickle_of_plain_data_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="A pickle must hold arrays"):
        unpickled(content)


@pytest.mark.parametrize("protocol", range(5))
def test_plain_data_is_read(protocol: int) -> None:
    values = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2], b"batch_label": b"training"}
    found = unpickled(pickle.dumps(values, protocol=protocol))
    assert np.array_equal(found.pop(b"data"), values.pop(b"data"))
    assert found == values


def test_a_pickle_of_python_2_is_read() -> None:
    content = b"\x80\x02}q\x01(U\x04dataq\x02U\x03abcU\x06labelsq\x03]q\x04(K\x01K\x02eu."
    assert unpickled(content) == {b"data": b"abc", b"labels": [1, 2]}


def test_the_archive_is_closed_before_its_members_are_used(fake: tuple[str, Path], tmp_path: Path) -> None:
    """An archive with another layout, but the right digest, lacks the files."""
    name = fake[0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    with pytest.raises(DataError, match=r"must have the MD5 \w+, got d41d8cd98f00b204e9800998ecf8427e \(0 bytes"):
        cifar._members(buffer.getvalue(), CIFAR_SOURCES[name], CIFAR_SOURCES[name].train)
