"""The reference networks and their data, written plainly, for the other contenders. Imports nothing of era_cnn."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import Tensor, nn
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


NETWORKS = {"model_2": model_2, "model_3": model_3, "model_4": model_4}
ROTATES = {"model_2": False, "model_3": True, "model_4": True}
BATCH_SIZES = {"model_2": 128, "model_3": 64, "model_4": 64}


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
