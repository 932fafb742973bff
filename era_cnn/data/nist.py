"""EMNIST and QMNIST, which were made from the same forms as MNIST."""

from __future__ import annotations

import io
import string
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cnn.data.arrays import Arrays, Labels
from era_cnn.data.idx import parse_idx
from era_cnn.data.published import PublishedFile, obtain
from era_cnn.errors import DataError

_MERGED = sorted({*string.digits, *string.ascii_letters} - set("cijklmopsuvwxyz"))
"""The classes if letters that look alike in upper and lower case are one."""


class _Emnist(NamedTuple):
    train_size: int
    test_size: int
    class_names: tuple[str, ...]
    first_label: int = 0


EMNIST: dict[str, _Emnist] = {
    "byclass": _Emnist(697_932, 116_323, tuple(sorted(string.digits + string.ascii_letters))),
    "bymerge": _Emnist(697_932, 116_323, tuple(_MERGED)),
    "balanced": _Emnist(112_800, 18_800, tuple(_MERGED)),
    "letters": _Emnist(124_800, 20_800, tuple(string.ascii_lowercase), first_label=1),
    "digits": _Emnist(240_000, 40_000, tuple(string.digits)),
    "mnist": _Emnist(60_000, 10_000, tuple(string.digits)),
}
"""The sizes (Cohen et al. 2017, table 2) and the classes of each split."""

# Digests and addresses are those that torchvision states in torchvision/datasets/mnist.py.
EMNIST_FILE = PublishedFile(
    "gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", 2**30, "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"
)
_QMNIST_URL = "https://raw.githubusercontent.com/facebookresearch/qmnist/master/"
QMNIST_FILES = tuple(
    PublishedFile(name, md5, 2**26, f"{_QMNIST_URL}{name}")
    for name, md5 in (
        ("qmnist-train-images-idx3-ubyte.gz", "ed72d4157d28c017586c42bc6afe6370"),
        ("qmnist-train-labels-idx2-int.gz", "0058f8dd561b90ffdd0f734c6a30e5e4"),
        ("qmnist-test-images-idx3-ubyte.gz", "1394631089c404de565df7b7aeaf9412"),
        ("qmnist-test-labels-idx2-int.gz", "5b5b05890a5e13444e108efe57b788aa"),
    )
)
QMNIST_SIZE, QMNIST_KNOWN = 60_000, 10_000
"""The images of each file, and how many of the test images are MNIST's own."""


def read_emnist(root: Path, split: str) -> Arrays:
    """Reads a split of EMNIST from its archive under `root`, which is downloaded if needed.

    Raises:
        DataError: If the archive is damaged, or missing and can't be downloaded.
    """
    (content,) = obtain("emnist", [EMNIST_FILE], (root / "EMNIST" / "raw", root / "EMNIST", root))
    emnist = EMNIST[split]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:

        def read(part: str, kind: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
            path = f"gzip/emnist-{split}-{part}-{kind}-ubyte.gz"
            return parse_idx(_unpacked(archive.read(path), 2**30), shape, Path(path))

        arrays = []
        for part, size in (("train", emnist.train_size), ("test", emnist.test_size)):
            # The images are stored column by column.
            arrays.append(np.ascontiguousarray(read(part, "images-idx3", (size, 28, 28)).transpose(0, 2, 1)))
            arrays.append(read(part, "labels-idx1", (size,)) - np.uint8(emnist.first_label))
    train_images, train_labels, test_images, test_labels = arrays
    return Arrays(train_images, train_labels, test_images, test_labels)


def read_qmnist(root: Path) -> Arrays:
    """Reads QMNIST under `root`; its test images are the 50,000 that are not in MNIST. Downloads missing files.

    Raises:
        DataError: If a file is damaged, or missing and can't be downloaded.
    """
    contents = obtain("qmnist", QMNIST_FILES, (root / "QMNIST" / "raw", root / "QMNIST", root))
    train_images, train_labels, test_images, test_labels = (_unpacked(content, 2**27) for content in contents)
    shape = (QMNIST_SIZE, 28, 28)
    return Arrays(
        parse_idx(train_images, shape, Path(QMNIST_FILES[0].name)),
        _qmnist_labels(train_labels),
        parse_idx(test_images, shape, Path(QMNIST_FILES[2].name))[QMNIST_KNOWN:],
        _qmnist_labels(test_labels)[QMNIST_KNOWN:],
    )


def _qmnist_labels(content: bytes) -> Labels:
    """The class of each image: the first of eight numbers, of which others say who wrote it and where."""
    header = bytes([0, 0, 12, 2]) + QMNIST_SIZE.to_bytes(4, "big") + (8).to_bytes(4, "big")
    if content[:12] != header or len(content) != 12 + QMNIST_SIZE * 8 * 4:
        got = f"{content[:12].hex()} and {len(content):,} bytes"
        raise DataError(f"QMNIST's labels must begin with {header.hex()}, got {got}. Download them again.")
    return np.frombuffer(content, dtype=">i4", offset=12).reshape(-1, 8)[:, 0].astype(np.int64)


def _unpacked(content: bytes, most_bytes: int) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, most_bytes)
    except zlib.error as error:
        raise DataError(f"A file must be packed by gzip, got: {error}. Download it again.") from error
