"""The description of a data set that is known before its images are read."""

from __future__ import annotations

from dataclasses import dataclass


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

    def __post_init__(self) -> None:
        sizes = (*self.shape, self.train_size, self.test_size)
        if len(self.shape) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"A DataInfo must have a shape (C, H, W) and sizes of at least 1, got {self}.")
        if isinstance(self.class_names, str) or not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"A DataInfo must have class names that are strings, got {self.class_names!r}.")
        if len(self.class_names) < 2 or len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"A DataInfo must have two or more classes with different names, got {self.class_names}.")

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)
