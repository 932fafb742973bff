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
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np
import PIL
from tqdm import tqdm

from era_cnn.config.sections import FieldError
from era_cnn.data.arrays import CHUNK, Arrays, Images, Known, Labels, Statistics, digests_of
from era_cnn.data.decoding import Decoded, Decoder
from era_cnn.data.download import one_at_a_time
from era_cnn.data.listing import Listing, rows_of
from era_cnn.errors import DataError, StorageError
from era_cnn.machine import available_cores
from era_cnn.output import complain
from era_cnn.paths import cache_dir

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
        with one_at_a_time(path.parent, "images", "decodes", WAIT_SECONDS):
            if entry := _opened(path, listing):
                return entry
            for left in path.parent.glob(".*"):  # of killed processes: nobody else builds now
                shutil.rmtree(left, ignore_errors=True)
            partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                partial.mkdir()
                _write(partial, listing, decoder)
                shutil.rmtree(path, ignore_errors=True)
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


def _opened(path: Path, listing: Listing) -> Entry | None:
    """The entry, if it exists and is whole."""
    try:
        index = json.loads((path / "index.json").read_bytes())
        known = Known(index["sha256"], Statistics(*index["statistics"]))
        splits = {
            split: (_mapped(path / split, (len(labels), *index["shape"])), labels)
            for split in listing.splits
            for labels in [_labels(listing, split, index["damaged"])]
        }
        return Entry(
            _arrays(splits, listing, known), path, *(dict(index[key]) for key in ("damaged", "sizes", "notes"))
        )
    except OSError:
        if os.path.isdir(path):
            complain(f"{path} is damaged (a file is missing), and is built again")
    except (ValueError, KeyError, TypeError) as error:
        complain(f"{path} is damaged ({' '.join(str(error).split())}), and is built again")
    return None


def _mapped(path: Path, shape: tuple[int, ...]) -> Images:
    if (found := path.stat().st_size) != (expected := int(np.prod(shape))):
        raise ValueError(f"{path.name} has {found:,} bytes instead of {expected:,}")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _labels(listing: Listing, split: str, damaged: dict[str, str]) -> Labels:
    return np.array([file.label for file in rows_of(listing, split, damaged)], dtype=np.int64)


def _arrays(splits: dict[str, tuple[Images, Labels]], listing: Listing, known: Known | None = None) -> Arrays:
    (train_images, train_labels), (test_images, test_labels) = splits["train"], splits["test"]
    val_images, val_labels = splits.get("val", (None, None))
    return Arrays(
        train_images, train_labels, test_images, test_labels, val_images, val_labels, listing.class_names, known
    )


def _write(folder: Path, listing: Listing, decoder: Decoder) -> None:
    """Writes the files of an entry, the index last."""
    tally = _Tally()
    complain(f"Decoding the images in {listing.root}, once, into {folder.parent}")
    with ExitStack() as stack:
        files = {split: stack.enter_context((folder / split).open("xb")) for split in listing.splits}
        for split, path, decoded in _decoded(listing, decoder):
            tally.add(path, decoded)
            if isinstance(decoded, Decoded) and tally.is_uniform(decoder):
                _write_pixels(files[split], decoded, decoder)
    tally.check(listing, decoder)
    shape = (3 if decoder.channels != 1 else 1, *(decoder.size or next(iter(tally.sizes))))
    if decoder.channels is None and not tally.has_colour:
        shape = (1, *shape[1:])
        for split in listing.splits:
            _keep_one_channel(folder / split, shape)
    labels = {split: _labels(listing, split, tally.damaged) for split in listing.splits}
    splits = {split: (_mapped(folder / split, (len(labels[split]), *shape)), labels[split]) for split in labels}
    arrays = _arrays(splits, listing)
    index = {
        "shape": shape,
        "sha256": arrays.sha256,
        "statistics": arrays.statistics,
        "damaged": tally.damaged,
        "sizes": {_size(size): count for size, count in tally.sizes.most_common()},
        "notes": tally.notes,
    }
    for split in listing.splits:
        _sync(folder / split)
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    _sync(folder / "index.json")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _decoded(listing: Listing, decoder: Decoder) -> Iterator[tuple[str, str, Decoded | str]]:
    """Each image in order: its split, its path, and its pixels or the reason why it has none.

    Threads decode: Pillow lets others run while it does, and 60,000 images of 32×32 pixels take ten seconds with one.
    """
    files = [(split, file.path) for split, files in listing.splits.items() for file in files]
    cores = len(available_cores())
    pending: deque[Future[list[Decoded | str]]] = deque()

    def decode(part: list[tuple[str, str]]) -> list[Decoded | str]:
        return [decoder.try_to_decode(os.path.join(listing.root, path)) for _, path in part]

    with (
        catch_warnings(),
        ThreadPoolExecutor(cores) as pool,
        tqdm(total=len(files), unit=" images", disable=None) as bar,  # only in a terminal
    ):
        simplefilter("ignore")  # what Pillow warns of is counted, or is damage
        parts = [files[start : start + TOGETHER] for start in range(0, len(files), TOGETHER)]
        for i in range(len(parts) + 2 * cores):  # so that few images wait in memory to be written
            if i < len(parts):
                pending.append(pool.submit(decode, parts[i]))
            if i >= 2 * cores and pending:
                part = parts[i - 2 * cores]
                for (split, path), decoded in zip(part, pending.popleft().result(), strict=True):
                    yield split, path, decoded
                bar.update(len(part))


TOGETHER = 32
"""Images that a thread decodes at a time."""


def _write_pixels(file: BinaryIO, decoded: Decoded, decoder: Decoder) -> None:
    pixels = decoded.pixels
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels, (1 if decoder.channels == 1 else 3, *pixels.shape))
    file.write(pixels.tobytes())


def _keep_one_channel(path: Path, shape: tuple[int, ...]) -> None:
    """Keeps the first of three equal channels of each image."""
    other = path.with_name(f"{path.name}_1")
    images = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 3, *shape[1:])
    with other.open("xb") as file:
        for start in range(0, len(images), CHUNK):
            file.write(images[start : start + CHUNK, 0].tobytes())
    other.replace(path)


class _Tally:
    """What is noticed while images are decoded."""

    def __init__(self) -> None:
        self.damaged: dict[str, str] = {}
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.notes: Counter[str] = Counter()
        self.has_colour = False

    def add(self, path: str, decoded: Decoded | str) -> None:
        if isinstance(decoded, str):
            self.damaged[path] = decoded
            return
        self.sizes[decoded.original] += 1
        self.notes.update(decoded.notes)
        self.has_colour |= decoded.pixels.ndim == 3

    def is_uniform(self, decoder: Decoder) -> bool:
        return decoder.size is not None or len(self.sizes) == 1

    def check(self, listing: Listing, decoder: Decoder) -> None:
        """Raises an error if the images can't be stored together, or a split has none."""
        for files in listing.splits.values():
            if all(file.path in self.damaged for file in files):
                raise DataError(f"{listing.root} must hold images, got damaged ones only: {listed(self.damaged)}")
        if not self.is_uniform(decoder):
            common = self.sizes.most_common(5)
            got = ", ".join(f"{_size(size)} ({count:,} images)" for size, count in common)
            more = f" and {len(self.sizes) - 5:,} more" if len(self.sizes) > 5 else ""
            rule = f"be given, since the images in {listing.root} have {len(self.sizes):,} sizes: {got}{more}"
            height, width = common[0][0]
            raise FieldError("size", rule, None, f"Set data.size=[{height},{width}] for example.")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def listed(damaged: dict[str, str], most: int = 20) -> str:
    """Damaged files with their reasons, on one line."""
    more = f"; and {len(damaged) - most:,} more" if len(damaged) > most else ""
    return "; ".join(f"{path} ({reason})" for path, reason in list(damaged.items())[:most]) + more


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
