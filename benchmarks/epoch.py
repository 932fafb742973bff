"""How fast Model-3 trains here beside the plain loop of the reference runs, and how much memory a run takes.

Both train in this process, in turn, so that what else the machine does hits both. The plain loop is written as a user
would: torchvision's MNIST, a PIL rotation for each image, a DataLoader, a bar that reads the loss in each step.

    python -m benchmarks.epoch [--rounds 5] [--images 6400] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST
from tqdm import tqdm

from era_cnn.composition import compose, validated
from era_cnn.config import RunConfig
from era_cnn.models.build import build_from_config
from era_cnn.runs.ingredients import make_deterministic, make_splits, make_training_batches, read_dataset
from era_cnn.training.loop import fit
from era_cnn.training.optim import constant, make_optimizer
from era_cnn.words import Words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each loop, after one that is not counted")
    parser.add_argument("--images", type=int, default=6400, help="in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    overrides = ["experiment=model_3", f"threads={args.threads}", f"trainer.limit_train_images={args.images}"]
    config = validated(compose(Words(overrides)))
    make_deterministic(config.threads)
    print(f"{platform.platform()}, torch {torch.__version__}, {args.threads} threads, {args.images} images a round")

    ours, plain = prepare_ours(config), {workers: prepare_plain(config, workers) for workers in (0, 2)}
    seconds: dict[str, list[float]] = {"era_cnn": [], "plain loop": [], "plain loop, 2 workers": []}
    for _ in range(args.rounds + 1):
        seconds["era_cnn"].append(ours())
        seconds["plain loop"].append(plain[0]())
        seconds["plain loop, 2 workers"].append(plain[2]())
    for name, values in seconds.items():
        counted = values[1:]
        ratios = [other / own for own, other in zip(seconds["era_cnn"][1:], counted, strict=True)]
        print(
            f"{name:22} {args.images / statistics.median(counted):6.0f} images/s; "
            f"era_cnn is {statistics.median(ratios):.2f} × as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"peak resident memory of a Model-3 run on MNIST: {peak_memory_bytes(overrides) / 2**20:.0f} MiB")


def prepare_ours(config: RunConfig):
    """An epoch as `era-cnn` trains it, timed by itself."""
    train, _, _ = make_splits(read_dataset(config), config, torch.device("cpu"))
    model = build_from_config(config)
    optimizer = make_optimizer(config.optimizer.name, model.parameters(), **config.optimizer.options())
    batches = make_training_batches(train, config)

    def epoch() -> float:
        (record,) = fit(model, optimizer, constant(total_steps=1), batches, epochs=1, seed=1)
        return record.seconds

    return epoch


def prepare_plain(config: RunConfig, num_workers: int):
    """An epoch as the reference runs trained it."""
    transform = transforms.Compose(
        [
            transforms.RandomRotation((-7.0, 7.0), fill=1),
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,)),
        ]
    )
    with tempfile.TemporaryDirectory() as root:  # torchvision wants to unpack beside the gzipped files
        raw_dir = Path(root) / "MNIST" / "raw"
        raw_dir.mkdir(parents=True)
        for path in (Path(config.data.root) / "MNIST" / "raw").glob("*.gz"):
            (raw_dir / path.name).symlink_to(path.resolve())
        dataset = MNIST(root, train=True, download=True, transform=transform)
    subset = Subset(dataset, range(config.trainer.limit_train_images or len(dataset)))
    loader = DataLoader(subset, batch_size=config.trainer.batch_size, shuffle=True, num_workers=num_workers)
    model = build_from_config(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def epoch() -> float:
        started = time.perf_counter()
        model.train()
        correct = processed = 0
        with open(os.devnull, "w") as nowhere:
            bar = tqdm(loader, file=nowhere)
            for batch_id, (images, labels) in enumerate(bar):
                optimizer.zero_grad()
                logits = F.log_softmax(model(images), dim=1)
                loss = F.nll_loss(logits, labels)
                loss.backward()
                optimizer.step()
                correct += logits.argmax(dim=1).eq(labels).sum().item()
                processed += len(images)
                bar.set_description(f"Loss={loss.item()} Batch_id={batch_id} Accuracy={100 * correct / processed:0.2f}")
        return time.perf_counter() - started

    return epoch


def peak_memory_bytes(overrides: list[str]) -> int:
    """Of a run of its own, one epoch long, evaluation included."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*overrides, "trainer.limit_epochs=1", f"hydra.run.dir={folder}/run"]
        subprocess.run([sys.executable, "-m", "era_cnn", *words], check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    main()
