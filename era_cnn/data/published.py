"""The files of published data sets: found on disk or downloaded, and verified before anything is read from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from era_cnn.data.download import fetch, one_download_at_a_time
from era_cnn.errors import DataError
from era_cnn.paths import without_waiting
from era_cnn.sharing import store

REMEDY = "Delete the file, and it is downloaded again; or copy it from elsewhere."


@dataclass(frozen=True)
class PublishedFile:
    """A file as it is published.

    Args:
        name: Its path below the folder of the data set.
        digest: Its MD5 (32 digits), as torchvision states it, or its SHA-256 (64 digits).
        most_bytes: More than it has.
        url: Where to download it; empty if that is not possible.
    """

    name: str
    digest: str
    most_bytes: int
    url: str = ""

    def verified(self, content: bytes, place: object) -> bytes:
        """The content, if it is that of the file.

        Raises:
            DataError: If it is not.
        """
        kind = {32: "MD5", 64: "SHA-256"}[len(self.digest)]
        new = hashlib.md5(usedforsecurity=False) if kind == "MD5" else hashlib.sha256()
        new.update(content)
        if new.hexdigest() != self.digest:
            got = f"{new.hexdigest()} ({len(content):,} bytes: truncated, changed or from elsewhere)"
            raise DataError(f"{place} must have the {kind} {self.digest}, got {got}. {REMEDY}")
        return content

    def read(self, folders: Sequence[Path]) -> bytes | None:
        """The verified content from the first folder that has the file; None if none has.

        Raises:
            DataError: If it is damaged, or can't be read.
        """
        for folder in folders:
            path = folder / self.name
            try:
                with open(path, "rb", opener=without_waiting) as file:
                    content = file.read(self.most_bytes) or b""
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise DataError(f"{path} must be readable, got {error.strerror}. {REMEDY}") from error
            return self.verified(content, path)
        return None


def obtain(name: str, files: Sequence[PublishedFile], folders: Sequence[Path]) -> list[bytes]:
    """The verified contents of files; missing ones are downloaded to the first folder.

    Raises:
        DataError: If one is damaged, or missing and can't be downloaded.
    """
    found = [file.read(folders) for file in files]
    if any(content is None for content in found):
        try:
            with one_download_at_a_time(folders[0], name):
                found = [file.read(folders) or _downloaded(file, folders[0]) for file in files]
        except OSError as error:
            first = next(file for file, content in zip(files, found, strict=True) if content is None)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{folders[0] / first.name} must exist or be downloadable, got: {reason}. Put {name}'s files there, "
                "point data.root (or ERA_CNN_DATA) to where they are, or use data=digits, which needs no download."
            ) from error
    return [content for content in found if content is not None]


def _downloaded(file: PublishedFile, folder: Path) -> bytes:
    """Downloads and stores a file; nothing is created before it is verified."""
    content = file.verified(fetch(file.url, file.most_bytes), file.url)
    store(folder / file.name, content)
    return content
