"""Decodes the images of a folder into a cache entry: a file of bytes for each split, and index.json, written last."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np
from tqdm import tqdm

from era_cnn.config.sections import FieldError
from era_cnn.data.arrays import CHUNK, Arrays, Images, Known, Labels
from era_cnn.data.decoding import Decoded, Decoder
from era_cnn.data.listing import Listing, rows_of
from era_cnn.errors import DataError, amount
from era_cnn.machine import available_cores
from era_cnn.output import complain

Splits = dict[str, tuple[Images, Labels]]


def write_entry(folder: Path, listing: Listing, decoder: Decoder) -> None:
    """Writes the files of an entry, the index last."""
    tally = _Tally()
    complain(f"Decoding the images in {listing.root}, once, into {folder.parent}")
    with ExitStack() as stack:
        files = {split: stack.enter_context((folder / split).open("xb")) for split in listing.splits}
        for split, path, decoded in stack.enter_context(closing(_decoded(listing, decoder))):
            tally.add(path, decoded)
            if isinstance(decoded, Decoded) and tally.is_uniform(decoder):
                _write_pixels(files[split], decoded, decoder)
    tally.check(listing, decoder)
    shape = (3 if decoder.channels != 1 else 1, *(decoder.size or next(iter(tally.sizes))))
    if decoder.channels is None and not tally.has_colour:
        shape = (1, *shape[1:])
        for split in listing.splits:
            _keep_one_channel(folder / split, shape)
    labels = {split: labels_of(listing, split, tally.damaged) for split in listing.splits}
    splits = {split: (mapped(folder / split, (len(labels[split]), *shape)), labels[split]) for split in labels}
    arrays = arrays_of(splits, listing)
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


def _decoded(listing: Listing, decoder: Decoder) -> Generator[tuple[str, str, Decoded | str], None, None]:
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
            got = ", ".join(f"{_size(size)} ({amount(count, 'image')})" for size, count in common)
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


def mapped(path: Path, shape: tuple[int, ...]) -> Images:
    """The images in a file.

    Raises:
        ValueError: If it has another length.
    """
    if (found := path.stat().st_size) != (expected := int(np.prod(shape))):
        raise ValueError(f"{path.name} has {found:,} bytes instead of {expected:,}")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def labels_of(listing: Listing, split: str, damaged: dict[str, str]) -> Labels:
    """The labels of a split, without those of damaged images."""
    return np.array([file.label for file in rows_of(listing, split, damaged)], dtype=np.int64)


def arrays_of(splits: Splits, listing: Listing, known: Known | None = None) -> Arrays:
    """The images and labels of all splits."""
    (train_images, train_labels), (test_images, test_labels) = splits["train"], splits["test"]
    val_images, val_labels = splits.get("val", (None, None))
    return Arrays(
        train_images, train_labels, test_images, test_labels, val_images, val_labels, listing.class_names, known
    )
