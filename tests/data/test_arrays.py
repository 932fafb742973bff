from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from era_cnn.config.choices import DATASETS
from era_cnn.config.data_info import DataInfo
from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.data import arrays as arrays_module
from era_cnn.data.arrays import Arrays, Known, Statistics, check_against
from era_cnn.errors import DataError
from era_cnn.runs import parts
from era_cnn.runs.parts import read_data
from tests.conftest import config_of
from tests.helpers import nothing_stays_registered

INFO = DataInfo((3, 4, 6), ("a", "b", "c"), train_size=7, test_size=3)


def arrays_of(info: DataInfo = INFO) -> Arrays:
    rng = np.random.default_rng(0)

    def images(size: int) -> np.ndarray[Any, Any]:
        return rng.integers(0, 256, (size, *info.shape), dtype=np.uint8)

    def labels(size: int) -> np.ndarray[Any, Any]:
        return np.arange(size, dtype=np.int64) % info.num_classes

    return Arrays(images(info.train_size), labels(info.train_size), images(info.test_size), labels(info.test_size))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.int64])
def test_arrays_that_are_what_the_data_set_says_pass(kind: type) -> None:
    arrays = arrays_of()
    check_against(replace(arrays, train_labels=arrays.train_labels.astype(kind)), INFO, "mine")


def test_grey_images_pass_with_and_without_a_channel_axis() -> None:
    info = replace(INFO, shape=(1, 4, 6))
    arrays = arrays_of(info)
    check_against(arrays, info, "mine")
    check_against(replace(arrays, train_images=arrays.train_images[:, 0]), info, "mine")


IMAGES, LABELS = arrays_of().train_images, arrays_of().train_labels
TEST_IMAGES, TEST_LABELS = arrays_of().test_images, arrays_of().test_labels
SHAPE = "training images of shape (7, 3, 4, 6), got"
WHOLE = "labels of shape ({},), whole numbers, got"
WRONG = {
    "float images": ({"train_images": IMAGES.astype(np.float32)}, "training images of uint8, got float32"),
    "int64 test images": ({"test_images": TEST_IMAGES.astype(np.int64)}, "test images of uint8, got int64"),
    "fewer images": ({"train_images": IMAGES[:-1]}, f"{SHAPE} (6, 3, 4, 6)"),
    "more images": ({"train_images": np.concatenate([IMAGES, IMAGES])}, f"{SHAPE} (14, 3, 4, 6)"),
    "fewer test images": ({"test_images": TEST_IMAGES[:1]}, "test images of shape (3, 3, 4, 6), got (1, 3, 4, 6)"),
    "channels last": ({"train_images": IMAGES.transpose(0, 2, 3, 1)}, f"{SHAPE} (7, 4, 6, 3)"),
    "turned": ({"train_images": IMAGES.transpose(0, 1, 3, 2)}, f"{SHAPE} (7, 3, 6, 4)"),
    "grey": ({"train_images": IMAGES[:, 0]}, f"{SHAPE} (7, 4, 6)"),
    "flat": ({"train_images": IMAGES.reshape(7, -1)}, "training images of shape (N, C, H, W) or (N, H, W), got (7, 72)"),
    "lists": ({"train_images": IMAGES.tolist()}, "training images of uint8, got [[["),
    "no images": ({"test_images": None}, "test images of uint8, got None"),
    "a tensor": ({"train_images": torch.zeros(7)}, "training images of uint8, got Tensor of torch.float32, shape (7,)"),
    "a list of labels": ({"train_labels": [0, 1]}, f"training {WHOLE.format('N')} [0, 1]"),
    "images without labels": ({"val_images": TEST_IMAGES}, "validation images with their labels, got one of the two"),
    "fewer labels": ({"train_labels": LABELS[:-1]}, f"training {WHOLE.format(7)} (6,) of int64"),
    "one-hot labels": ({"train_labels": np.eye(7, dtype=np.int64)}, f"training {WHOLE.format('N')} (7, 7) of int64"),
    "float labels": ({"train_labels": LABELS.astype(float)}, f"training {WHOLE.format('N')} (7,) of float64"),
    "bool labels": ({"test_labels": TEST_LABELS > 0}, f"test {WHOLE.format('N')} (3,) of bool"),
    "labels from 1": ({"train_labels": LABELS + 1}, "training labels from 0 to 2, one for each class, got 1 to 3"),
    "a negative label": ({"train_labels": LABELS - 1}, "training labels from 0 to 2, one for each class, got -1 to 1"),
    "a label too large": ({"test_labels": np.array([0, 1, 3])}, "test labels from 0 to 2, one for each class, got 0 to 3"),
}  # fmt: skip
"""Arrays that contradict INFO, and what is said of them."""


@pytest.mark.parametrize("case", WRONG)
def test_what_contradicts_the_data_set_is_refused(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(DataError) as caught:
        check_against(replace(arrays_of(), **changes), INFO, "mine")
    assert str(caught.value).startswith(f"The data set mine must match its description: {message}")
    assert str(caught.value).endswith(". Fix the data set.")
    assert caught.value.exit_code == 3


def with_val(**changes: Any) -> Arrays:
    return replace(arrays_of(), **{"val_images": TEST_IMAGES[:2], "val_labels": TEST_LABELS[:2], **changes})


def test_validation_images_of_its_own_are_checked_too() -> None:
    info = replace(INFO, val_size=2)
    check_against(with_val(), info, "mine")
    for arrays, expected, message in (
        (with_val(), INFO, "0 validation images, got 2"),
        (arrays_of(), info, "2 validation images, got 0"),
        (with_val(val_images=TEST_IMAGES), info, r"validation images of shape \(2, 3, 4, 6\), got"),
        (with_val(val_labels=TEST_LABELS), info, r"validation labels of shape \(2,\)"),
        (with_val(val_labels=TEST_LABELS[:2] + 3), info, "validation labels from 0 to 2"),
        (with_val(class_names=("a", "c", "b")), info, "classes .*, got .*'c', 'b'"),
    ):
        with pytest.raises(DataError, match=f"The data set mine must match its description: {message}"):
            check_against(arrays, expected, "mine")


def test_validation_images_and_what_is_known_are_part_of_the_digest() -> None:
    digests = {arrays_of().sha256, with_val().sha256, with_val(val_images=TEST_IMAGES[1:3]).sha256}
    assert len(digests) == 3
    known = Known("0" * 64, Statistics([0.1], [0.2]))
    assert (with_val(known=known).sha256, with_val(known=known).statistics) == known


def test_statistics_are_those_of_the_training_images_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays_module, "CHUNK", 2)
    pixels = arrays_of().train_images / 255
    expected = Statistics(pixels.mean(axis=(0, 2, 3)).round(4).tolist(), pixels.std(axis=(0, 2, 3)).round(4).tolist())
    assert arrays_of().statistics == expected
    grey = replace(arrays_of(), train_images=arrays_of().train_images[:, 0])
    assert grey.statistics == Statistics(expected.mean[:1], expected.std[:1])


@pytest.fixture
def mine() -> Iterator[dict[str, Any]]:
    """Registers a data set whose arrays can be changed."""
    changes: dict[str, Any] = {}

    class Mine:
        def info(self) -> DataInfo:
            return INFO

        def read(self) -> Arrays:
            return replace(arrays_of(), **changes)

    with nothing_stays_registered():
        DATASETS.register("mine")(Mine)
        parts._shared.cache_clear()
        yield changes
    parts._shared.cache_clear()


def of_mine() -> RunConfig:
    values = config_of("experiment=model_3", "trainer.batch_size=3", "target.max_params=null").model_dump()
    return parse({**values, "data": {"name": "mine", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}})


def test_a_run_reads_its_data_and_checks_them_each_time(mine: dict[str, Any]) -> None:
    assert read_data(of_mine()).sha256 == arrays_of().sha256
    parts._shared.cache_clear()
    mine["train_labels"] = np.zeros(6, dtype=np.int64)
    for _ in range(2):  # what was refused is not remembered as read
        with pytest.raises(DataError, match="The data set mine must match its description: training labels of shape"):
            read_data(of_mine())


def former_sha256(arrays: Arrays) -> str:
    """As it was computed when all images were grey and without a channel axis, and all labels bytes."""
    digest = hashlib.sha256()
    for array in (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels):
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def test_the_digest_of_grey_images_is_that_of_before_with_or_without_a_channel_axis() -> None:
    arrays = arrays_of(replace(INFO, shape=(1, 4, 6)))
    grey = Arrays(
        arrays.train_images[:, 0], arrays.train_labels.astype(np.uint8),
        arrays.test_images[:, 0], arrays.test_labels.astype(np.uint8),
    )  # fmt: skip
    with_axis = replace(grey, train_images=arrays.train_images, test_images=arrays.test_images)
    assert grey.sha256 == with_axis.sha256 == former_sha256(grey)


def test_the_digest_is_over_shapes_types_and_values_and_not_over_the_layout() -> None:
    arrays = arrays_of()
    changed = {
        "a pixel": replace(arrays, train_images=arrays.train_images ^ np.uint8(1)),
        "a test pixel": replace(arrays, test_images=arrays.test_images[::-1]),
        "a label": replace(arrays, train_labels=arrays.train_labels[::-1]),
        "the shape": replace(arrays, train_images=arrays.train_images.reshape(7, 3, 6, 4)),
        "the type": replace(arrays, train_labels=arrays.train_labels.astype(np.uint8)),
        "the splits": Arrays(arrays.test_images, arrays.test_labels, arrays.train_images, arrays.train_labels),
    }
    digests = {name: each.sha256 for name, each in changed.items()}
    assert len({arrays.sha256, *digests.values()}) == 1 + len(changed)
    layout = np.asfortranarray(arrays.train_images)
    assert replace(arrays, train_images=layout).sha256 == arrays.sha256
    swapped = arrays.train_labels.astype(arrays.train_labels.dtype.newbyteorder(">"))
    assert replace(arrays, train_labels=swapped.astype("<i8")).sha256 == arrays.sha256
