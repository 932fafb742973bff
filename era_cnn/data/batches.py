"""A data set on its device, stored once as uint8, and the batches made from it.

Shapes: N images in a split, B in a batch, C channels, H×W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from era_cnn import randomness
from era_cnn.data.arrays import Images, Labels
from era_cnn.data.transforms import Pipeline


class Mixed(NamedTuple):
    """For mixed images: the labels (B,) of their partners, and the share (B,) of each that is the image itself."""

    labels: Tensor
    shares: Tensor


class Batch(NamedTuple):
    """Normalised float images (B, C, H, W) and int64 labels (B,); what was mixed into the images, if anything."""

    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None


@dataclass(frozen=True)
class Split:
    """Images as uint8 and labels (N,) as int64, on a device.

    The images are those of `base` (M, C, H, W) at `indices` (N,), in that order, or all of them. So a part of a data
    set is no copy, and a memory-mapped one stays on disk until its images are used.
    """

    base: Tensor
    labels: Tensor
    indices: Tensor | None = None

    @classmethod
    def on(cls, device: torch.device, images: Images, labels: Labels) -> Split:
        """Puts images (N, C, H, W), or grey ones (N, H, W), and labels (N,) on a device.

        On a CPU, the images share the array's memory.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nobody writes to it
            tensor = torch.from_numpy(_ascending(images))
            int64_labels = torch.from_numpy(_ascending(labels).astype("int64", copy=False))
        return cls((tensor if tensor.dim() == 4 else tensor.unsqueeze(1)).to(device), int64_labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """The images (N, C, H, W): a copy, unless they are the whole base."""
        return self.base if self.indices is None else self.base[self.indices]

    def first(self, count: int | None) -> Split:
        """The first `count` images, or all of them."""
        return self.at(slice(count))

    def at(self, indices: Tensor | slice) -> Split:
        """The images at `indices`, in that order."""
        if self.indices is not None:
            return Split(self.base, self.labels[indices], self.indices[indices])
        if isinstance(indices, slice):
            return Split(self.base[indices], self.labels[indices])
        return Split(self.base, self.labels[indices], indices)


def _ascending(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy of one that is read backwards, as PyTorch can't."""
    return array.copy() if min(array.strides) < 0 else array


def split_off_val(train: Split, val_size: int, *, seed: int) -> tuple[Split, Split]:
    """Splits `val_size` validation images off the training set, stratified by class and chosen by the seed.

    If the shares of the classes are not whole numbers, the classes with the largest remainders get one more.

    Returns:
        The remaining training images and the validation images, both in their original order.
    """
    labels = train.labels.cpu()
    shares = labels.bincount().double() * val_size / len(labels)
    counts = shares.floor().long()
    by_remainder = (shares - counts).argsort(descending=True, stable=True)
    counts[by_remainder[: val_size - int(counts.sum())]] += 1
    shuffled = torch.randperm(len(labels), generator=randomness.generator(seed, "val_split"))
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for class_index, count in enumerate(counts.tolist()):
        chosen[shuffled[labels[shuffled] == class_index][:count]] = True
    indices = torch.arange(len(labels))
    return train.at(indices[~chosen].to(train.labels.device)), train.at(indices[chosen].to(train.labels.device))


MADE_TOGETHER = 512
"""Images that are prepared at a time if batches are smaller, since starting an operation costs more than its work."""

PIXELS_ON_CUDA = 8_192 * 32 * 32
"""Pixels of a channel that are prepared at a time on CUDA, where starting an operation costs even more."""


def num_together(device: torch.device, num_pixels: int) -> int:
    """How many images of `num_pixels` pixels are prepared at a time; it changes none of them."""
    return max(MADE_TOGETHER, PIXELS_ON_CUDA // num_pixels) if device.type == "cuda" else MADE_TOGETHER


class Normalise:
    """Scales uint8 pixels to [0, 1] and standardises each channel with the mean and deviation of the training set."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = _for_channels(mean), _for_channels(std)

    def __call__(self, images: Tensor) -> Tensor:
        """Converts uint8 to float32, in the same steps as torchvision's ToTensor and Normalize."""
        mean, std = (each.to(images.device) if isinstance(each, Tensor) else each for each in (self.mean, self.std))
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)

    def undo(self, images: Tensor) -> Tensor:
        """Converts normalised images back to uint8, rounded."""
        mean, std = (each.to(images.device) if isinstance(each, Tensor) else each for each in (self.mean, self.std))
        return (images * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _for_channels(values: Sequence[float]) -> Tensor | float:
    """A tensor, or a number if there is one value: on CUDA, dividing by a number gives other bits than by a tensor."""
    return values[0] if len(values) == 1 else torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


class TrainingBatches:
    """The training set, reshuffled each epoch and augmented batch by batch.

    The order depends only on (seed, epoch), a batch's augmentation only on (seed, epoch, step). So any batch of any
    epoch can be made without those before it. The last batch may be smaller than the others; with `drop_last`, an epoch
    ends before it. From the epoch `unaugmented_from` on (counted from 1), if it is given, images are not augmented.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        augment: Pipeline,
        normalise: Normalise,
        seed: int,
        drop_last: bool = False,
        unaugmented_from: int | None = None,
    ) -> None:
        self.split, self.batch_size, self.seed, self.drop_last = split, batch_size, seed, drop_last
        self.augment, self.normalise, self.unaugmented_from = augment, normalise, unaugmented_from

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-self.images_per_epoch // self.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """The number of images in an epoch."""
        return len(self.split) - (len(self.split) % self.batch_size if self.drop_last else 0)

    def order(self, epoch: int) -> Tensor:
        """The index of each training image in the order of an epoch, shape (N,), on the CPU."""
        return torch.randperm(len(self.split), generator=randomness.generator(self.seed, "shuffle", epoch))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 1), starting at `first_step` (counted from 0)."""
        is_augmented = self.unaugmented_from is None or epoch < self.unaugmented_from
        augment = self.augment if is_augmented else Pipeline([])
        order = self.order(epoch).to(self.split.labels.device)
        num_pixels = self.split.base.shape[2] * self.split.base.shape[3]
        together = max(1, num_together(order.device, num_pixels) // self.batch_size)
        for start in range(first_step, len(self), together):
            steps = range(start, min(start + together, len(self)))
            chosen = self.split.at(order[steps.start * self.batch_size : steps.stop * self.batch_size])
            labels = torch.split(chosen.labels, self.batch_size)
            draws = [
                self._draws(augment.num_draws, epoch, step, len(part)) for step, part in zip(steps, labels, strict=True)
            ]
            images = self.normalise(augment(chosen.images, torch.cat(draws, dim=1)))
            yield from map(partial(_batch, augment), torch.split(images, self.batch_size), labels, draws)

    def _draws(self, number: int, epoch: int, step: int, count: int) -> Tensor:
        generator = randomness.generator(self.seed, "augment", epoch, step)
        return torch.rand(number, count, generator=generator, dtype=torch.float64)


def _batch(augment: Pipeline, images: Tensor, labels: Tensor, draws: Tensor) -> Batch:
    mixed = augment.mix(images, draws)
    if mixed is None:
        return Batch(images, labels)
    images, partners, shares = mixed
    return Batch(images, labels, Mixed(labels[partners], shares))


class EvaluationBatches:
    """The batches of a split, in its own order and without augmentation."""

    def __init__(self, split: Split, *, batch_size: int, normalise: Normalise) -> None:
        self.split, self.batch_size, self.normalise = split, batch_size, normalise

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.split), self.batch_size):
            chosen = self.split.at(slice(start, start + self.batch_size))
            yield Batch(self.normalise(chosen.images), chosen.labels)
