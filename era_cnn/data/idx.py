"""Data sets in MNIST's file format, verified each time they are read, so that nothing damaged is trained on.

The idx format is LeCun's: a magic number that encodes type and dimensions, then the sizes, then the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from era_cnn.data.arrays import Arrays, Images
from era_cnn.data.download import fetch, one_download_at_a_time
from era_cnn.data.scattered import find, unpacked
from era_cnn.errors import DataError
from era_cnn.paths import without_waiting
from era_cnn.sharing import store


@dataclass(frozen=True)
class IdxFile:
    """A file of a data set: its digest as downloaded and, if it may also be stored unpacked, the digest of that."""

    name: str
    shape: tuple[int, ...]
    gz_sha256: str
    raw_sha256: str | None = None

    @property
    def most_bytes(self) -> int:
        """More than it has, as downloaded or unpacked."""
        return math.prod(self.shape) + 65_536


@dataclass(frozen=True)
class IdxSource:
    """A data set of four idx files, laid out as torchvision does: `<root>/<folder>/raw/<file>[.gz]`."""

    folder: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    mirrors: tuple[str, ...] = ()
    """Addresses to which the name of a file is added. What they send is verified, so they need not be secure."""


def _source(
    folder: str, mirrors: tuple[str, ...], gz_sha256: tuple[str, ...], raw_sha256: tuple[str, ...] | None = None
) -> IdxSource:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    shapes = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    train_images, train_labels, test_images, test_labels = (
        IdxFile(f"{name}-ubyte", shape, gz, raw)
        for name, shape, gz, raw in zip(names, shapes, gz_sha256, raw_sha256 or (None,) * 4, strict=True)
    )
    return IdxSource(folder, (train_images, train_labels, test_images, test_labels), mirrors)


# Digests of the files as their authors publish them. MNIST's unpacked ones were computed from those; the other two
# sets are read as downloaded only.
IDX_SOURCES = {
    "mnist": _source(
        "MNIST",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/",),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": _source(
        "FashionMNIST",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "kmnist": _source(
        "KMNIST",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
}


def read_idx_data(name: str, root: Path) -> Arrays:
    """Reads `mnist`, `fashion_mnist` or `kmnist` under `root`; downloads missing files.

    Files that lie elsewhere around the root, or have another name, are found if their unpacked content is known.

    Raises:
        DataError: If a file is damaged, or missing and can't be downloaded.
    """
    source = IDX_SOURCES[name]
    raw_dir = root / source.folder / "raw"
    if not all(_present(raw_dir, file) for file in source.files):
        if arrays := _scattered(root, source):
            return arrays
        _download(name, source, root)
    train_images, train_labels, test_images, test_labels = (_read_idx(raw_dir, file, source) for file in source.files)
    return Arrays(train_images, train_labels, test_images, test_labels)


def _scattered(root: Path, source: IdxSource) -> Arrays | None:
    """The data set, if all its files lie somewhere around the root."""
    found = []
    for file in source.files:
        content = file.raw_sha256 and find(root, source.folder, file.name, file.raw_sha256, file.most_bytes)
        if not content:
            return None
        found.append(parse_idx(content, file.shape, root))
    train_images, train_labels, test_images, test_labels = found
    return Arrays(train_images, train_labels, test_images, test_labels)


def _present(raw_dir: Path, file: IdxFile) -> bool:
    names = [f"{file.name}.gz"] if file.raw_sha256 is None else [f"{file.name}.gz", file.name]
    return any(_exists(raw_dir / name) for name in names)


def _exists(path: Path) -> bool:
    """Whether a file exists.

    Raises:
        DataError: If its folder can't be read, or the path is too long.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def _read_idx(raw_dir: Path, file: IdxFile, source: IdxSource) -> Images:
    """Reads one file: the downloaded one if it exists, otherwise the unpacked one."""
    path = raw_dir / f"{file.name}.gz"
    for place in (path, raw_dir / file.name) if file.raw_sha256 else ():
        content = unpacked(place, file.most_bytes) or b""
        if hashlib.sha256(content).hexdigest() == file.raw_sha256:  # however it was packed
            return parse_idx(content, file.shape, place)
    if _exists(path):
        content = _read_verified(path, file.gz_sha256, file.most_bytes, source)
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} must be a gzip file, got {error}. {REMEDY}") from error
    else:
        path = raw_dir / file.name
        assert file.raw_sha256 is not None
        content = _read_verified(path, file.raw_sha256, file.most_bytes, source)
    return parse_idx(content, file.shape, path)


REMEDY = "Move the file away to download it again, or use data=digits, which needs no files."


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} must be readable, got {error.strerror}. {REMEDY}")


def _read_verified(path: Path, sha256: str, most_bytes: int, source: IdxSource) -> bytes:
    try:
        with open(path, "rb", opener=without_waiting) as file:
            content = file.read(most_bytes) or b""
    except OSError as error:
        raise _unreadable(path, error) from error
    return _verified(content, path, sha256, source)


def _verified(content: bytes, path: Path | str, sha256: str, source: IdxSource) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} must have the SHA-256 {sha256}, got {found} ({_guess(content, found, source)}). {REMEDY}"
        )
    return content


def _guess(content: bytes, sha256: str, source: IdxSource) -> str:
    """A guess at what a wrong file is."""
    for file in source.files:
        if sha256 in (file.gz_sha256, file.raw_sha256):
            return f"the contents of {file.name}"
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "a web page"
    return f"{len(content):,} bytes: truncated, changed or from elsewhere" if content else "an empty file"


def parse_idx(content: bytes, shape: tuple[int, ...], path: Path) -> Images:
    """The bytes of an idx file as an array of `shape`.

    Raises:
        DataError: If the header or the length does not match.
    """
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    if content[: len(header)] != header:
        raise DataError(f"{path} must begin with {header.hex()}, got {content[: len(header)].hex()}. {REMEDY}")
    expected, found = len(header) + int(np.prod(shape)), len(content)
    if found != expected:
        raise DataError(f"{path} must have {expected:,} bytes unpacked, got {found:,}. {REMEDY}")
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=len(header)).reshape(shape)  # tensors may share it


def _download(name: str, source: IdxSource, root: Path) -> None:
    """Downloads the missing files; nothing is created before all of them are verified."""
    raw_dir = root / source.folder / "raw"
    try:
        with one_download_at_a_time(raw_dir, name):
            missing = [file for file in source.files if not _present(raw_dir, file)]  # another process may be done
            for file, content in [(file, _fetched(file, source)) for file in missing]:
                store(raw_dir / f"{file.name}.gz", content)
    except OSError as error:
        first = next(file.name for file in source.files if not _present(raw_dir, file))
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{raw_dir / first}.gz must exist or be downloadable, got: {reason}. Put {name}'s files there, point "
            "data.root (or ERA_CNN_DATA) to where they are, or use data=digits, which needs no download."
        ) from error


def _fetched(file: IdxFile, source: IdxSource) -> bytes:
    """The content of a file from the first mirror that has it.

    Raises:
        OSError: If no mirror has it.
    """
    reasons = []
    for mirror in source.mirrors:
        url = f"{mirror}{file.name}.gz"
        try:
            return _verified(fetch(url, file.most_bytes), url, file.gz_sha256, source)
        except (OSError, DataError) as error:
            reasons.append(str(error) if isinstance(error, DataError) else f"{url}: {error}")
    raise OSError("; ".join(reasons))
