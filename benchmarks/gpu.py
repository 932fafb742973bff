"""An epoch on a CUDA device, in each of the ways that it can be trained, and in the plain loop.

Prints a line of JSON a case: images a second in each round. What is compared takes turns in one process; a way that
records or compiles does so in a round that is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import transforms

from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.models.build import build_from_config
from era_cnn.runs.parts import make_parts, read_data
from era_cnn.runs.process import set_up
from era_cnn.training.history import History
from era_cnn.training.loop import fit

DEVICE = torch.device("cuda")
WAYS = {
    "eager": [],
    "graphs": ["trainer.cuda_graphs=true"],
    "compiled": ["trainer.compile=true"],
    "compiled graphs": ["trainer.compile=true", "trainer.cuda_graphs=true"],
}


def era(words: list[str], images: int) -> tuple[Callable[[], float], float]:
    """A round of `fit`, and the seconds of the first one, which compiles and records."""
    config = validated(compose(Words(words)))
    parts = make_parts(config, read_data(config), DEVICE)

    def round_() -> float:
        (metrics,) = fit(
            parts.state, parts.schedule, parts.train, objective=parts.objective, epochs=1, seed=1, history=History(),
            cuda_graphs=config.trainer.cuda_graphs,
        )  # fmt: skip
        return images / metrics.seconds

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own modules
        round_()
    return round_, time.perf_counter() - started


def plain(words: list[str], images: int, workers: int) -> Callable[[], float]:
    """A round of a loop as people write it: a `DataLoader` with workers, transforms of single images, `.item()`."""
    config = validated(compose(Words(words)))
    arrays = read_data(config)
    pixels = torch.from_numpy(arrays.train_images[:images].copy())
    pixels = pixels if pixels.dim() == 4 else pixels.unsqueeze(1)
    mean, std = config.data.normalisation
    augment = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomRotation(7.0),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )

    class Augmented(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, label = super().__getitem__(index)
            return augment(image), label

    labels = torch.from_numpy(arrays.train_labels[:images].astype("int64"))
    loader = DataLoader(
        Subset(Augmented(pixels, labels), range(images)), batch_size=config.trainer.batch_size, shuffle=True,
        num_workers=workers, pin_memory=True, persistent_workers=workers > 0,
    )  # fmt: skip
    network: nn.Module = build_from_config(config).to(DEVICE).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def round_() -> float:
        started, correct = time.perf_counter(), 0
        for inputs, labels in loader:
            inputs, labels = inputs.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=config.precision == "bf16"):
                logits = network(inputs)
            loss = F.cross_entropy(logits.float(), labels)
            loss.backward()
            optimizer.step()
            correct += (logits.argmax(1) == labels).sum().item()
            loss.item()
        torch.cuda.synchronize()
        return images / (time.perf_counter() - started)

    round_()
    return round_


def device_seconds(round_: Callable[[], float]) -> float:
    """The time that the kernels and copies of a round take on the device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        round_()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--steps", type=int, default=90, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=8, help="of the plain loop")
    parser.add_argument("--ways", nargs="+", default=[*WAYS, "plain loop"])
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    with set_up(1):
        for batch_size in args.batch_sizes:
            measure(args, batch_size)


def measure(args: argparse.Namespace, batch_size: int) -> None:
    images = args.steps * batch_size
    words = [
        f"experiment={args.experiment}", "device=cuda", "threads=1", f"precision={args.precision}",
        f"trainer.batch_size={batch_size}", f"trainer.limit_train_images={images}", *args.words,
    ]  # fmt: skip
    rounds: dict[str, Callable[[], float]] = {}
    first: dict[str, float] = {}
    for way in args.ways:
        if way == "plain loop":
            rounds[way] = plain(words, images, args.workers)
        else:
            rounds[way], first[way] = era([*words, *WAYS[way]], images)
    speeds: dict[str, list[float]] = {way: [] for way in rounds}
    for _ in range(args.rounds):
        for way, round_ in rounds.items():
            speeds[way].append(round(round_()))
    case = {"experiment": args.experiment, "batch_size": batch_size, "precision": args.precision}
    for way, each in speeds.items():
        line = {**case, "way": way, "images_per_second": each}
        if each and way in first:
            line |= {"first_seconds": round(first[way], 1), "device_share": round(
                device_seconds(rounds[way]) * statistics.median(each) / images, 3
            )}  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
