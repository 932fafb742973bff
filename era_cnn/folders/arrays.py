"""Arrays in a folder, as NumPy's .npz files: written whole, and read from strangers without harm."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cnn.errors import RunFolderError
from era_cnn.folders.plain import read_plain
from era_cnn.folders.storage import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

MOST_BYTES = 2**30
"""The most bytes of a file and of its arrays: the logits of a million images in a hundred classes take 400 MB."""


@dataclass(frozen=True)
class Expected:
    """An array that a file should hold: NumPy's letters of its kinds, such as `iu`, and its number of axes."""

    kinds: str
    axes: int
    is_optional: bool = False


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = False) -> None:
    """Writes arrays by name; equal arrays give equal bytes.

    Raises:
        StorageError: If the file can't be written.
    """
    import numpy as np

    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **arrays)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def read_arrays(path: Path, expected: Mapping[str, Expected]) -> Arrays:
    """The arrays of a file that `write_arrays` wrote; others are ignored. No object in it is unpickled.

    Raises:
        RunFolderError: If it is missing or damaged, unpacks to too much, or holds other arrays than expected.
    """
    try:
        arrays = _read(path, expected)
        for name, wanted in expected.items():
            _check(name, arrays.get(name), wanted)
    except RunFolderError:
        raise
    except Exception as error:  # zipfile and NumPy raise anything for bytes that they did not write
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = said.rstrip(".") or type(error).__name__
        raise RunFolderError(
            f"{path} must hold what the run wrote, got: {reason}. Resume or replay the run."
        ) from error
    return arrays


def _read(path: Path, expected: Mapping[str, Expected]) -> Arrays:
    import numpy as np

    content = read_plain(path, MOST_BYTES)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MOST_BYTES:
        raise ValueError(f"an archive that unpacks to {size:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in expected if name in file.files}


def _check(name: str, array: NDArray[Any] | None, wanted: Expected) -> None:
    if array is None:
        if not wanted.is_optional:
            raise ValueError(f"no array {name}")
    elif array.dtype.kind not in wanted.kinds or array.ndim != wanted.axes:
        raise ValueError(f"{name} of type {array.dtype} and shape {array.shape}")
