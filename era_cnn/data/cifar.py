"""CIFAR-10 and CIFAR-100, whose files are pickles: verified first, and read without running what they may hold."""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from era_cnn.data.arrays import Arrays, Images, Labels
from era_cnn.data.published import PublishedFile, obtain
from era_cnn.errors import DataError


@dataclass(frozen=True)
class CifarSource:
    """A set in CIFAR's format, as torchvision lays it out: `<root>/<folder>/<file>`, or the archive in `<root>`."""

    folder: str
    archive: PublishedFile
    train: tuple[PublishedFile, ...]
    test: PublishedFile
    meta: PublishedFile
    labels_key: bytes
    names_key: bytes


def _batch(name: str, md5: str) -> PublishedFile:
    return PublishedFile(name, md5, most_bytes=2**28)


# Digests and addresses are those that torchvision states in torchvision/datasets/cifar.py.
CIFAR_SOURCES = {
    "cifar10": CifarSource(
        folder="cifar-10-batches-py",
        archive=PublishedFile(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            2**28,
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
        train=(
            _batch("data_batch_1", "c99cafc152244af753f735de768cd75f"),
            _batch("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            _batch("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            _batch("data_batch_4", "634d18415352ddfa80567beed471001a"),
            _batch("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ),
        test=_batch("test_batch", "40351d587109b95175f43aff81a1287e"),
        meta=_batch("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        labels_key=b"labels",
        names_key=b"label_names",
    ),
    "cifar100": CifarSource(
        folder="cifar-100-python",
        archive=PublishedFile(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            2**28,
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
        train=(_batch("train", "16019d7e3df5f24257cddd939b257f8d"),),
        test=_batch("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        meta=_batch("meta", "7973b15100ade9c7d40fb424638fde48"),
        labels_key=b"fine_labels",
        names_key=b"fine_label_names",
    ),
}


def read_cifar(name: str, root: Path) -> Arrays:
    """Reads `cifar10` or `cifar100` under `root`: unpacked files, or else the archive, which is downloaded if needed.

    Raises:
        DataError: If a file is damaged, or missing and can't be downloaded.
    """
    source = CIFAR_SOURCES[name]
    files = (*source.train, source.test, source.meta)
    folders = (root / source.folder, root)
    contents = [file.read(folders) for file in files]
    if any(content is None for content in contents):
        (archive,) = obtain(name, [source.archive], (root, root / source.folder))
        contents = _members(archive, source, files)
    *train, test, meta = (unpickled(content) for content in contents if content is not None)
    names = tuple(each.decode("ascii") for each in meta[source.names_key])
    train_images, train_labels = zip(*(_images_and_labels(batch, source) for batch in train), strict=True)
    return Arrays(
        np.concatenate(train_images), np.concatenate(train_labels), *_images_and_labels(test, source), class_names=names
    )


def _members(archive: bytes, source: CifarSource, files: tuple[PublishedFile, ...]) -> list[bytes | None]:
    """The verified files within the verified archive; nothing is unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        members = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        contents: list[bytes | None] = []
        for file in files:
            member = members.get(f"{source.folder}/{file.name}")
            content = member.read() if member else b""
            contents.append(file.verified(content, f"{source.archive.name}: {source.folder}/{file.name}"))
    return contents


def _images_and_labels(batch: dict[bytes, Any], source: CifarSource) -> tuple[Images, Labels]:
    return batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[source.labels_key], dtype=np.int64)


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes for old protocols
}


class _Unpickler(pickle.Unpickler):
    """Builds lists, mappings, strings, numbers and arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickled(content: bytes) -> Any:
    """The values in a pickle of plain data.

    Raises:
        DataError: If it holds anything else; nothing of that is run.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"A pickle must hold arrays, lists, strings and numbers alone, got: {reason}.") from error
