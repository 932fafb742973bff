"""Files that lie elsewhere, have another name or are packed in another way than those that are downloaded.

Archive programs, Kaggle and people unpack, rename and move MNIST's files. What counts is their content.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from era_cnn.paths import without_waiting

MOST_FOLDERS = 200
"""The most folders below the root that are searched."""


def find(root: Path, folder: str, name: str, sha256: str, most_bytes: int) -> bytes | None:
    """The content of a file, unpacked, from up to two levels above or below the root; None if it is not there.

    Args:
        root: Where the search begins.
        folder: The folder of the data set, as torchvision names it: `root/folder/raw` is searched too.
        name: The name of the unpacked file, such as `train-images-idx3-ubyte`.
        sha256: The digest of its content; files with another are passed over.
        most_bytes: More than it has.
    """
    names = [f"{stem}{suffix}" for stem in (name, name.replace("-idx", ".idx")) for suffix in (".gz", "")]
    for place in _places(root, folder):
        for each in names:
            content = unpacked(place / each, most_bytes)
            if content is not None and hashlib.sha256(content).hexdigest() == sha256:
                return content
    return None


def _places(root: Path, folder: str) -> Iterator[Path]:
    for base in (root, *root.parents[:2]):
        yield from (base / folder / "raw", base / "raw", base / folder, base)
    below = itertools.chain.from_iterable(root.glob(pattern) for pattern in ("*/", "*/*/"))
    yield from itertools.islice(sorted(path for path in below if not path.name.startswith(".")), MOST_FOLDERS)


def unpacked(path: Path, most_bytes: int) -> bytes | None:
    """The content of a file, unpacked if it is packed by gzip; None if it can't be read or is too large."""
    with suppress(OSError, zlib.error):
        with open(path, "rb", opener=without_waiting) as file:
            content = file.read(most_bytes) or b""
        if content[:2] == b"\x1f\x8b":  # not the name: some files are called .gz and are not packed, and vice versa
            packed = zlib.decompressobj(wbits=31)
            content = packed.decompress(content, most_bytes)
            return content if packed.eof else None
        return content
    return None
