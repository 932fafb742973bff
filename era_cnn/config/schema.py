"""The schema: every key of a run, typed.

Each field's description is a noun phrase, since a message about the field ends in "Give <description>." This module
does not import torch, so that a wrong config is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from era_cnn.config.choices import DATASETS, SCHEDULERS, DataSection
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import Choice, Count, FieldError, Name, NoEffect, Section
from era_cnn.errors import ConfigError, DataError, EraCnnError, problem

if TYPE_CHECKING:
    from era_cnn.data.arrays import Arrays
    from era_cnn.data.sets import Dataset

Limit = Count | None

Norm = Literal["batch", "group", "layer", "none"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "hardswish", "none"]
ConvPart = Literal["conv", "norm", "activation", "dropout"]
Dropout = Annotated[
    float,
    Field(ge=0, lt=1, description="the probability that an activation is zeroed in training, in [0, 1)"),
]
NormChoice = Annotated[Norm, Field(description="the kind of normalisation")]
ActivationChoice = Annotated[Activation, Field(description="the activation function")]
Bias = Annotated[bool, Field(description="true or false: whether convolutions have a bias")]
Order = Annotated[
    list[ConvPart],
    Field(
        min_length=4,
        max_length=4,
        description="the four parts of a block in their order, as [conv,activation,norm,dropout]",
    ),
]

DEFAULT_ORDER: list[ConvPart] = ["conv", "activation", "norm", "dropout"]
"""The order in the reference runs: the norm comes after the activation."""


class ModelConfig(Section):
    """A network as data: its layers in order, and defaults for the fields that a layer does not set."""

    name: Annotated[Name, NoEffect()]
    dropout: Dropout = 0.0
    norm: NormChoice = "batch"
    activation: ActivationChoice = "relu"
    bias: Bias = False
    order: Order = DEFAULT_ORDER
    layers: dict[str, dict[str, Any]] = Field(
        min_length=1, description="layers by name, such as {conv1: {block: conv, out_channels: 8}}"
    )

    def inherited(self) -> dict[str, Any]:
        """The fields that a block takes from the model if its layer does not set them."""
        return self.model_dump(include={"dropout", "norm", "activation", "bias", "order"})


class TrainerConfig(Section):
    """How long a network is trained, and with what batch sizes."""

    name: Annotated[Name, NoEffect()]
    epochs: Count = Field(description="the number of passes over the training set; for a quick check use trainer=smoke")
    batch_size: Count = Field(description="the number of images in one parameter update")
    eval_batch_size: Count = Field(description="the number of images evaluated at a time")
    eval_every_epochs: Count = Field(default=1, description="the number of epochs from one evaluation to the next")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="the probability mass taken from the true class in training, in [0, 1)"
    )
    checkpoint_every_seconds: Annotated[float | None, NoEffect()] = Field(
        default=None,
        gt=0,
        description="the seconds between two checkpoints within an epoch, null for none; each epoch ends with one",
    )
    cuda_graphs: bool = Field(default=False, description="true or false: whether a CUDA device replays a recorded step")
    limit_epochs: Limit = Field(
        default=None, description="the number of epochs after which to stop, null for all of them"
    )
    limit_train_images: Limit = Field(
        default=None, description="the number of training images to use, null for all of them"
    )
    limit_test_images: Limit = Field(default=None, description="the number of test images to use, null for all of them")

    @property
    def epochs_to_run(self) -> int:
        """The number of epochs that are trained: that of the recipe, unless a limit ends it sooner."""
        return min(self.epochs, self.limit_epochs or self.epochs)


class Target(Section):
    """The target of an experiment; `max_params` and `max_epochs` are enforced before training starts."""

    max_params: Count | None = Field(default=None, description="the largest number of parameters, null for any")
    max_epochs: Count | None = Field(default=None, description="the largest number of epochs, null for any")
    test_accuracy: float | None = Field(
        default=None, ge=0, le=1, description="the test accuracy to reach as a fraction, null for none"
    )


class Augmentation(Section):
    """Transforms by name, in the order in which they are applied: a field for each chosen transform."""

    def chosen(self) -> dict[str, Section]:
        """The fields of each transform, by its name, in order."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class RunConfig(Section):
    """The config of one run. A section that names an entry has the fields of that entry."""

    name: Annotated[Name, NoEffect()]
    seed: int = Field(ge=0, lt=2**63, description="a whole number from 0 to 2^63 - 1")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="the device to train on")
    threads: int = Field(ge=1, le=1024, description="the number of processor threads; results depend on it")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="the arithmetic of convolutions: fp32, or bf16 by autocast"
    )
    data: DataSection = Field(description="a group: data=mnist")
    augmentation: Augmentation = Field(default=Augmentation(), description="a group: augmentation=none")
    model: ModelConfig = Field(description="a group: model=model_4")
    optimizer: Choice = Field(description="a group: optimizer=sgd")
    scheduler: Choice = Field(description="a group: scheduler=constant")
    trainer: TrainerConfig = Field(description="a group: trainer=default")
    target: Target = Field(default=Target(), description="a mapping, such as {test_accuracy: 0.99}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the values: the class itself is made for the entries that a config names."""
        from era_cnn.config.parsing import parse

        return parse, (self.model_dump(),)

    @property
    def info(self) -> DataInfo:
        """The description of the data set."""
        return info_of(self.data)

    @property
    def has_val(self) -> bool:
        """Whether there are validation images: split off the training images, or brought along by the data set."""
        return self.data.val_size > 0 or self.info.val_size > 0

    @property
    def num_train_images(self) -> int:
        """Images in an epoch: the training images without validation images, up to the trainer's limit."""
        return num_train_images(self.info, self.data, self.trainer)

    def anchored(self) -> RunConfig:
        """The same config with an absolute `data.root`, so that it works from any directory."""
        root = getattr(self.data, "root", None)
        return self if root is None else self.with_data_root(os.path.abspath(root))

    def with_data_root(self, root: str) -> RunConfig:
        """The same config with the data in another folder.

        Raises:
            ConfigError: If the data set is not read from a folder.
        """
        if "root" not in type(self.data).model_fields:
            rule = f"not be given: {self.data.name} is not read from a folder"
            raise ConfigError([problem("--data-root", rule, root, "Remove it.")])
        return self.model_copy(update={"data": self.data.model_copy(update={"root": root})})


def used_entries(config: RunConfig) -> set[str]:
    """The entries that a config names, by kind and name, such as `block.conv`."""
    chosen = {f"{kind}.{section.name}" for kind, section in _choices_of(config).items()}
    blocks = {f"block.{spec.get('block')}" for spec in config.model.layers.values()}
    return chosen | blocks | {f"transform.{name}" for name in config.augmentation.chosen()}


def _choices_of(config: RunConfig) -> dict[str, Choice]:
    return {"dataset": config.data, "optimizer": config.optimizer, "scheduler": config.scheduler}


def info_of(data: DataSection) -> DataInfo:
    """The description of a section's data set.

    Raises:
        FieldError: If the fields of the section contradict each other.
        ConfigError: If the data set of a plugin describes itself wrongly.
    """
    try:
        info = DATASETS.make(data.name, data).info()
    except (FieldError, EraCnnError):
        raise
    except Exception as error:  # whatever the code of a plugin raises
        got = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise ConfigError([f"dataset.{data.name} must describe itself, got {got}. Fix its info()."]) from error
    if not isinstance(info, DataInfo):
        raise ConfigError([problem(f"dataset.{data.name}", "return a DataInfo from info()", info, "Fix it.")])
    return info


def is_described(data: DataSection) -> bool:
    """Whether a section holds everything that may have to be found in the files of its data set."""
    return None not in (data.mean, data.std) and getattr(data, "contents", data) is not None


def described(data: DataSection) -> DataSection:
    """The section with what is null and lies in the files of its data set: the contents, the mean and the deviation.

    The first time this may take a minute, since the images are read.

    Raises:
        ValidationError: If what is found is out of range.
        FieldError: If the fields of the section contradict each other, or do not fit the files.
        DataError: If the files are missing or damaged.
    """
    if is_described(data):
        return data
    remembered = _remembered.get({})
    key = data.model_dump_json()
    if key not in remembered:
        arrays = read_from(DATASETS.make(data.name, data), data.name)
        found: dict[str, Any] = dict(zip(("mean", "std"), arrays.statistics, strict=True))
        if "contents" in type(data).model_fields:
            found["contents"] = arrays.contents
        remembered[key] = type(data).model_validate({**found, **data.model_dump(exclude_none=True)})
    return remembered[key]


def read_from(entry: Dataset, name: str) -> Arrays:
    """The images and labels of a data set.

    Raises:
        FieldError: If its fields do not fit its files.
        DataError: If the files are missing or damaged.
    """
    try:
        return entry.read()
    except (EraCnnError, FieldError):
        raise
    except (OSError, ValueError) as error:  # of a plugin
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"The data set {name} must be readable, got {reason}. Check its files.") from error


_remembered: ContextVar[dict[str, DataSection]] = ContextVar("remembered")


@contextmanager
def describing_once() -> Iterator[None]:
    """Within the context, equal sections are described once: the jobs of a sweep share their data."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


def num_train_images(info: DataInfo, data: DataSection, trainer: TrainerConfig) -> int:
    """Images in an epoch: the training images without validation images, up to the trainer's limit."""
    available = info.train_size - data.val_size
    return min(available, trainer.limit_train_images or available)


def make_schedule(scheduler: Choice, *, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The schedule of a section: maps the step, counted over the whole training, to the learning rate's factor.

    Raises:
        FieldError: If its fields do not fit the training.
    """
    schedule: Callable[[int], float] = SCHEDULERS.make(
        scheduler.name, scheduler, epochs=epochs, steps_per_epoch=steps_per_epoch
    )
    return schedule
