"""The built-in data sets. The code that reads them is imported when they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field

from era_cnn.config.choices import dataset
from era_cnn.config.data_info import DataInfo, Strokes
from era_cnn.config.sections import NoEffect

if TYPE_CHECKING:
    from era_cnn.data.arrays import Arrays

from era_cnn.data import own as own  # registers the data sets that hold the user's own images

Root = Annotated[
    str,
    Field(min_length=1, description="the folder that holds the data sets (ERA_CNN_DATA sets it)"),
    NoEffect(),
]


class Dataset(Protocol):
    """The interface of a data set, which can be described before it is read.

    If it has to be read once to be described, it has the field `contents`: see `era_cnn.data.own`.
    """

    def info(self) -> DataInfo:
        """Shape, classes and sizes; reads no files."""

    def read(self) -> Arrays:
        """All images and labels, verified.

        Raises:
            DataError: If files are missing or damaged.
        """


class _IdxDataset:
    """A data set in MNIST's file format: 60,000 + 10,000 grey images of 28×28 pixels in ten classes."""

    name: str
    class_names: tuple[str, ...]
    strokes: Strokes | None = None

    def __init__(self, *, root: Root) -> None:
        self.root = Path(os.path.abspath(root))

    def info(self) -> DataInfo:
        """The same for all data sets in this format, except the class names and how the images were made."""
        return DataInfo((1, 28, 28), self.class_names, train_size=60_000, test_size=10_000, strokes=self.strokes)

    def read(self) -> Arrays:
        """Reads the four files; downloads missing ones."""
        from era_cnn.data.idx import read_idx_data

        return read_idx_data(self.name, self.root)


DIGITS = tuple("0123456789")

MNIST_STROKES = Strokes(size=20, centre="mass", width=2.7)
"""The width is the mean over the test images, four times the mean distance of a stroke's pixels to its edge."""


@dataset("mnist")
class Mnist(_IdxDataset):
    """MNIST (LeCun, Cortes and Burges 1998): handwritten digits."""

    name, class_names, strokes = "mnist", DIGITS, MNIST_STROKES


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


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FINE = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100 = tuple(_FINE.split())


class _CifarDataset:
    """A data set in CIFAR's file format: 50,000 + 10,000 colour images of 32×32 pixels."""

    name: str
    class_names: tuple[str, ...]

    def __init__(self, *, root: Root) -> None:
        self.root = Path(os.path.abspath(root))

    def info(self) -> DataInfo:
        """The same for both data sets in this format, except the class names."""
        return DataInfo((3, 32, 32), self.class_names, train_size=50_000, test_size=10_000)

    def read(self) -> Arrays:
        """Reads the files, without running what pickles may hold; downloads the archive if they are missing."""
        from era_cnn.data.cifar import read_cifar

        return read_cifar(self.name, self.root)


@dataset("cifar10")
class Cifar10(_CifarDataset):
    """CIFAR-10 (Krizhevsky 2009): photographs of animals and vehicles."""

    name, class_names = "cifar10", CIFAR10


@dataset("cifar100")
class Cifar100(_CifarDataset):
    """CIFAR-100 (Krizhevsky 2009): photographs of animals, plants, things and people, with the 100 fine labels."""

    name, class_names = "cifar100", CIFAR100


@dataset("svhn")
class Svhn:
    """SVHN (Netzer et al. 2011): colour photographs of house numbers, cropped to single digits; without `extra`."""

    def __init__(self, *, root: Root) -> None:
        self.root = Path(os.path.abspath(root))

    def info(self) -> DataInfo:
        """Always the same."""
        return DataInfo((3, 32, 32), DIGITS, train_size=73_257, test_size=26_032)

    def read(self) -> Arrays:
        """Reads the two files; downloads missing ones."""
        from era_cnn.data.svhn import read_svhn

        return read_svhn(self.root)


@dataset("emnist")
class Emnist:
    """EMNIST (Cohen et al. 2017, arXiv 1702.05373): handwritten letters and digits, upright as MNIST's."""

    def __init__(
        self,
        *,
        root: Root,
        split: Annotated[
            Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"],
            Field(description="which classes and images"),
        ],
    ) -> None:
        self.root, self.split = Path(os.path.abspath(root)), split

    def info(self) -> DataInfo:
        """The sizes and classes of the split."""
        from era_cnn.data.nist import EMNIST

        split = EMNIST[self.split]
        strokes = Strokes(size=24, centre="box", width=3.2)  # MNIST's, as wide as the larger box makes them
        return DataInfo((1, 28, 28), split.class_names, split.train_size, split.test_size, strokes=strokes)

    def read(self) -> Arrays:
        """Reads the split from the archive; downloads the archive if it is missing."""
        from era_cnn.data.nist import read_emnist

        return read_emnist(self.root, self.split)


@dataset("qmnist")
class Qmnist:
    """QMNIST (Yadav and Bottou 2019, arXiv 1905.10498): MNIST's training images, and 50,000 unseen test images."""

    def __init__(self, *, root: Root) -> None:
        self.root = Path(os.path.abspath(root))

    def info(self) -> DataInfo:
        """Always the same."""
        return DataInfo((1, 28, 28), DIGITS, train_size=60_000, test_size=50_000, strokes=MNIST_STROKES)

    def read(self) -> Arrays:
        """Reads the four files; downloads missing ones."""
        from era_cnn.data.nist import read_qmnist

        return read_qmnist(self.root)


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
        strokes = Strokes(size=28, centre="box", width=6.4, detail=8)
        return DataInfo((1, 28, 28), DIGITS, self.train_size, test_size=1_797 - self.train_size, strokes=strokes)

    def read(self) -> Arrays:
        """Reads the images, scaled with integers only: the bytes are the same on every machine."""
        from era_cnn.data.digits import read_digits

        return read_digits(self.train_size)
