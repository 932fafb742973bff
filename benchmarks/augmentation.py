"""The augmentation of a CIFAR recipe: flip, crop, shift-scale-rotate, cutout. `--model` says which contender this is.

`pipeline` transforms uint8 images in groups, as training does; `step` trains a network of just under 200,000 parameters
on one batch again and again; `batches` makes an epoch's normalised batches; `loader` makes them with torchvision's
transforms of Pillow images in a `DataLoader`, and `workers` in one with a worker for each thread. The images are noise
of CIFAR's shape: no transform takes longer for one image than for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.contender import options, serve
from era_cnn.config.choices import TRANSFORMS
from era_cnn.config.data_info import DataInfo
from era_cnn.data.batches import MADE_TOGETHER, Batch, Normalise, Split, TrainingBatches
from era_cnn.data.transforms import Pipeline, make_pipeline
from era_cnn.models.build import build_network, count_params
from era_cnn.runs.process import set_up
from era_cnn.training.objective import Objective

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
INFO = DataInfo((3, 32, 32), tuple("0123456789"), train_size=50_000, test_size=10_000)
RECIPE = {
    "horizontal_flip": {"probability": 0.5},
    "random_crop": {"padding": 4},
    "shift_scale_rotate": {"shift_limit": 0.0625, "scale_limit": 0.1, "rotate_limit": 15.0, "probability": 0.5},
    "cutout": {"holes": [1, 1], "height": [16, 16], "width": [16, 16]},
}
THEIR_RECIPE = transforms.Compose([
    transforms.RandomHorizontalFlip(),
    transforms.RandomCrop(32, padding=4),
    transforms.RandomApply([
        transforms.RandomAffine(
            15, translate=(0.0625, 0.0625), scale=(0.9, 1.1), interpolation=transforms.InterpolationMode.BILINEAR
        )
    ]),
    transforms.ToTensor(),
    transforms.Normalize(MEAN, STD),
    transforms.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1)),
])  # fmt: skip
LAYERS = {
    f"conv{number}": {"block": "conv", "out_channels": channels, "padding": 1, "stride": stride}
    for number, (channels, stride) in enumerate([(32, 1), (48, 1), (64, 2), (64, 1), (64, 2), (64, 1)], start=1)
}
HEAD = {"head": {"block": "gap_head", "projection": "conv"}}
INHERITED = {"dropout": 0.0, "norm": "batch", "activation": "relu", "bias": False,
             "order": ["conv", "norm", "activation", "dropout"]}  # fmt: skip


class Images(Dataset):
    """Images and labels as torchvision's `CIFAR10` gives them."""

    def __init__(self, split: Split) -> None:
        self.arrays, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return THEIR_RECIPE(Image.fromarray(self.arrays[index])), self.labels[index]


def pipeline() -> Pipeline:
    sections = {name: TRANSFORMS.section(name).model_validate(fields) for name, fields in RECIPE.items()}
    return make_pipeline(sections, INFO, MEAN)


def transform_all(split: Split) -> None:
    augment = pipeline()
    for images in split.images.split(MADE_TOGETHER):
        augment(images, torch.rand(augment.num_draws, len(images), dtype=torch.float64))


def steps(batch: Batch, number: int) -> Callable[[], None]:
    network = build_network({**LAYERS, **HEAD}, INHERITED, seed=1, info=INFO).to(memory_format=torch.channels_last)
    assert 150_000 < count_params(network) < 200_000, count_params(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    backward = Objective(network).backward

    def train() -> None:
        for _ in range(number):
            backward(batch)
            optimizer.step()

    return train


def consume(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def main() -> None:
    args = options()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (args.images, *INFO.shape), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(args.images) % INFO.num_classes)
    with set_up(args.threads):
        normalise = Normalise(MEAN, STD)
        ours = TrainingBatches(split, batch_size=args.batch_size, augment=pipeline(), normalise=normalise, seed=1)
        workers = args.threads if args.model == "workers" else 0
        theirs = DataLoader(
            Images(split), batch_size=args.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        batch = Batch(normalise(images[: args.batch_size]), split.labels[: args.batch_size])
        rounds: dict[str, Callable[[], None]] = {
            "pipeline": lambda: transform_all(split),
            "batches": lambda: consume(ours.epoch(1)),
            "loader": lambda: consume(theirs),
            "workers": lambda: consume(theirs),
        }
        run = steps(batch, args.images // args.batch_size) if args.model == "step" else rounds[args.model]

        def round_() -> float:
            started = time.perf_counter()
            run()
            return time.perf_counter() - started

        serve(round_)


if __name__ == "__main__":
    main()
