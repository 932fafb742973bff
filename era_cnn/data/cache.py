"""Decoded images in the user's cache folder, memory-mapped.

An entry is a folder: a file of bytes for each split, and index.json, which is written last. It is built under another
name and then renamed, so an entry exists whole or not at all. Its name is a digest of all that decides the pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import PIL

from era_cnn.data.arrays import Arrays, Known, Statistics, digests_of
from era_cnn.data.building import arrays_of, labels_of, mapped, write_entry
from era_cnn.data.decoding import Decoder
from era_cnn.data.listing import Listing, rows_of
from era_cnn.errors import DataError, StorageError
from era_cnn.output import complain
from era_cnn.paths import cache_dir
from era_cnn.sharing import one_at_a_time

FORMAT = 1
"""The version of the entries; raised when decoding gives other pixels, or the files hold something else."""

WAIT_SECONDS = 6 * 3_600.0
"""How long to wait for another process that decodes images."""


@dataclass(frozen=True)
class Entry:
    """The arrays of an entry, and what was noticed when its images were decoded."""

    arrays: Arrays
    path: Path
    damaged: dict[str, str]
    """Maps the path of each image that could not be decoded, relative to the root, to the reason."""

    sizes: dict[str, int]
    """The number of images of each size before resizing, such as 32×32 (height × width), the most frequent first."""

    notes: dict[str, int]
    """The number of images that were converted, or are unusual, for each reason."""


def cached(listing: Listing, decoder: Decoder) -> Entry:
    """The decoded images of a folder: from the cache if its files are unchanged, else decoded now.

    Raises:
        FieldError: If the images have different sizes, and the decoder gives them none.
        DataError: If no image can be decoded.
        StorageError: If the cache can't be written to.
    """
    path = cache_dir() / "images" / _key(listing, decoder)
    found = _opened(path, listing)
    return found or build(path, listing, decoder)


def build(path: Path, listing: Listing, decoder: Decoder) -> Entry:
    """Decodes the images into a new entry, unless another process has just done so; replaces a damaged one.

    Raises:
        FieldError, DataError, StorageError: See `cached`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = one_at_a_time(
            path.parent, "decodes images to", wait_seconds=WAIT_SECONDS, wanted="The data", error=DataError
        )
        with lock:
            if entry := _opened(path, listing, complain=lambda said: None):  # said before, if it is damaged
                return entry
            for left in path.parent.glob(".*"):  # of killed processes: nobody else builds now
                shutil.rmtree(left, ignore_errors=True)
            partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                partial.mkdir()
                write_entry(partial, listing, decoder)
                shutil.rmtree(path, ignore_errors=True)
                if os.path.lexists(path):
                    path.unlink()  # it is no folder
                partial.rename(path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        rule = f"must be a folder that can be written to: decoded images are stored in {path.parent}"
        advice = "Set it to another folder, or free some space."
        raise StorageError(f"XDG_CACHE_HOME {rule}, got: {error.strerror or error}. {advice}") from error
    entry = _opened(path, listing)
    assert entry is not None
    return entry


def _key(listing: Listing, decoder: Decoder) -> str:
    """The digest of all that decides the pixels and their order: files, fields and the version of the decoder."""
    digest = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, asdict(decoder), listing.class_names]).encode())
    for split, files in listing.splits.items():
        text = "\n".join(f"{path}\0{label}\0{size}\0{time}" for path, label, size, time in files)
        digest.update(f"\0{split}\n{text}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _opened(path: Path, listing: Listing, complain: Callable[[str], object] = complain) -> Entry | None:
    """The entry, if it exists and is whole: its pixels are read once a process, since a run records their digest."""
    try:
        index = json.loads((path / "index.json").read_bytes())
        known = Known(index["sha256"], Statistics(*(list(map(float, each)) for each in index["statistics"])))
        splits = {
            split: (mapped(path / split, (len(labels), *index["shape"])), labels)
            for split in listing.splits
            for labels in [labels_of(listing, split, index["damaged"])]
        }
        arrays = arrays_of(splits, listing, known)
        stamp = (known.sha256, *((path / split).stat().st_mtime_ns for split in splits))
        if stamp not in _INTACT and replace(arrays, known=None).sha256 != known.sha256:
            raise ValueError("its pixels were changed")
        _INTACT.add(stamp)
        return Entry(arrays, path, *(dict(index[key]) for key in ("damaged", "sizes", "notes")))
    except OSError:
        if os.path.isdir(path):
            complain(f"{path} is damaged (a file is missing), and is built again")
    except (ValueError, KeyError, TypeError) as error:
        complain(f"{path} is damaged ({' '.join(str(error).split())}), and is built again")
    return None


_INTACT: set[tuple[object, ...]] = set()
"""The digests of entries whose pixels this process has compared with them, and when their files were changed last."""


def verify(entry: Entry, listing: Listing, decoder: Decoder) -> list[str]:
    """Decodes the images again; gives the paths of those that differ from the cache, whose entry is then replaced.

    Names, sizes and times, which are compared at every start, may be the same although the content is not.
    """
    place = entry.path.with_name(f"{entry.path.name}_again")
    shutil.rmtree(place, ignore_errors=True)
    fresh = build(place, listing, decoder)
    before, now = digests_by_path(entry, listing), digests_by_path(fresh, listing)
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    shutil.rmtree(entry.path if changed else place, ignore_errors=True)
    if changed:
        place.rename(entry.path)
    return changed


def digests_by_path(entry: Entry, listing: Listing) -> dict[str, bytes]:
    """A digest of the decoded pixels of each image that is not damaged."""
    return {
        file.path: digest
        for split, (_, images, _) in zip(listing.splits, entry.arrays.splits(), strict=True)
        for file, digest in zip(rows_of(listing, split, entry.damaged), digests_of(images), strict=True)
    }
