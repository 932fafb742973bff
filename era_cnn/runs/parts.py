"""What a run is made of, from its config: device, data, network, optimizer and schedule."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from era_cnn.config.schema import DigitsData, RunConfig
from era_cnn.data.augment import make_augmentation
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches, split_off_val
from era_cnn.data.sources import Dataset, read_digits, read_idx_data
from era_cnn.models.build import build_from_config, check_network
from era_cnn.runs.process import check_threads, pick_device
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


def settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The config with what depends on where it is started: the device, and the folder of the data from its root on."""
    return config.anchored().model_copy(update={"device": device.type})


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


def check(config: RunConfig) -> None:
    """Raises what `run` would before it reads any data."""
    pick_device(config.device)
    check_threads(config.threads)
    check_network(config)
