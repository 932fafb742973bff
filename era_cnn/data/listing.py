"""What a folder of images holds: layout, classes, splits and files. No image is opened."""

from __future__ import annotations

import hashlib
import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from era_cnn.config.sections import FieldError
from era_cnn.errors import DataError, show
from era_cnn.nearest import did_you_mean

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff")
"""The endings of files that are taken for images; what they are is decided by their content."""

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The folders that are splits, not classes, in lower case."""

TEST_SHARE = 0.2
"""The share of the test images if a folder without train/ and test/ is split."""


class ImageFile(NamedTuple):
    """An image: its path below the root, with slashes, the index of its class, and what shows that it was changed."""

    path: str
    label: int
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """The images of each split (train, test, and val if there is one), class by class in turn, each sorted by path."""

    root: str
    class_names: tuple[str, ...]
    splits: dict[str, list[ImageFile]]
    folders: dict[str, str]
    """The folder of each split, relative to the root; the same for all if a single folder was split."""

    ignored: tuple[str, ...] = field(compare=False)
    """The paths of hidden folders, files without the ending of an image, and the like."""


class _Found(NamedTuple):
    """The images below a folder: path, size and time; and what is ignored there."""

    images: list[tuple[str, int, int]]
    ignored: list[str]


def list_images(root: str, *, test_share: float | None, split_seed: int, empty_classes: str) -> Listing:
    """Lists `root/train/<class>/…` and `root/test/<class>/…` (and val/), or splits `root/<class>/…`.

    The classes are the folders of the training images, sorted by name.

    Args:
        root: The folder.
        test_share: The share of each class that becomes test images if there is no folder of them; null for 0.2.
        split_seed: Decides, together with its path, on which side an image is.
        empty_classes: `refuse`, `keep` as classes without images, or `ignore`.

    Raises:
        FieldError: If a field has no effect on this folder.
        DataError: If the folder can't be read, or has another layout.
    """
    folders, ignored = _subfolders(root, "")
    by_split: dict[str, list[str]] = defaultdict(list)
    for name in folders:
        if name.casefold() in SPLITS:
            by_split[SPLITS[name.casefold()]].append(name)
    if not by_split:
        return _single_folder(root, folders, ignored, test_share or TEST_SHARE, split_seed, empty_classes)
    for key, value, neutral in (("test_share", test_share, None), ("split_seed", split_seed, 0)):
        if value != neutral:
            advice = "Leave it out."
            raise FieldError(key, f"be {show(neutral)}, since {root} has test images of its own", value, advice)
    chosen = _chosen_folders(root, by_split)
    others = [name for name in folders if name not in chosen.values()]
    return _split_folders(root, chosen, [*ignored, *others], empty_classes)


def _chosen_folders(root: str, by_split: Mapping[str, list[str]]) -> dict[str, str]:
    found = sorted(name for names in by_split.values() for name in names)
    if not {"train", "test"} <= by_split.keys():
        raise DataError(
            f"{root} must have the folders train and test, or a folder for each class, got {', '.join(found)}. Rename "
            "the folder with the images to report on to test, or point data.root to the folder with the classes."
        )
    if any(len(names) > 1 for names in by_split.values()):
        raise DataError(f"{root} must have one folder for each split, got {', '.join(found)}. Move one elsewhere.")
    return {split: by_split[split][0] for split in ("train", "val", "test") if split in by_split}


def _split_folders(root: str, folders: dict[str, str], ignored: list[str], empty_classes: str) -> Listing:
    """The layout with a folder for each split."""
    found = {}
    for split, folder in folders.items():
        names, others = _subfolders(root, folder)
        found[split] = _images_by_class(root, folder, names)
        ignored += others + [path for each in found[split].values() for path in each.ignored]
    classes = _classes(root, folders["train"], found["train"], ignored, empty_classes)
    splits: dict[str, list[ImageFile]] = {}
    for split, folder in folders.items():
        _check_classes(root, folder, {name for name, each in found[split].items() if each.images}, classes)
        splits[split] = _interleaved(
            [ImageFile(path, label, *rest) for path, *rest in found[split][name].images]
            for label, name in enumerate(classes)
            if name in found[split]
        )
        if not splits[split]:
            raise DataError(f"{root}/{folder} must hold images, got none. Remove the folder, or fill it.")
    return Listing(root, tuple(classes), splits, folders, tuple(sorted(ignored)))


def _check_classes(root: str, folder: str, found: set[str], classes: list[str]) -> None:
    for name in sorted(found):
        if name not in classes:
            rule = f"{root}/{folder} must have no class that the training images lack"
            raise DataError(f"{rule}, got {show(name)}. {did_you_mean(name, classes, 'Move it elsewhere.')}")


def _single_folder(
    root: str, names: list[str], ignored: list[str], test_share: float, split_seed: int, empty_classes: str
) -> Listing:
    """The layout with a folder for each class, whose images are split."""
    _check_level(root, names)
    found = _images_by_class(root, "", names)
    ignored += [path for each in found.values() for path in each.ignored]
    classes = _classes(root, "", found, ignored, empty_classes)
    train, test = [], []
    for label, name in enumerate(classes):
        files = [ImageFile(path, label, *rest) for path, *rest in found[name].images]
        chosen = _chosen_for_test(files, test_share, split_seed)
        train.append([file for file in files if file.path not in chosen])
        test.append([file for file in files if file.path in chosen])
    splits = {"train": _interleaved(train), "test": _interleaved(test)}
    return Listing(root, tuple(classes), splits, {"train": ".", "test": "."}, tuple(sorted(ignored)))


def _interleaved(by_class: Iterable[list[ImageFile]]) -> list[ImageFile]:
    """The first image of each class, then the second of each: so the first N are of all classes."""
    return [file for files in itertools.zip_longest(*by_class) for file in files if file is not None]


def _chosen_for_test(files: list[ImageFile], share: float, seed: int) -> set[str]:
    """The images of a class that are test images: those whose paths have the smallest digests.

    So a new file changes the side of at most one other of its class.
    """
    if len(files) == 1:
        rule = f"{os.path.dirname(files[0].path)} must have two images or more: one for training and one for testing"
        raise DataError(f"{rule}, got 1. Add some, or remove the class.")
    count = min(max(1, round(share * len(files))), len(files) - 1) if files else 0

    def digest(file: ImageFile) -> bytes:
        return hashlib.sha256(f"{seed}\0{_normal(file.path)}".encode("utf-8", "surrogateescape")).digest()

    return {file.path for file in sorted(files, key=digest)[:count]}


def _classes(root: str, folder: str, found: Mapping[str, _Found], ignored: list[str], empty_classes: str) -> list[str]:
    """The names of the classes, in the order of their labels."""
    place = os.path.join(root, folder).rstrip("/")
    empty = sorted(name for name, each in found.items() if not each.images)
    classes = sorted(found)
    if empty_classes == "ignore" or len(empty) == len(found):
        ignored += [f"{folder}/{name}".lstrip("/") for name in empty]
        classes = sorted(found.keys() - set(empty))
    elif empty and empty_classes == "refuse":
        rule = "must have images in the folder of each class"
        advice = "Remove it, or set data.empty_classes to keep or ignore."
        raise DataError(f"{place} {rule}, got none in {', '.join(map(show, empty[:20]))}. {advice}")
    if len(classes) < 2:
        got = f"{show(classes[0])} alone" if classes else "none"
        rule = "must have a folder of images for each of two or more classes"
        raise DataError(f"{place} {rule}, got {got}. {_way(root)}")
    return classes


def _images_by_class(root: str, folder: str, names: list[str]) -> dict[str, _Found]:
    """The images of each folder by its name, which other file systems must be able to tell from the others."""
    place = os.path.join(root, folder).rstrip("/")
    found: dict[str, _Found] = {}
    alike: dict[str, str] = {}
    for name in names:
        if (other := alike.setdefault(_normal(name).casefold(), name)) != name:
            rule = "must have folders whose names differ in more than upper and lower case"
            raise DataError(f"{place} {rule}, got {show(other)} and {show(name)}. Rename one, or merge the two.")
        if not name.isprintable():
            raise DataError(f"{place} must have classes with printable names, got {show(name)}. Rename it.")
        found[_normal(name)] = _images(root, f"{folder}/{name}".lstrip("/"))
    return found


def _check_level(root: str, names: list[str]) -> None:
    """Raises a `DataError` if the folder is one level below or above the one with the classes."""
    parent = os.path.dirname(root)
    if os.path.basename(root).casefold() in SPLITS:
        beside = {SPLITS[name.casefold()] for name in os.listdir(parent) if name.casefold() in SPLITS}
        if {"train", "test"} <= beside:
            rule = "data.root must be the folder that holds train and test"
            raise DataError(f"{rule}, got {root}, one of the two. Set data.root={parent}")
    for name in names:
        below = {SPLITS.get(each.casefold()) for each in _subfolders(root, name)[0]}
        if "train" in below:
            rule = "data.root must be the folder that holds train and test"
            raise DataError(f"{rule}, got {root}, whose folder {name} holds them. Set data.root={root}/{name}")


def _way(root: str) -> str:
    """Advice for a folder without classes: whether one above or below it has some."""
    names, _ = _subfolders(root, "")
    for name in names:
        if len([each for each in _subfolders(root, name)[0] if _images(root, f"{name}/{each}").images]) > 1:
            return f"Set data.root={root}/{name}"
    if not names and _images(root, "").images:
        return f"Set data.root={os.path.dirname(root)}, if that holds a folder for each class."
    return "Put the images of each class into a folder with the name of the class."


def _subfolders(root: str, folder: str) -> tuple[list[str], list[str]]:
    """The folders within one, sorted by name; and the paths of all else, and of hidden folders."""
    entries = _entries(root, folder)
    folders = [entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name)]
    return folders, [f"{folder}/{entry.name}".lstrip("/") for entry in entries if entry.name not in folders]


def _images(root: str, folder: str, above: tuple[tuple[int, int], ...] = ()) -> _Found:
    """The images below a folder, at any depth; links are followed, unless they lead to a folder above."""
    found = _Found([], [])
    prefix = f"{folder}/" if folder else ""
    for entry in _entries(root, folder):
        name, path = entry.name, prefix + entry.name
        if _is_hidden(name):
            found.ignored.append(path)
        elif name.lower().endswith(SUFFIXES) and entry.is_file():  # asked first, for there may be a million
            status = entry.stat()
            found.images.append((path, status.st_size, status.st_mtime_ns))
        elif entry.is_dir() and (place := _place(entry)) not in above:
            below = _images(root, path, (*above, place))
            found.images.extend(below.images)
            found.ignored.extend(below.ignored)
        else:
            found.ignored.append(path)
    return found


def _entries(root: str, folder: str) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name: the order of the file system differs between machines."""
    path = os.path.join(root, folder) if folder else root
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: _normal(entry.name))
    except OSError as error:
        what = path if folder else f"data.root={root}"
        raise DataError(f"{what} must be a folder that can be read, got: {error.strerror}. Check the path.") from error


def _place(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _normal(name: str) -> str:
    """The name as all file systems would store it: some compose accents, others do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def rows_of(listing: Listing, split: str, without: Mapping[str, str]) -> Iterator[ImageFile]:
    """The images of a split, in the order of their rows, without those that are damaged."""
    return (file for file in listing.splits[split] if file.path not in without)
