"""Builds the parts of a run from its config: data, network, optimizer and schedule, on the device."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from era_cnn.config.choices import BLOCKS, DATASETS, LOGGERS
from era_cnn.config.description import read_from
from era_cnn.config.schedule import Schedule
from era_cnn.config.schema import RunConfig, make_schedule
from era_cnn.config.sections import FieldError
from era_cnn.config.signatures import is_own, keyword_parameters
from era_cnn.data.arrays import Arrays, check_against
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches, split_off_val
from era_cnn.data.sets import Dataset
from era_cnn.data.transforms import make_pipeline
from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.models.build import build_from_config, check_network
from era_cnn.models.network import Network
from era_cnn.portable import check_processor
from era_cnn.runs.compiler import check_compiler
from era_cnn.runs.initial import load_what_fits, with_source
from era_cnn.runs.process import check_threads, device_of
from era_cnn.training.averaging import Average
from era_cnn.training.compiled import CompiledPass
from era_cnn.training.ending import EndsAfter, at_target, first_of, without_progress
from era_cnn.training.gradients import Gradients
from era_cnn.training.objective import Objective
from era_cnn.training.optimizers import make_optimizer
from era_cnn.training.state import TrainingState

EMA = "ema"
"""The name of the averaged weights in the state, and the prefix of their figures."""


@dataclass(frozen=True)
class Parts:
    """The training state, the schedule and the batches, on their device, before the first step.

    `average`, if there is one, is a member of the state.
    """

    state: TrainingState
    objective: Objective
    schedule: Schedule
    train: TrainingBatches
    val: EvaluationBatches | None
    test: EvaluationBatches
    average: Average | None


def make_parts(
    config: RunConfig, arrays: Arrays, device: torch.device, initial: Mapping[str, torch.Tensor] | None = None
) -> Parts:
    """Builds everything that a run trains; the network begins with those weights of `initial` that fit.

    Raises:
        ConfigError: If the network can't be built, an optimizer does not fit, or none of the weights do.
    """
    train_split, val, test = make_splits(arrays, config, device)
    train = make_training_batches(train_split, config)
    network = build_from_config(config).to(device).to(memory_format=torch.channels_last)
    if initial is not None:
        load_what_fits(network, initial)
    decay = config.trainer.ema_decay
    average = Average(network, decay) if decay is not None else None
    try:
        optimizer = make_optimizer(config.optimizer, network.parameters())
    except FieldError as error:
        raise ConfigError([error.at("optimizer")]) from error
    state = TrainingState(network, optimizer)
    if average is not None:
        state.add(EMA, average)
    trainer = config.trainer
    return Parts(
        state=state,
        objective=make_objective(config, network, train),
        schedule=make_schedule(
            config.scheduler, epochs=trainer.epochs, steps_per_epoch=len(train), watch=trainer.watch
        ),
        train=train,
        val=make_evaluation_batches(val, config) if val else None,
        test=make_evaluation_batches(test, config),
        average=average,
    )


def make_objective(config: RunConfig, network: Network, train: TrainingBatches) -> Objective:
    """The loss that a run minimises, and its gradients."""
    trainer = config.trainer
    return Objective(
        network,
        forward=CompiledPass(network, trainer.batch_size) if trainer.compile else None,
        label_smoothing=trainer.label_smoothing,
        class_weights=class_weights(config, train.split.labels),
        gradients=Gradients(trainer.l1, trainer.clip_grad_value, trainer.clip_grad_norm),
        precision=config.precision,
    )


def members_of(config: RunConfig) -> set[str]:
    """The names of the members that the config adds to the state."""
    return {EMA} if config.trainer.ema_decay is not None else set()


def class_weights(config: RunConfig, labels: torch.Tensor) -> torch.Tensor | None:
    """The weight of each class in the training loss, shape (K,), on the device of the training labels (N,).

    Balanced ones are N / (K · images of the class), so that every class counts as much; 0 for a class without images.
    """
    weights = config.trainer.class_weights
    if weights is None:
        return None
    if weights != "balanced":
        return torch.tensor(weights, device=labels.device)
    counts = labels.bincount(minlength=config.info.num_classes)
    balanced = len(labels) / (len(counts) * counts)
    return balanced.where(counts > 0, 0.0)


def ends_after(config: RunConfig) -> EndsAfter:
    """What ends the training before its last epoch."""
    watch, stopping, rules = config.trainer.watch, config.trainer.early_stopping, []
    if config.trainer.stop_at_target and config.target.test_accuracy is not None:
        rules.append(at_target(watch, config.target.test_accuracy))
    if stopping.patience is not None:
        rules.append(without_progress(watch, **stopping.model_dump()))
    return first_of(*rules)


def settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The config with the values that depend on where it runs: device, absolute folders, digest of initial weights.

    Raises:
        RunFolderError: If the run whose weights to begin with can't be read.
    """
    return with_source(config.anchored()).model_copy(update={"device": device.type})


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
    return _repeated(train.first(config.trainer.limit_train_images), config.trainer.repeat_train_images), val, test


def _repeated(train: Split, times: int) -> Split:
    return train if times == 1 else train.at(torch.arange(len(train), device=train.labels.device).repeat(times))


def make_training_batches(train: Split, config: RunConfig) -> TrainingBatches:
    """The batches that a run trains on."""
    unaugmented = config.trainer.unaugmented_epochs
    return TrainingBatches(
        train,
        batch_size=config.trainer.batch_size,
        drop_last=config.trainer.drop_last,
        augment=make_pipeline(config.augmentation.chosen(), config.info, config.data.normalisation[0]),
        normalise=Normalise(*config.data.normalisation),
        seed=config.seed,
        unaugmented_from=config.trainer.epochs - unaugmented + 1 if unaugmented else None,
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


def check_loggers(config: RunConfig) -> None:
    """Raises a `ConfigError` unless the packages of each logger are installed."""
    for name in config.logger.chosen():
        missing = [package for package in getattr(LOGGERS[name], "packages", ()) if find_spec(package) is None]
        if missing:
            rule = f"logger={name} must have its packages installed, got no {', '.join(missing)}"
            raise ConfigError([f"{rule}. Install them: pip install 'era_cnn[{name}]'"])


def check(config: RunConfig) -> None:
    """Raises the errors that a run would raise before it reads any data."""
    check_processor(config.portable)
    device = device_of(config)
    check_threads(config.threads)
    if config.trainer.compile:
        check_compiler(device)
    check_network(config)
    check_loggers(config)
    with_source(config.anchored())
