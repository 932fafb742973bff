from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from era_cnn.errors import RunFolderError
from era_cnn.folders import arrays as module
from era_cnn.folders.arrays import Expected, read_arrays

EXPECTED = {"x": Expected("iu", 1)}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_what_is_expected_is_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.arange(3), y=np.array([{}]))
    assert read_arrays(path, EXPECTED)["x"].tolist() == [0, 1, 2]


def test_no_object_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([Evil(tmp_path / "touched")], dtype=object))
    with pytest.raises(RunFolderError, match="Object arrays cannot be loaded"):
        read_arrays(path, EXPECTED)
    assert not (tmp_path / "touched").exists()
    np.load(path, allow_pickle=True)["x"]
    assert (tmp_path / "touched").exists(), "the object would have done harm"


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros(10_000, np.int64))
    assert path.stat().st_size < 1_000
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    with pytest.raises(
        RunFolderError, match=r"x\.npz must hold what the run wrote, got: an archive that unpacks to 80,128 bytes\."
    ):
        read_arrays(path, EXPECTED)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("y", bytes(20_000))
    with pytest.raises(RunFolderError, match="got: 20,[0-9]+ bytes, more than the 10,000 that are read"):
        read_arrays(path, EXPECTED)
