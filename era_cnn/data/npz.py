"""A file of arrays as `numpy.savez` writes it: the user's own, or MedMNIST's."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from era_cnn.config.sections import FieldError
from era_cnn.data.arrays import Arrays, Images, Labels
from era_cnn.errors import DataError
from era_cnn.paths import open_plain

Axes = Literal["NHW", "NHWC", "NCHW"]

NAMES = (
    {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {split: (f"{split}_images", f"{split}_labels") for split in ("train", "val", "test")},
)
"""The names of the arrays, as in Keras and in MedMNIST (Yang et al. 2023, arXiv 2110.14795); val is optional."""


def read_npz(path: str, *, axes: Axes | None = None, class_names: Sequence[str] | None = None) -> Arrays:
    """Reads the images and labels of a file.

    Args:
        path: The file.
        axes: The order of the axes of the images; None if it shows by itself.
        class_names: The names of the classes, in the order of their labels; None for their numbers.

    Raises:
        FieldError: If the axes or the names of the classes do not fit.
        DataError: If the file can't be read, or holds something else.
    """
    arrays = _read(path)
    names = next((names for names in NAMES if set(names["train"] + names["test"]) <= arrays.keys()), None)
    if names is None:
        known = " or ".join(f"{', '.join(names['train'] + names['test'])}" for names in NAMES)
        raise _wrong(path, f"have the arrays {known}", ", ".join(sorted(arrays)) or "none", "Rename them.")
    splits = {split: pair for split, pair in names.items() if set(pair) <= arrays.keys()}
    images = {split: _images(path, image_name, arrays[image_name], axes) for split, (image_name, _) in splits.items()}
    labels = {split: _labels(path, label_name, arrays[label_name]) for split, (_, label_name) in splits.items()}
    for split, pair in splits.items():
        if len(images[split]) != len(labels[split]) or not len(labels[split]):
            got = f"{len(images[split]):,} in {pair[0]} and {len(labels[split]):,} in {pair[1]}"
            raise _wrong(path, "have a label for each image, and at least one", got, "Save them again.")
        if images[split].shape[1:] != images["train"].shape[1:]:
            got = f"{images[split].shape} in {pair[0]} and {images['train'].shape} in {names['train'][0]}"
            raise _wrong(path, "have images of one shape", got, "Resize them.")
    classes = _class_names(path, labels, class_names)
    return Arrays(
        images["train"], labels["train"], images["test"], labels["test"], images.get("val"), labels.get("val"), classes
    )


def _wrong(path: str, rule: str, got: object, advice: str) -> DataError:
    return DataError(f"{path} must {rule}, got {got}. {advice}")


def _read(path: str) -> dict[str, NDArray[Any]]:
    """The arrays that are wanted, checked before memory is used for them: a small file can unpack to any size."""
    wanted = {f"{name}.npy" for names in NAMES for pair in names.values() for name in pair}
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            members = [each for each in archive.infolist() if each.filename in wanted]
            if (total := sum(each.file_size for each in members)) > (limit := memory_bytes()):
                got = f"{total / 2**30:,.1f} GiB"
                raise _wrong(path, f"unpack to at most {limit / 2**30:,.1f} GiB, the memory here", got, "Use fewer.")
            return {each.filename.removesuffix(".npy"): _array(path, archive, each) for each in members}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise _wrong(
            path, "be a file of arrays that can be read", reason, "Save it with numpy.savez_compressed."
        ) from error


def memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _array(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    readers: Mapping[tuple[int, int], Callable[..., Any]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    with archive.open(member) as file:
        shape, _, dtype = readers[npy.read_magic(file)](file)
        if dtype.hasobject:
            advice = "They could run code when they are read. Save arrays of numbers."
            raise _wrong(path, "have no arrays of objects", member.filename, advice)
        if int(np.prod(shape, dtype=object)) * dtype.itemsize + file.tell() != member.file_size:
            raise ValueError(f"{member.filename} has another length than its header says")
    with archive.open(member) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


def _images(path: str, name: str, array: NDArray[Any], axes: Axes | None) -> Images:
    """The images as (N, C, H, W), or as (N, H, W) if they are grey."""
    if array.dtype != np.uint8:
        largest = float(array.max()) if array.size and array.dtype.kind in "fiu" else 0.0
        advice = f"Save ({name}{' * 255' if 0 < largest <= 1 else ''}).round().astype('uint8')."
        raise _wrong(path, f"have {name} as uint8, 0 to 255", array.dtype, advice)
    possible = _possible_axes(array.shape)
    if axes is not None and axes not in possible:
        raise FieldError("axes", f"fit the shape of {name}, {array.shape}", axes, f"It can be {' or '.join(possible)}.")
    if not possible:
        rule = f"have {name} of shape (N, H, W), (N, H, W, C) or (N, C, H, W), with 1 or 3 channels"
        raise _wrong(path, rule, array.shape, "Save it so.")
    if axes is None and len(possible) > 1:
        rule = f"be given, since {name} of shape {array.shape} can be {' or '.join(possible)}"
        raise FieldError("axes", rule, None, f"Set data.axes={possible[0]} or data.axes={possible[1]}.")
    is_last = (axes or possible[0]) == "NHWC"
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2) if is_last else array)


def _possible_axes(shape: tuple[int, ...]) -> list[Axes]:
    if len(shape) == 3:
        return ["NHW"]
    if len(shape) != 4:
        return []
    readings: tuple[tuple[Axes, int], ...] = (("NHWC", shape[3]), ("NCHW", shape[1]))
    return [axes for axes, channels in readings if channels in (1, 3)]


def _labels(path: str, name: str, array: NDArray[Any]) -> Labels:
    """The labels as (N,), int64."""
    if array.ndim == 2 and array.shape[1] > 1:
        rule = f"have one label for each image in {name}"
        advice = "Several labels for an image are not supported; of one-hot labels, save the argmax."
        raise _wrong(path, rule, f"{array.shape[1]} columns", advice)
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        rule = f"have whole numbers of shape (N,) or (N, 1) in {name}"
        raise _wrong(path, rule, f"{array.shape} of {array.dtype}", "Save them with .astype('int64').")
    return array.reshape(len(array)).astype(np.int64)


def _class_names(path: str, labels: Mapping[str, Labels], given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes: all labels lie in [0, K), and each of the training images occurs."""
    if given is not None and len(set(given)) < len(given):
        raise FieldError("class_names", "name each class once", list(given), "Rename one.")
    train = np.unique(labels["train"])
    smallest, largest = (int(function(list(map(function, labels.values())))) for function in (min, max))
    count = len(given) if given is not None else int(train[-1]) + 1
    if smallest < 0 or largest >= count:
        rule = f"have labels from 0 to {count - 1}" + (", as its training images" if given is None else "")
        raise _wrong(path, rule, f"{smallest} to {largest}", "Renumber the classes from 0.")
    if missing := sorted(set(range(count)) - set(train.tolist())):
        rule = "have training images of every class"
        raise _wrong(path, rule, f"none of {', '.join(map(str, missing[:20]))}", "Renumber the classes from 0.")
    if count < 2:
        raise _wrong(path, "have images of two or more classes", "one", "Add another class.")
    return tuple(given) if given is not None else tuple(map(str, range(count)))
