"""SVHN, EMNIST and QMNIST: small files in their formats, with digests of their own."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import EMNIST, QMNIST, SVHN

from era_cnn.data import nist, published, svhn
from era_cnn.data.nist import read_emnist, read_qmnist
from era_cnn.data.published import PublishedFile, obtain
from era_cnn.data.svhn import read_svhn
from era_cnn.errors import DataError

RNG = np.random.default_rng(0)


def write(folder: Path, file: PublishedFile, content: bytes) -> PublishedFile:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file.name).write_bytes(content)
    return replace(file, digest=hashlib.md5(content, usedforsecurity=False).hexdigest())


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def test_digests_and_addresses_are_those_of_torchvision() -> None:
    assert [[file.url, file.name, file.digest] for file in svhn.FILES] == [
        SVHN.split_list["train"],
        SVHN.split_list["test"],
    ]
    assert (nist.EMNIST_FILE.url, nist.EMNIST_FILE.digest) == (EMNIST.url, EMNIST.md5)
    theirs = [*QMNIST.resources["train"], *QMNIST.resources["test"]]
    assert [(file.url, file.digest) for file in nist.QMNIST_FILES] == theirs


@pytest.mark.parametrize("split", nist.EMNIST)
def test_the_classes_of_emnist_are_those_of_torchvision(split: str) -> None:
    theirs = EMNIST.classes_split_dict[split]
    assert list(nist.EMNIST[split].class_names) == [name for name in theirs if name != "N/A"]


def test_svhn_has_its_axes_moved_and_ten_means_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
    files = []
    for file in svhn.FILES:
        buffer = io.BytesIO()
        savemat(buffer, {"X": pixels, "y": np.arange(1, 11, dtype=np.uint8)[:, None]}, do_compression=True)
        files.append(write(tmp_path, file, buffer.getvalue()))
    monkeypatch.setattr(svhn, "FILES", tuple(files))
    arrays = read_svhn(tmp_path)
    assert arrays.train_images.shape == (10, 3, 32, 32)
    assert arrays.train_images[7, 2, 5, 9] == pixels[5, 9, 2, 7]
    assert arrays.train_labels.tolist() == [*range(1, 10), 0]


def test_emnist_is_turned_upright_and_letters_begin_at_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = RNG.integers(0, 256, (26, 28, 28), dtype=np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part in ("train", "test"):
            labels = np.arange(1, 27, dtype=np.uint8)
            archive.writestr(f"gzip/emnist-letters-{part}-images-idx3-ubyte.gz", gzip.compress(idx_bytes(images)))
            archive.writestr(f"gzip/emnist-letters-{part}-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(labels)))
    file = write(tmp_path / "EMNIST" / "raw", nist.EMNIST_FILE, buffer.getvalue())
    monkeypatch.setattr(nist, "EMNIST_FILE", file)
    monkeypatch.setitem(nist.EMNIST, "letters", nist.EMNIST["letters"]._replace(train_size=26, test_size=26))
    arrays = read_emnist(tmp_path, "letters")
    assert arrays.train_images[3, 5, 9] == images[3, 9, 5]
    assert arrays.test_labels.tolist() == list(range(26))


def test_qmnist_is_tested_on_unseen_images_and_has_one_label_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
    labels = np.stack([np.arange(12) % 10, *RNG.integers(0, 9_999, (7, 12))], axis=1).astype(">i4")
    contents = (idx_bytes(images), idx_bytes(labels, kind=12)) * 2
    files = [write(tmp_path / "QMNIST" / "raw", file, gzip.compress(content)) for file, content in zip(nist.QMNIST_FILES, contents, strict=True)]  # fmt: skip
    monkeypatch.setattr(nist, "QMNIST_FILES", tuple(files))
    monkeypatch.setattr(nist, "QMNIST_SIZE", 12)
    monkeypatch.setattr(nist, "QMNIST_KNOWN", 2)
    arrays = read_qmnist(tmp_path)
    assert arrays.train_labels.tolist() == [*range(10), 0, 1]
    assert arrays.train_labels.dtype == np.int64
    assert np.array_equal(arrays.test_images, images[2:])
    assert arrays.test_labels.tolist() == [*range(2, 10), 0, 1]
    with pytest.raises(DataError, match="QMNIST's labels must begin with 00000c02"):
        nist._qmnist_labels(contents[1][:-1])


FILE = PublishedFile("a.bin", hashlib.sha256(b"right").hexdigest(), 100, "http://nowhere/a.bin")


def test_only_what_is_missing_is_downloaded_to_the_first_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(published, "fetch", lambda url, most_bytes: asked.append(url) or b"right")
    assert obtain("mine", [FILE], (tmp_path / "one", tmp_path / "two")) == [b"right"]
    assert (tmp_path / "one" / "a.bin").read_bytes() == b"right"
    assert obtain("mine", [FILE], (tmp_path / "two", tmp_path / "one")) == [b"right"]
    assert asked == ["http://nowhere/a.bin"]


@pytest.mark.parametrize("content", [b"wrong", b"", b"right" * 100])
def test_a_damaged_file_and_a_damaged_download_are_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "fetch", lambda url, most_bytes: content)
    with pytest.raises(DataError, match="http://nowhere/a.bin must have the SHA-256"):
        obtain("mine", [FILE], (tmp_path / "one",))
    assert not (tmp_path / "one").exists()
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path}/a.bin must have the SHA-256 {FILE.digest}, got") as caught:
        obtain("mine", [FILE], (tmp_path,))
    assert caught.value.exit_code == 3
