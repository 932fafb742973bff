"""The reference networks and their data, written plainly, for the other contenders. Imports nothing of era_cnn."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from torchvision import transforms
from torchvision.datasets import MNIST


def block(in_channels: int, out_channels: int, dropout: float = 0.1) -> nn.Sequential:
    parts = [nn.Conv2d(in_channels, out_channels, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*parts, *([nn.Dropout(dropout)] if dropout else []))


class Flat(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(1)


def model_2(width: int = 1) -> nn.Module:
    w, wide = 10 * width, 32 * width
    return Flat(
        block(1, w), block(w, wide), block(wide, w),
        nn.MaxPool2d(2), nn.Conv2d(w, w, 1, bias=False), nn.ReLU(),
        nn.Conv2d(w, w, 3, bias=False), nn.ReLU(), nn.Conv2d(w, w, 3, bias=False), nn.ReLU(),
        nn.Conv2d(w, w, 1, bias=False), nn.ReLU(), nn.Conv2d(w, 10, 7, bias=False),
    )  # fmt: skip


def model_3(width: int = 1) -> nn.Module:
    w, v = 12 * width, 16 * width
    return Flat(
        block(1, w), block(w, v), block(v, w), nn.MaxPool2d(2),
        block(w, v), block(v, v), nn.Conv2d(v, 10, 3, bias=False), nn.AvgPool2d(5),
    )  # fmt: skip


def model_4(width: int = 1) -> nn.Module:
    return Flat(
        block(1, 8 * width, 0), block(8 * width, 16 * width, 0),
        nn.Conv2d(16 * width, 16 * width, 1, bias=False), block(16 * width, 16 * width), nn.MaxPool2d(2),
        block(16 * width, 12 * width, 0), block(12 * width, 10 * width),
        nn.Conv2d(10 * width, 10, 3, bias=False), nn.AvgPool2d(5),
    )  # fmt: skip


def padded(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def separable(in_channels: int, out_channels: int) -> nn.Sequential:
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    first = nn.Sequential(depthwise, nn.BatchNorm2d(in_channels), nn.ReLU())
    return nn.Sequential(*first, pointwise, nn.BatchNorm2d(out_channels), nn.ReLU())


def cifar10_dilated(width: int = 1) -> nn.Module:
    a, b, c, d, e = (width * channels for channels in (24, 32, 48, 64, 96))
    return Flat(
        padded(3, a), padded(a, b), padded(b, b, 2), padded(b, c), separable(c, d), padded(d, d, 2),
        padded(d, d, dilation=2), separable(d, d), padded(d, d, 2), separable(d, e), separable(e, e),
        nn.AvgPool2d(4), nn.Conv2d(e, 10, 1, bias=False),
    )  # fmt: skip


NETWORKS = {"model_2": model_2, "model_3": model_3, "model_4": model_4, "cifar10_dilated": cifar10_dilated}
SHAPES = {name: (3, 32, 32) if name.startswith("cifar10") else (1, 28, 28) for name in NETWORKS}
ROTATES = {"model_2": False, "model_3": True, "model_4": True}
BATCH_SIZES = {"model_2": 128, "model_3": 64, "model_4": 64, "cifar10_dilated": 128}


def data_set(model: str, data_dir: str, images: int) -> Dataset:
    """The training images of a network's recipe, with its augmentation."""
    if model in ROTATES:
        return Subset(mnist(data_dir, train=True, rotate=ROTATES[model]), range(images))
    return Noise(images)


class Noise(Dataset):
    """Noise of CIFAR's shape, through the transforms of the recipe as torchvision has them."""

    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def __init__(self, images: int) -> None:
        self.pixels, self.labels = noise(images)
        move = transforms.RandomAffine(
            15, translate=(0.0625, 0.0625), scale=(0.9, 1.1), interpolation=transforms.InterpolationMode.BILINEAR
        )
        self.transform = transforms.Compose([
            transforms.RandomHorizontalFlip(), transforms.RandomApply([move]), transforms.ToTensor(),
            transforms.Normalize(self.mean, self.std),
            transforms.RandomErasing(p=0.5, scale=(0.25, 0.25), ratio=(1, 1)),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def noise(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3), uint8, and labels (N,): no transform takes longer for one image than for another."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8), np.arange(images) % 10


def mnist(data_dir: str, *, train: bool, rotate: bool) -> MNIST:
    """MNIST as the reference runs read it."""
    steps = [transforms.RandomRotation((-7.0, 7.0), fill=1)] if rotate else []
    steps += [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    with tempfile.TemporaryDirectory() as root:  # torchvision wants to unpack beside the gzipped files
        raw_dir = Path(root) / "MNIST" / "raw"
        raw_dir.mkdir(parents=True)
        for path in (Path(data_dir) / "MNIST" / "raw").iterdir():
            (raw_dir / path.name).symlink_to(path.resolve())
        return MNIST(root, train=train, download=True, transform=transforms.Compose(steps))
