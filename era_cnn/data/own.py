"""The data sets that hold the user's own images: a folder of files, and arrays.

Only their files say what they hold. So they are read when a config is composed, which then stores that as `contents`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from era_cnn.config.choices import dataset
from era_cnn.config.data_info import Contents, DataInfo
from era_cnn.config.sections import NoEffect

if TYPE_CHECKING:
    from era_cnn.data.arrays import Arrays
    from era_cnn.data.decoding import Decoder
    from era_cnn.data.listing import Listing

Found = Annotated[
    Contents | None,
    Field(description="a mapping, or null: what the files hold is found when the config is composed"),
]
Side = Annotated[int, Field(ge=1, le=16_384)]
Size = Annotated[
    Annotated[list[Side], Field(min_length=2, max_length=2)] | None,
    Field(description="height and width to which images are resized, as [32,32], null if all have the same size"),
]


@dataset("image_folder")
class ImageFolder:
    """A folder with an image in each file, and a folder for each class.

    Either `root/train/<class>/…` and `root/test/<class>/…`, and optionally `root/val/<class>/…` for validation images;
    or `root/<class>/…`, from which test images are split off, the same number of each class in proportion to its size.
    """

    def __init__(
        self,
        *,
        root: Annotated[str, Field(min_length=1, description="the folder that holds the images"), NoEffect()],
        size: Size = None,
        channels: Annotated[
            Literal[1, 3] | None,
            Field(description="1 for grey, 3 for colour, null for colour if any image has it"),
        ] = None,
        test_share: Annotated[
            float | None,
            Field(gt=0, lt=1, description="the share of each class to test on, null for 0.2 or the folder test"),
        ] = None,
        split_seed: Annotated[
            int, Field(ge=0, lt=2**63, description="a whole number that decides which images are for testing")
        ] = 0,
        empty_classes: Annotated[
            Literal["refuse", "keep", "ignore"],
            Field(description="what to do with a class that has no training images"),
        ] = "refuse",
        damaged: Annotated[
            Literal["error", "skip"], Field(description="what to do with images that can't be decoded")
        ] = "error",
        background: Annotated[
            int, Field(ge=0, le=255, description="the grey value behind transparent pixels, 0 to 255")
        ] = 255,
        max_pixels: Annotated[
            int, Field(ge=1, le=2**27, description="the most pixels that an image file may have")
        ] = 100_000_000,
        contents: Found = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.size, self.channels, self.background, self.max_pixels = size, channels, background, max_pixels
        self.test_share, self.split_seed, self.empty_classes = test_share, split_seed, empty_classes
        self.damaged = damaged
        self.contents: dict[str, Any] | None = contents  # type: ignore[assignment]

    def info(self) -> DataInfo:
        """As stored in the config."""
        return _stored(self.contents)

    def read(self) -> Arrays:
        """Lists the folder, and maps the decoded images from the cache; the first time, decodes them."""
        from era_cnn.data.building import listed
        from era_cnn.data.cache import cached
        from era_cnn.errors import DataError
        from era_cnn.output import complain

        entry = cached(self.listing(), self.decoder())
        if entry.damaged and self.damaged == "error":
            rule = f"{self.root} must have no damaged images, got {len(entry.damaged):,}: {listed(entry.damaged)}"
            raise DataError(f"{rule}. Replace or remove them, or set data.damaged=skip.")
        if entry.damaged:
            complain(f"Skipped {len(entry.damaged):,} damaged images: {listed(entry.damaged)}")
        return entry.arrays

    def listing(self) -> Listing:
        """What the folder holds."""
        from era_cnn.data.listing import list_images

        return list_images(
            self.root, test_share=self.test_share, split_seed=self.split_seed, empty_classes=self.empty_classes
        )

    def decoder(self) -> Decoder:
        """How its files become pixels."""
        from era_cnn.data.decoding import Decoder

        size = (self.size[0], self.size[1]) if self.size else None
        return Decoder(size, self.channels, self.background, self.max_pixels)


@dataset("npz")
class Npz:
    """A file of arrays, as `numpy.savez` writes it: the user's own, or MedMNIST's with its validation images.

    x_train, y_train, x_test and y_test; or train_images, train_labels, test_images, test_labels, and val_… likewise.
    """

    def __init__(
        self,
        *,
        root: Annotated[str, Field(min_length=1, description="the path of the file"), NoEffect()],
        axes: Annotated[
            Literal["NHW", "NHWC", "NCHW"] | None,
            Field(description="the order of the axes of the images, null if it shows by itself"),
        ] = None,
        class_names: Annotated[
            Annotated[list[str], Field(min_length=2)] | None,
            Field(description="the names of the classes in the order of their labels, null for 0, 1, 2, …"),
        ] = None,
        contents: Found = None,
    ) -> None:
        self.path, self.axes, self.class_names = os.path.abspath(root), axes, class_names
        self.contents: dict[str, Any] | None = contents  # type: ignore[assignment]

    def info(self) -> DataInfo:
        """As stored in the config."""
        return _stored(self.contents)

    def read(self) -> Arrays:
        """Reads the file."""
        from era_cnn.data.npz import read_npz

        return read_npz(self.path, axes=self.axes, class_names=self.class_names)


def _stored(contents: dict[str, Any] | None) -> DataInfo:
    assert contents is not None, "a config has the contents of its data set from its composition on"
    return Contents.model_validate(contents).info
