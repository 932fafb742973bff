"""How many operators of PyTorch a training step calls: counted, not timed, so that any machine will do."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from benchmarks.era import config_of, data_of
from benchmarks.networks import NETWORKS, data_set
from benchmarks.plain import train_epoch
from era_cnn.runs.compiler import compile_training
from era_cnn.runs.parts import make_parts, read_data
from era_cnn.runs.process import set_up
from era_cnn.training.history import History
from era_cnn.training.loop import fit

STEPS = 8
MOST = 6
"""The operators that are named, those that are called most often."""


def calls(work: Callable[[], object]) -> Counter[str]:
    """The calls of each operator, of those within others, too; the second time, since the first one prepares."""
    work()
    torch.manual_seed(1)  # transforms that are drawn for each image, or not
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return Counter(event.name for event in profiled.events() if event.name.startswith("aten::"))


def plain(model: str, data_dir: str, batch_size: int, steps: int = STEPS) -> tuple[Counter[str], Counter[str]]:
    """The calls in an epoch of the plain loop, and in loading its images alone."""
    network = NETWORKS[model]()
    loader = DataLoader(data_set(model, data_dir, steps * batch_size), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    return calls(lambda: train_epoch(network, loader, optimizer)), calls(lambda: exhaust(loader))


def era(
    model: str, data_dir: str, batch_size: int, steps: int = STEPS, *, compiled: bool = False
) -> tuple[Counter[str], Counter[str]]:
    """The calls in an epoch of `fit`, and in loading and augmenting its images alone."""
    images = steps * batch_size
    with tempfile.TemporaryDirectory() as scratch, set_up(1):
        config = config_of(
            model, "threads=1", *data_of(model, data_dir, images, scratch), f"trainer.batch_size={batch_size}",
            f"trainer.limit_train_images={images}", f"trainer.compile={compiled}",
        )  # fmt: skip
        parts = make_parts(config, read_data(config), torch.device("cpu"))
        if compiled:
            compile_training(parts.objective, parts.train)

        def epoch() -> None:
            options = {"objective": parts.objective, "epochs": 1, "seed": 1, "history": History()}
            exhaust(fit(parts.state, parts.schedule, parts.train, **options))

        return calls(epoch), calls(lambda: exhaust(parts.train.epoch(1)))


def exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def operations(model: str = "model_4", batch_size: int = 64) -> dict[str, Any]:
    """The calls of a step: what an epoch of twice as many steps has more, without what ends an epoch."""
    data_dir = os.environ.get("ERA_CNN_DATA", "data")
    ways = {"plain": plain, "era_cnn": era, "compiled": partial(era, compiled=True)}
    found = {}
    for way, count in ways.items():
        short, long = (count(model, data_dir, batch_size, steps) for steps in (STEPS, 2 * STEPS))
        whole, loading = (more - less for more, less in zip(long, short, strict=True))
        training = whole - loading
        found[way] = {
            "loading": round(loading.total() / STEPS),
            "training": round(training.total() / STEPS),
            "most": {name: round(number / STEPS) for name, number in training.most_common(MOST)},
        }
    print(found, flush=True)
    return found
