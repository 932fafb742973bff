"""Examines a data set: what it holds, what is damaged, and which images occur twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from era_cnn.config.choices import DATASETS, DataSection
from era_cnn.config.description import read_from
from era_cnn.config.sections import FieldError
from era_cnn.data.arrays import Arrays, check_against, digests_of
from era_cnn.data.own import ImageFolder
from era_cnn.errors import ConfigError, problem

SHOWN = 10
"""Files of a kind that the text lists; the JSON object lists all."""


@dataclass(frozen=True)
class Report:
    """What was found. Images are named by their paths or, if they are not files, as `test[3]`, counted from 0."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    counts: dict[str, dict[str, int]]
    """The number of images of each class, by split."""

    in_train_and_test: list[list[str]]
    """Groups of images with equal pixels in the test images and in others."""

    conflicting: list[list[str]]
    """Groups of images with equal pixels and different labels."""

    duplicates: dict[str, int]
    """The number of images that repeat another of the same split, by split."""

    folders: dict[str, str] = field(default_factory=dict)
    cache: str | None = None
    """The folder with the decoded images."""

    sizes: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """Images whose content was not that in the cache; found with `--verify` only."""

    ignored: tuple[str, ...] = ()
    skips_damaged: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether a run can use all that is there."""
        return not self.changed and (self.skips_damaged or not self.damaged)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        values = asdict(self)
        del values["skips_damaged"]
        return values

    def lines(self) -> Iterator[str]:
        """The report as text."""
        totals = {split: sum(counts.values()) for split, counts in self.counts.items()}
        *first, last = (f"{number:,} {split}" for split, number in totals.items())
        state = "verified" if self.is_sound else "damaged"
        yield f"{self.name}: {', '.join(first)} and {last} images, {state}, SHA-256 {self.sha256}"
        channels, height, width = self.shape
        kind = "Grey" if channels == 1 else "Colour"
        yield f"{kind}, {height}×{width} pixels, {len(self.counts['training'])} classes"
        if self.folders:
            yield f"Folders: {', '.join(f'{split} from {folder}' for split, folder in self.folders.items())}"
        yield from self._class_table()
        if len(self.sizes) > 1:
            yield f"Sizes before resizing: {_counted(self.sizes)}"
        yield from _listed(
            "Images that are in the test images and in others", [" = ".join(g) for g in self.in_train_and_test]
        )
        yield from _listed("Equal images with different labels", [" = ".join(group) for group in self.conflicting])
        if repeated := {split: number for split, number in self.duplicates.items() if number}:
            yield f"Images that repeat another of the same split: {_counted(repeated)}"
        if self.notes:
            yield f"Converted: {_counted(self.notes)}"
        if self.cache:
            yield f"Decoded images: {self.cache}"
        yield from _listed("Ignored", self.ignored)
        yield from _listed("Damaged", [f"{path}: {reason}" for path, reason in self.damaged.items()])
        yield from _listed("Changed since they were stored in the cache, which is now renewed", self.changed)

    def _class_table(self) -> Iterator[str]:
        names = list(self.counts["training"])
        width = max(map(len, ["class", *names]))
        yield "  ".join(["class".ljust(width), *(split.rjust(10) for split in self.counts)])
        for name in names:
            yield "  ".join([name.ljust(width), *(f"{counts[name]:10,}" for counts in self.counts.values())])


def _counted(numbers: Mapping[str, int]) -> str:
    more = f" and {len(numbers) - SHOWN:,} more" if len(numbers) > SHOWN else ""
    return ", ".join(f"{name} ({number:,})" for name, number in list(numbers.items())[:SHOWN]) + more


def _listed(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"{title}: {len(items):,}"
        yield from (f"  {item}" for item in items[:SHOWN])
        if len(items) > SHOWN:
            yield f"  and {len(items) - SHOWN:,} more, which --json lists"


def examine(section: DataSection, *, verify: bool = False) -> Report:
    """Reads a data set, and reports what it holds.

    Args:
        section: The data set and its fields.
        verify: Whether to decode images again that are in the cache, and compare them.

    Raises:
        ConfigError: If its fields do not fit its files, or it has no cache to verify.
        DataError: If files are missing or, unless it is a folder of images, damaged.
    """
    entry = DATASETS.make(section.name, section)
    try:
        if isinstance(entry, ImageFolder):
            return _examine_folder(section.name, entry, verify)
        if verify:
            rule = "go with a folder of images, whose cache it checks"
            raise ConfigError([problem("--verify", rule, section.name, "Leave it out: other data is always verified.")])
        arrays = read_from(entry, section.name)
    except FieldError as error:
        raise ConfigError([error.at("data")]) from error
    if arrays.class_names is None:
        check_against(arrays, entry.info(), section.name)
    return _report(section.name, arrays, arrays.class_names or entry.info().class_names)


def _examine_folder(name: str, folder: ImageFolder, verify: bool) -> Report:
    from era_cnn.data import cache  # imports Pillow
    from era_cnn.data.listing import rows_of

    listing, decoder = folder.listing(), folder.decoder()
    entry = cache.cached(listing, decoder)
    changed = cache.verify(entry, listing, decoder) if verify else []
    if changed:
        entry = cache.cached(listing, decoder)
    paths = [file.path for split in listing.splits for file in rows_of(listing, split, entry.damaged)]
    return _report(
        name,
        entry.arrays,
        listing.class_names,
        paths,
        folders=listing.folders,
        cache=str(entry.path),
        sizes=entry.sizes,
        notes=entry.notes,
        damaged=entry.damaged,
        changed=changed,
        ignored=listing.ignored,
        skips_damaged=folder.damaged == "skip",
    )


def _report(name: str, arrays: Arrays, class_names: Sequence[str], paths: Sequence[str] = (), **found: Any) -> Report:
    counts, groups = {}, defaultdict(list)
    row = 0
    for split, images, labels in arrays.splits():
        numbers = np.bincount(labels, minlength=len(class_names))
        counts[split] = dict(zip(class_names, numbers.tolist(), strict=True))
        for i, (digest, label) in enumerate(zip(digests_of(images), labels.tolist(), strict=True)):
            groups[digest].append((split, label, paths[row] if paths else f"{split}[{i}]"))
            row += 1
    twice = [group for group in groups.values() if len(group) > 1]
    duplicates: Counter[str] = Counter()
    for group in twice:
        splits = Counter(split for split, _, _ in group)
        duplicates.update({split: number - 1 for split, number in splits.items()})
    return Report(
        name=name,
        shape=arrays.shape,
        sha256=arrays.sha256,
        counts=counts,
        in_train_and_test=[_names(g) for g in twice if {"test"} < {split for split, _, _ in g}],
        conflicting=[_names(group) for group in twice if len({label for _, label, _ in group}) > 1],
        duplicates=dict(duplicates),
        **found,
    )


def _names(group: Sequence[tuple[str, int, str]]) -> list[str]:
    return [name for _, _, name in group]
