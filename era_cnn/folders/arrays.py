"""Reads NumPy's .npz files from a folder that may come from a stranger."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cnn.errors import RunFolderError
from era_cnn.folders.plain import read_plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

MOST_BYTES = 2**30
"""The most bytes of a file, and of all its arrays: a million images with the logits of a hundred classes take less."""


@dataclass(frozen=True)
class Expected:
    """What an array must be: one of NumPy's kinds, such as `iu`, and its number of axes."""

    kinds: str
    axes: int


def read_arrays(path: Path, expected: Mapping[str, Expected]) -> Arrays:
    """The expected arrays of a file; others in it are not read, and no object is unpickled.

    Raises:
        RunFolderError: If the file is missing, damaged or too large, or does not hold these arrays.
    """
    try:
        return _read(path, expected)
    except Exception as error:  # damaged archives make zipfile and NumPy raise errors of many classes
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise RunFolderError(
            f"{path} must hold what the run wrote, got: {reason.rstrip('.')}. Replay the run."
        ) from error


def _read(path: Path, expected: Mapping[str, Expected]) -> Arrays:
    import numpy as np

    content = io.BytesIO(read_plain(path, MOST_BYTES))
    with zipfile.ZipFile(content) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MOST_BYTES:
        raise ValueError(f"an archive of {size:,} bytes")
    found: Arrays = {}
    with np.load(content, allow_pickle=False) as file:
        for name, wanted in expected.items():
            array = file[name]
            if array.dtype.kind not in wanted.kinds or array.ndim != wanted.axes:
                raise ValueError(f"{name} of type {array.dtype} and shape {array.shape}")
            found[name] = array
    return found
