from __future__ import annotations

from typing import Any

import pytest

from era_cnn.config.choices import DATASETS
from era_cnn.config.data_info import DataInfo
from era_cnn.errors import ConfigError
from tests.conftest import config_of
from tests.helpers import section_of

GOOD: dict[str, Any] = {"shape": (3, 20, 33), "class_names": ("a", "b"), "train_size": 5, "test_size": 1}


def test_a_data_set_of_any_shape_and_any_number_of_classes() -> None:
    assert DataInfo(**GOOD).num_classes == 2
    assert DataInfo(**{**GOOD, "class_names": tuple(map(str, range(300)))}).num_classes == 300


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (20, 33)},
        {"shape": (1, 3, 20, 33)},
        {"shape": (0, 20, 33)},
        {"shape": (3, -1, 33)},
        {"shape": (3, 20.0, 33)},
        {"train_size": 0},
        {"test_size": 0},
        {"test_size": -1},
    ],
)
def test_a_wrong_shape_or_size_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"A DataInfo must have a shape \(C, H, W\) and sizes of at least 1, got DataIn"
    ):
        DataInfo(**{**GOOD, **change})


@pytest.mark.parametrize("class_names", [(), ("a",), ("a", "b", "a")])
def test_classes_that_are_too_few_or_the_same_are_refused(class_names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="A DataInfo must have two or more classes with different names, got "):
        DataInfo(**{**GOOD, "class_names": class_names})


FOUND = {"shape": [3, 4, 6], "class_names": ["a", "b"], "train_size": 5, "test_size": 1, "val_size": 2}
SETS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "digits": ({"train_size": 1000}, ((1, 28, 28), 10, 1000, 797, 0)),
    "cifar10": ({"root": "nowhere"}, ((3, 32, 32), 10, 50_000, 10_000, 0)),
    "cifar100": ({"root": "nowhere"}, ((3, 32, 32), 100, 50_000, 10_000, 0)),
    "svhn": ({"root": "nowhere"}, ((3, 32, 32), 10, 73_257, 26_032, 0)),
    "qmnist": ({"root": "nowhere"}, ((1, 28, 28), 10, 60_000, 50_000, 0)),
    "emnist": ({"root": "nowhere", "split": "letters"}, ((1, 28, 28), 26, 124_800, 20_800, 0)),
    "npz": ({"root": "nowhere", "contents": FOUND}, ((3, 4, 6), 2, 5, 1, 2)),
    "image_folder": ({"root": "nowhere", "contents": FOUND}, ((3, 4, 6), 2, 5, 1, 2)),
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), ({"root": "nowhere"}, ((1, 28, 28), 10, 60_000, 10_000, 0))),
}
"""The fields of each data set, and its description."""


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_of_itself_what_it_is(name: str) -> None:
    fields, expected = SETS[name]
    info = DATASETS.make(name, section_of(DATASETS, name, mean=[0.1], std=[0.1], **fields)).info()
    assert (info.shape, info.num_classes, info.train_size, info.test_size, info.val_size) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.mean=[0.1,0.2,0.3]",
            "data.mean must have 1 value, one for each channel of mnist, got [0.1, 0.2, 0.3]. Write",
        ),
        (
            "data.std=[0.1,0.2]",
            "data.std must have 1 value, one for each channel of mnist, got [0.1, 0.2]. Write it as a",
        ),
        ("data.std=[0]", "data.std.0 must be greater than 0, got 0."),
        ("data.mean=[]", "data.mean must have at least 1 entries, got []."),
        ("data.mean=x", "data.mean must be a list, got 'x'."),
    ],
)
def test_mean_and_deviation_are_lists_with_a_value_for_each_channel(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(override)
    assert caught.value.problems[0].startswith(message)
    assert len(caught.value.problems) == 1


def test_one_value_may_be_written_without_brackets() -> None:
    assert config_of("data.mean=0.1307", "data.std=0.3081") == config_of()
