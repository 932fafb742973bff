from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import era_cnn
from era_cnn.config.sections import FieldError
from era_cnn.data import npz
from era_cnn.data.npz import read_npz
from era_cnn.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 3, 8, 6), dtype=np.uint8)
GREY = COLOUR[:, 0]
LABELS = np.arange(12) % 4


def arrays_of(images: Any = GREY, labels: Any = LABELS, **changes: Any) -> dict[str, Any]:
    return {"x_train": images, "y_train": labels, "x_test": images[:5], "y_test": labels[:5], **changes}


def medmnist(images: Any, labels: Any = LABELS) -> dict[str, Any]:
    """As MedMNIST's files are: labels (N, 1), and validation images."""
    sizes = {"train": 12, "val": 8, "test": 6}
    return {
        f"{split}_{kind}": array[:size]
        for split, size in sizes.items()
        for kind, array in (("images", images), ("labels", labels[:, None].astype(np.uint8)))
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


def read(file: Path, arrays: dict[str, Any], **options: Any) -> era_cnn.Arrays:
    np.savez_compressed(file, **arrays)
    return read_npz(str(file), **options)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, GREY),
        (GREY[:, :, :, None], GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 2, 3, 1), COLOUR),
        (np.asfortranarray(COLOUR), COLOUR),
    ],
    ids=["NHW", "NHW1", "N1HW", "N3HW", "NHW3", "Fortran"],
)
def test_images_of_each_shape(images: np.ndarray, expected: np.ndarray, file: Path) -> None:
    found = read(file, arrays_of(images))
    assert np.array_equal(found.train_images, expected)
    assert np.array_equal(found.test_images, expected[:5])
    assert found.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("labels", [LABELS.astype(kind) for kind in ("uint8", "int32", ">i8")] + [LABELS[:, None]])
def test_labels_of_each_kind(labels: np.ndarray, file: Path) -> None:
    found = read(file, arrays_of(labels=labels))
    assert found.train_labels.dtype == np.int64
    assert found.train_labels.tolist() == LABELS.tolist()


def test_one_image_with_a_label_of_its_own_axis_stays_one(file: Path) -> None:
    found = read(file, arrays_of(x_test=GREY[:1], y_test=np.array([[3]])))
    assert found.test_labels.tolist() == [3]


def test_medmnist_brings_its_validation_images(file: Path) -> None:
    found = read(file, medmnist(COLOUR.transpose(0, 2, 3, 1)))
    assert found.val_images is not None
    assert np.array_equal(found.val_images, COLOUR[:8])
    assert found.contents["val_size"] == 8
    assert [len(labels) for _, _, labels in found.splits()] == [12, 8, 6]


def test_axes_are_never_guessed(file: Path) -> None:
    both = RNG.integers(0, 256, (12, 3, 8, 3), dtype=np.uint8)
    with pytest.raises(FieldError) as caught:
        read(file, arrays_of(both))
    rule = "data.axes must be given, since x_train of shape (12, 3, 8, 3) can be NHWC or NCHW, got null. Set data.axes=NHWC"
    assert caught.value.at("data").startswith(rule)
    assert read(file, arrays_of(both), axes="NCHW").contents["shape"] == [3, 8, 3]
    assert read(file, arrays_of(both), axes="NHWC").contents["shape"] == [3, 3, 8]
    with pytest.raises(FieldError) as caught:
        read(file, arrays_of(COLOUR), axes="NHWC")
    assert "data.axes must fit the shape of x_train, (12, 3, 8, 6), got 'NHWC'. It can be NCHW." in caught.value.at(
        "data"
    )


def test_other_arrays_are_ignored_and_never_read(file: Path) -> None:
    assert len(read(file, arrays_of(more=np.array([{}], dtype=object))).train_labels) == 12


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no arrays": ({"a": GREY}, "have the arrays x_train, y_train, x_test, y_test or train_images, train_labels, test_images, test_labels, got none."),
    "some missing": ({"x_train": GREY, "y_train": LABELS}, "test_labels, got x_train, y_train. Rename them."),
    "floats": (arrays_of(GREY / 255), "have x_train as uint8, 0 to 255, got float64. Save (x_train * 255).round().astype('uint8')."),
    "large floats": (arrays_of(GREY.astype("float32")), "have x_train as uint8, 0 to 255, got float32. Save (x_train).round().astype('uint8')."),
    "int64": (arrays_of(x_test=GREY[:5].astype(int)), "have x_test as uint8, 0 to 255, got int64."),
    "flat": (arrays_of(GREY.reshape(12, -1)), "have x_train of shape (N, H, W), (N, H, W, C) or (N, C, H, W), with 1 or 3 channels, got (12, 48)."),
    "two channels": (arrays_of(COLOUR[:, :2]), "with 1 or 3 channels, got (12, 2, 8, 6)."),
    "objects": (arrays_of(labels=np.array(list(LABELS), dtype=object)), "have no arrays of objects, got y_train.npy. They could run code"),
    "several labels": (arrays_of(labels=np.eye(14, dtype=int)[LABELS]), "have one label for each image in y_train, got 14 columns. Several labels for an image are not"),
    "float labels": (arrays_of(labels=LABELS.astype(float)), "have whole numbers of shape (N,) or (N, 1) in y_train, got (12,) of float64. Save them"),
    "bool labels": (arrays_of(labels=LABELS > 1), "have whole numbers of shape (N,) or (N, 1) in y_train, got (12,) of bool."),
    "fewer labels": (arrays_of(y_train=LABELS[:9]), "have a label for each image, and at least one, got 12 in x_train and 9 in y_train."),
    "no test images": (arrays_of(x_test=GREY[:0], y_test=LABELS[:0]), "have a label for each image, and at least one, got 0 in x_test and 0 in y_test."),
    "other sizes": (arrays_of(x_test=GREY[:5, :4]), "have images of one shape, got (5, 4, 6) in x_test and (12, 8, 6) in x_train."),
    "labels from 1": (arrays_of(labels=LABELS + 1), "have training images of every class, got none of 0. Renumber"),
    "negative labels": (arrays_of(labels=LABELS - 1), "have labels from 0 to 2, as its training images, got -1 to 2."),
    "an unknown test class": (arrays_of(y_test=LABELS[:5] + 1), "have labels from 0 to 3, as its training images, got 0 to 4."),
    "one class": (arrays_of(labels=LABELS * 0), "have images of two or more classes, got one."),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said(case: str, file: Path) -> None:
    arrays, message = WRONG[case]
    with pytest.raises(DataError) as caught:
        read(file, arrays)
    assert str(caught.value).startswith(f"{file} must ")
    assert message in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_pickle_in_a_file_does_not_run(file: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    np.savez(file, **arrays_of(labels=np.array([Attack()] * 12, dtype=object)), allow_pickle=True)
    with pytest.raises(DataError, match="must have no arrays of objects"):
        read_npz(str(file))
    with zipfile.ZipFile(file, "w") as archive:
        for name in arrays_of():
            archive.writestr(f"{name}.npy", pickle.dumps(Attack()))
    with pytest.raises(DataError, match="must be a file of arrays that can be read"):
        read_npz(str(file))
    assert not (tmp_path / "ran").exists()


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**15, 28, 28), (2**40, 2**40, 2**40)])
def test_a_header_that_promises_more_than_there_is_costs_no_memory(shape: tuple[int, ...], file: Path) -> None:
    np.savez(file, **{name: array for name, array in arrays_of().items() if name != "x_train"})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x_train.npy", header(shape) + b"x" * 100)
    with pytest.raises(DataError, match="x_train.npy has another length than its header says"):
        read_npz(str(file))


def test_a_file_that_unpacks_to_more_than_fits_into_memory_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "memory_bytes", lambda: 1_000)
    with pytest.raises(DataError, match=r"must unpack to at most 0.0 GiB, the memory here, got 0.0 GiB"):
        read(file, arrays_of())


def test_no_damage_has_a_traceback(file: Path) -> None:
    np.savez_compressed(file, **arrays_of())
    content = file.read_bytes()
    damaged = [b"", b"<html>", *(content[:length] for length in range(0, len(content), len(content) // 20))]
    for place in RNG.integers(0, len(content), 100):
        changed = bytearray(content)
        changed[place] ^= 1 << int(RNG.integers(8))
        damaged.append(bytes(changed))
    refused = 0
    for each in damaged:
        file.write_bytes(each)
        try:
            read_npz(str(file))
        except DataError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("path", ["nothing.npz", "."])
def test_a_file_that_is_not_there(path: str) -> None:
    with pytest.raises(DataError, match="must be a file of arrays that can be read, got (No such file|Is a directory)"):
        read_npz(path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_never_ends_is_not_read(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "own.npz")
    with pytest.raises(DataError, match="must be a file of arrays that can be read, got a pipe or a device"):
        read_npz(str(tmp_path / "own.npz"))


SHORT = [
    "data=npz", "data.root=own.npz", "trainer=smoke", "threads=1", "trainer.batch_size=4", "trainer.limit_epochs=1",
    "+model.layers.gap.projection=conv", "target.max_params=null",
]  # fmt: skip


def test_a_run_from_a_file_of_medmnist_and_its_replay(command, file: Path) -> None:
    np.savez_compressed(file, **medmnist(RNG.integers(0, 256, (12, 28, 28, 3), dtype=np.uint8)))
    code, out, _ = command(*SHORT, "hydra.run.dir=run")
    assert code == 0
    assert "npz (12 training + 8 validation + 6 test images)" in out
    assert era_cnn.load("run").config.info.class_names == ("0", "1", "2", "3")
    shutil.move(file, "moved.npz")
    assert command("replay", "run", "--data-root", "moved.npz")[0] == 0


def test_a_file_that_changes_is_read_again(file: Path) -> None:
    np.savez(file, **arrays_of())
    before = era_cnn.compose(SHORT).data.mean
    np.savez(file, **arrays_of(GREY // 2))
    assert era_cnn.compose(SHORT).data.mean != before


def test_classes_can_be_named(file: Path) -> None:
    np.savez(file, **arrays_of())
    config = era_cnn.compose([*SHORT, "data.class_names=[a,b,c,d]"])
    assert config.info.class_names == ("a", "b", "c", "d")
    with pytest.raises(DataError, match=r"must have labels from 0 to 1, got 0 to 3"):
        era_cnn.compose([*SHORT, "data.class_names=[a,b]"])
    with pytest.raises(ConfigError, match="data.class_names must name each class once"):
        era_cnn.compose([*SHORT, "data.class_names=[a,b,c,a]"])


def test_the_verb_reports_a_file(command, file: Path) -> None:
    np.savez(file, **arrays_of())
    code, out, _ = command("data", "npz", "data.root=own.npz")
    assert code == 0
    assert out.startswith("npz: 12 training and 5 test images, verified, SHA-256 ")
    assert "Images that are in the test images and in others: 5\n  training[0] = test[0]" in out
    assert command("data", "npz", "data.root=nothing.npz")[0] == 3
