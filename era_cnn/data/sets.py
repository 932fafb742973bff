"""The built-in data sets. The code that reads them is imported when they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from era_cnn.config.choices import dataset
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import NoEffect

if TYPE_CHECKING:
    from era_cnn.data.arrays import Arrays

Root = Annotated[
    str,
    Field(min_length=1, description="the folder that holds the data sets (ERA_CNN_DATA sets it)"),
    NoEffect(),
]


class Dataset(Protocol):
    """The interface of a data set, which can be described before it is read."""

    def info(self) -> DataInfo:
        """Shape, classes and sizes; costs no more than listing a folder."""

    def read(self) -> Arrays:
        """All images and labels, verified.

        Raises:
            DataError: If files are missing or damaged.
        """


class _IdxDataset:
    """A data set in MNIST's file format: 60,000 + 10,000 grey images of 28×28 pixels in ten classes."""

    name: str
    class_names: tuple[str, ...]

    def __init__(self, *, root: Root) -> None:
        self.root = Path(os.path.abspath(root))

    def info(self) -> DataInfo:
        """The same for all data sets in this format, except the class names."""
        return DataInfo((1, 28, 28), self.class_names, train_size=60_000, test_size=10_000)

    def read(self) -> Arrays:
        """Reads the four files; downloads missing ones."""
        from era_cnn.data.idx import read_idx_data

        return read_idx_data(self.name, self.root)


DIGITS = tuple("0123456789")


@dataset("mnist")
class Mnist(_IdxDataset):
    """MNIST (LeCun, Cortes and Burges 1998): handwritten digits."""

    name, class_names = "mnist", DIGITS


@dataset("fashion_mnist")
class FashionMnist(_IdxDataset):
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747): articles of clothing."""

    name = "fashion_mnist"
    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


@dataset("kmnist")
class Kmnist(_IdxDataset):
    """Kuzushiji-MNIST (Clanuwat et al. 2018, arXiv 1812.01718): cursive Japanese characters."""

    name, class_names = "kmnist", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataset("digits")
class Digits:
    """Scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), embedded: grey, scaled to 28×28 pixels."""

    imports = ("sklearn.datasets",)
    """Modules that are slow to import; a sweep imports them once for all its jobs."""

    def __init__(
        self,
        *,
        train_size: Annotated[
            int,
            Field(
                ge=100,
                le=1_697,
                description="the index of the first test image, 100 to 1,697: all before it are training images",
            ),
        ],
    ) -> None:
        self.train_size = train_size

    def info(self) -> DataInfo:
        """All images before `train_size` are training images."""
        return DataInfo((1, 28, 28), DIGITS, self.train_size, test_size=1_797 - self.train_size)

    def read(self) -> Arrays:
        """Reads the images, scaled with integers only: the bytes are the same on every machine."""
        from era_cnn.data.digits import read_digits

        return read_digits(self.train_size)
