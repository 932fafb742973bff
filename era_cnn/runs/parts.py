"""Builds the parts of a run from its config: data, network, optimizer and schedule, on the device."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from era_cnn.config.choices import BLOCKS, DATASETS, is_own, keyword_parameters
from era_cnn.config.schema import RunConfig, make_schedule, read_from
from era_cnn.config.sections import FieldError
from era_cnn.data.arrays import Arrays, check_against
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches, split_off_val
from era_cnn.data.sets import Dataset
from era_cnn.data.transforms import make_pipeline
from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.models.build import build_from_config, check_network
from era_cnn.runs.process import check_threads, pick_device
from era_cnn.training.graphs import record_graphs
from era_cnn.training.optimizers import make_optimizer
from era_cnn.training.schedulers import Schedule
from era_cnn.training.state import TrainingState


@dataclass(frozen=True)
class Parts:
    """The training state, the schedule and the batches, on their device, before the first step."""

    state: TrainingState
    schedule: Schedule
    train: TrainingBatches
    val: EvaluationBatches | None
    test: EvaluationBatches


def make_parts(config: RunConfig, arrays: Arrays, device: torch.device) -> Parts:
    """Builds everything that a run trains.

    Raises:
        ConfigError: If the network can't be built, or an optimizer or a transform does not fit.
    """
    train_split, val, test = make_splits(arrays, config, device)
    train = make_training_batches(train_split, config)
    network = build_from_config(config).to(device).to(memory_format=torch.channels_last)
    if config.trainer.cuda_graphs:
        record_graphs(network, next(train.epoch(1)).images, config.precision)
    try:
        optimizer = make_optimizer(config.optimizer, network.parameters())
    except FieldError as error:
        raise ConfigError([error.at("optimizer")]) from error
    return Parts(
        state=TrainingState(network, optimizer),
        schedule=make_schedule(config.scheduler, epochs=config.trainer.epochs, steps_per_epoch=len(train)),
        train=train,
        val=make_evaluation_batches(val, config) if val else None,
        test=make_evaluation_batches(test, config),
    )


def settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The config with the values that depend on where it runs: the actual device and an absolute data folder."""
    return config.anchored().model_copy(update={"device": device.type})


def read_data(config: RunConfig) -> Arrays:
    """The data of a run, verified; the runs of a process share that of built-in data sets whose files never change.

    Raises:
        DataError: If it is missing, damaged, or does not match the description of the data set.
    """
    section = config.anchored().data
    entry = DATASETS[section.name]
    fields = json.dumps(section.model_dump(include={each.name for each in keyword_parameters(entry)}))
    is_constant = is_own(entry) and not hasattr(section, "contents")  # the user's own files may change at any time
    try:
        arrays = (_shared if is_constant else _read)(section.name, entry, fields)
    except FieldError as error:  # the files have changed since the config was composed
        raise ConfigError([error.at("data")]) from error
    check_against(arrays, config.info, section.name)
    return arrays


def _read(name: str, entry: Callable[..., Dataset], fields: str) -> Arrays:
    return read_from(entry(**json.loads(fields)), name)


_shared = functools.lru_cache(maxsize=3)(_read)  # MNIST has 52 MiB


def make_splits(arrays: Arrays, config: RunConfig, device: torch.device) -> tuple[Split, Split | None, Split]:
    """Training, validation and test images on the device, within the trainer's limits."""
    train = Split.on(device, arrays.train_images, arrays.train_labels)
    test = Split.on(device, arrays.test_images, arrays.test_labels).first(config.trainer.limit_test_images)
    val = None
    if arrays.val_images is not None and arrays.val_labels is not None:
        val = Split.on(device, arrays.val_images, arrays.val_labels)
    elif config.data.val_size:
        train, val = split_off_val(train, config.data.val_size, seed=config.seed)
    return train.first(config.trainer.limit_train_images), val, test


def make_training_batches(train: Split, config: RunConfig) -> TrainingBatches:
    """The batches that a run trains on.

    Raises:
        ConfigError: If a transform does not fit the images.
    """
    try:
        pipeline = make_pipeline(config.augmentation.chosen(), config.info)
    except FieldError as error:
        raise ConfigError([error.at("augmentation")]) from error
    return TrainingBatches(
        train,
        batch_size=config.trainer.batch_size,
        augment=pipeline,
        normalise=Normalise(*config.data.normalisation),
        seed=config.seed,
    )


def make_evaluation_batches(split: Split, config: RunConfig) -> EvaluationBatches:
    """The batches that a run is evaluated on."""
    normalise = Normalise(*config.data.normalisation)
    return EvaluationBatches(split, batch_size=config.trainer.eval_batch_size, normalise=normalise)


def check_blocks(config: RunConfig, path: Path) -> None:
    """Raises a `RunFolderError` if the config in a folder names blocks that are not there."""
    unknown = sorted({str(spec.get("block")) for spec in config.model.layers.values()} - set(BLOCKS))
    if unknown:
        raise RunFolderError(
            f"{path} must hold a network of known blocks, got {', '.join(unknown)}. If a plugin has it, give --plugin."
        )


def check(config: RunConfig) -> None:
    """Raises the errors that a run would raise before it reads any data."""
    pick_device(config.device)
    check_threads(config.threads)
    check_network(config)
