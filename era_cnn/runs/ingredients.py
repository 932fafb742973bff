"""What a run is made of, from its config: device, data, network, optimizer and schedule."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from era_cnn.config import DigitsData, RunConfig
from era_cnn.data.augment import make_augmentation
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches, split_off_val
from era_cnn.data.sources import Dataset, read_digits, read_idx_data
from era_cnn.errors import ConfigError, problem
from era_cnn.models.build import build_from_config, check_network
from era_cnn.training.graphs import record_graphs
from era_cnn.training.optim import Schedule, make_optimizer, make_schedule


@dataclass(frozen=True)
class Ingredients:
    """All that is trained and trained on, on its device, as it is before the first step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: TrainingBatches
    val: EvaluationBatches | None
    test: EvaluationBatches


def make_ingredients(config: RunConfig, dataset: Dataset, device: torch.device) -> Ingredients:
    """Builds everything that a run trains.

    Raises:
        ConfigError: If the network can't be built.
    """
    train_split, val, test = make_splits(dataset, config, device)
    train = make_training_batches(train_split, config)
    model = build_from_config(config).to(device).to(memory_format=torch.channels_last)  # where convolutions are fastest
    if config.trainer.cuda_graphs:
        record_graphs(model, next(train.epoch(1)).images, config.precision)
    return Ingredients(
        model=model,
        optimizer=make_optimizer(config.optimizer.name, model.parameters(), **config.optimizer.options()),
        schedule=make_schedule(
            config.scheduler.name,
            epochs=config.trainer.epochs,
            steps_per_epoch=len(train),
            **config.scheduler.options(),
        ),
        train=train,
        val=make_evaluation_batches(val, config) if val else None,
        test=make_evaluation_batches(test, config),
    )


def pick_device(name: str) -> torch.device:
    """The device called `name`; for `auto`, the first of cuda, mps and cpu that is there.

    Raises:
        ConfigError: If it is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name != "auto" and name not in available:
        rule = f"be there: this machine has {', '.join(available)}"
        raise ConfigError([problem("device", rule, name, "Use device=auto for the fastest one.")])
    return torch.device(available[0] if name == "auto" else name)


def settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The config with what depends on where it is started: the device, and the folder of the data from its root on."""
    config = config.model_copy(update={"device": device.type})
    if isinstance(config.data, DigitsData):
        return config
    root = os.path.abspath(config.data.root)  # else a run could only be resumed from where it was started
    return config.model_copy(update={"data": config.data.model_copy(update={"root": root})})


def make_deterministic(threads: int) -> None:
    """Sets all of PyTorch's switches that the bits of a result depend on.

    Raises:
        ConfigError: If there can't be so many threads.
    """
    check_threads(threads)
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may differ from call to call
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms(True), which imports the compiler
    torch.backends.cudnn.benchmark = False
    # Filling fresh memory shows reads of it, at a price in each step; the tests of equal bits show them too.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_memory() -> None:
    """Lets the C library keep what a step frees for the next one, instead of asking the system for it anew.

    Else a step of a small network spends a fifth of its time on pages that the system takes back and clears. Elsewhere
    than with glibc, nothing.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        for option, value in _MALLOPT.values():
            c_library.mallopt(option, value)


_MALLOPT = {  # by their numbers in malloc.h
    "M_TRIM_THRESHOLD": (-1, 2**29),  # above all that a step frees
    "M_MMAP_THRESHOLD": (-3, 2**25),  # the most that it takes: 32 MiB
    "M_MXFAST": (1, 0),  # else each large block that is freed has the small ones put in order
}


def read_dataset(config: RunConfig) -> Dataset:
    """The data set of a run, verified; the runs of a process share it."""
    if isinstance(config.data, DigitsData):
        return _digits(config.data.train_size)
    return _idx_data(config.data.name, Path(os.path.abspath(config.data.root)))


_digits = functools.lru_cache(maxsize=1)(read_digits)
_idx_data = functools.lru_cache(maxsize=3)(read_idx_data)  # 52 MiB each


def make_splits(dataset: Dataset, config: RunConfig, device: torch.device) -> tuple[Split, Split | None, Split]:
    """Training, validation and test images on the device, within the trainer's limits."""
    train = Split.on(device, dataset.train_images, dataset.train_labels)
    test = Split.on(device, dataset.test_images, dataset.test_labels).first(config.trainer.limit_test_images)
    val = None
    if config.data.val_size:
        train, val = split_off_val(train, config.data.val_size, seed=config.seed)
    return train.first(config.trainer.limit_train_images), val, test


def make_training_batches(train: Split, config: RunConfig) -> TrainingBatches:
    """The batches that a run trains on."""
    return TrainingBatches(
        train,
        batch_size=config.trainer.batch_size,
        augment=make_augmentation(config.augmentation.name, **config.augmentation.options()),
        normalise=Normalise(config.data.mean, config.data.std),
        seed=config.seed,
    )


def make_evaluation_batches(split: Split, config: RunConfig) -> EvaluationBatches:
    """The batches that a run is evaluated on."""
    normalise = Normalise(config.data.mean, config.data.std)
    return EvaluationBatches(split, batch_size=config.trainer.eval_batch_size, normalise=normalise)


def check_threads(threads: int) -> None:
    """Raises a `ConfigError` if OpenMP will not give that many: it would wait for the missing ones for ever."""
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdecimal() and int(limit) < threads:
        rule = f"be at most {limit}, as the environment's OMP_THREAD_LIMIT says"
        raise ConfigError([problem("threads", rule, threads, "Lower it, or unset the variable.")])


def check(config: RunConfig) -> None:
    """Raises what `run` would before it reads any data."""
    pick_device(config.device)
    check_threads(config.threads)
    check_network(config)
