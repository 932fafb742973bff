"""The description of a data set that is known before its images are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from era_cnn.config.sections import Count, Section


@dataclass(frozen=True)
class Strokes:
    """How a data set of handwriting made its images, light strokes on black, so that a photo can be prepared alike.

    Attributes:
        size: The longer side of the box around the strokes, in pixels.
        centre: What lies at the centre of an image: the centre of mass of the strokes, or that of their box.
        width: The width of a typical stroke in pixels; thinner ones of a photo are thickened.
        detail: The pixels along a side to which an image was reduced before it was enlarged; None if it was not.
    """

    size: int
    centre: Literal["mass", "box"]
    width: float
    detail: int | None = None


@dataclass(frozen=True)
class DataInfo:
    """The shape of each image as (C, H, W), the names of the classes in the order of their labels, and the sizes.

    The network, the summary, transforms, normalisation, batches and messages take their shapes from here.

    Raises:
        ValueError: If a size is not positive, if class names repeat, or if there are fewer than two.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train_size: int
    """Training images, before validation images are split off."""

    test_size: int

    val_size: int = 0
    """Validation images that the data set brings along; 0 if they have to be split off the training images."""

    strokes: Strokes | None = None
    """How photos become images of this kind; None if they are only resized."""

    def __post_init__(self) -> None:
        sizes = (*self.shape, self.train_size, self.test_size)
        if len(self.shape) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"A DataInfo must have a shape (C, H, W) and sizes of at least 1, got {self}.")
        if not isinstance(self.val_size, int) or self.val_size < 0:
            raise ValueError(f"A DataInfo must have a val_size of at least 0, got {self.val_size!r}.")
        if isinstance(self.class_names, str) or not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"A DataInfo must have class names that are strings, got {self.class_names!r}.")
        if len(self.class_names) < 2 or len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"A DataInfo must have two or more classes with different names, got {self.class_names}.")

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)


class Contents(Section):
    """What the files of a data set hold, as a config stores it: a run can then be read without them."""

    shape: list[Count] = Field(min_length=3, max_length=3, description="channels, height and width of the images")
    class_names: list[str] = Field(min_length=2, description="the names of the classes, in the order of their labels")
    train_size: Count = Field(description="the number of training images")
    test_size: Count = Field(description="the number of test images")
    val_size: Annotated[int, Field(ge=0, le=2**31)] = Field(
        default=0, description="the number of validation images that the data set brings along"
    )

    @property
    def info(self) -> DataInfo:
        """The description of the data set."""
        channels, height, width = self.shape
        return DataInfo(
            (channels, height, width), tuple(self.class_names), self.train_size, self.test_size, self.val_size
        )
