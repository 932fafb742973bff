"""The schema: every key of a run, typed.

Each field's description is a noun phrase, since a message about the field ends in "Give <description>." This module
does not import torch, so that a wrong config is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from era_cnn.config.choices import DATASETS, SCHEDULERS, DataSection, SchedulerSection, TransformSection
from era_cnn.config.data_info import DataInfo
from era_cnn.config.schedule import Schedule
from era_cnn.config.sections import Choice, Count, FieldError, Name, NoEffect, Section
from era_cnn.errors import ConfigError, DataError, EraCnnError, problem
from era_cnn.paths import typed_path

if TYPE_CHECKING:
    from era_cnn.data.arrays import Arrays
    from era_cnn.data.sets import Dataset

Limit = Count | None

Norm = Literal["batch", "ghost_batch", "group", "layer", "none"]
Activation = Literal["relu", "leaky_relu", "prelu", "gelu", "silu", "hardswish", "none"]
ConvPart = Literal["conv", "norm", "activation", "dropout", "pool"]
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
        max_length=5,
        description="the four parts of a block in their order, as [conv,activation,norm,dropout]; pool may be a fifth",
    ),
]
Init = Annotated[
    Literal["default", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal"],
    Field(description="the distribution of the initial weights"),
]
NormGroups = Annotated[int, Field(ge=1, le=65_536, description="the number of groups of channels of group norm")]

DEFAULT_ORDER: list[ConvPart] = ["conv", "activation", "norm", "dropout"]
"""The order in the reference runs: the norm comes after the activation."""


def is_order(order: Sequence[ConvPart]) -> bool:
    """Whether an order names each of the four parts once, and the pooling at most once."""
    return sorted({*order, "pool"}) == sorted([*DEFAULT_ORDER, "pool"]) and len(set(order)) == len(order)


class ModelConfig(Section):
    """A network as data: its layers in order, and defaults for the fields that a layer does not set.

    The fields after `order` change what PyTorch does by default, in each layer that has the part in question.
    """

    name: Annotated[Name, NoEffect()]
    dropout: Dropout = 0.0
    norm: NormChoice = "batch"
    activation: ActivationChoice = "relu"
    bias: Bias = False
    order: Order = DEFAULT_ORDER
    norm_groups: NormGroups = 4
    ghost_splits: int = Field(
        default=2, ge=1, le=65_536, description="the number of parts of a batch that ghost batch norm normalises alone"
    )
    norm_momentum: float = Field(
        default=0.1, gt=0, le=1, description="the weight of the newest batch in batch norm's running moments, in (0, 1]"
    )
    norm_eps: float = Field(default=1e-5, gt=0, le=1, description="the number that norms add to the variance")
    negative_slope: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="the slope of leaky ReLU for negative values, or PReLU's initial one; null for PyTorch's",
    )
    dropout_channels: bool = Field(
        default=False, description="true or false: whether dropout zeroes whole channels instead of single activations"
    )
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = Field(
        default="zeros", description="what convolutions see beyond the border"
    )
    init: Init = "default"
    layers: dict[str, dict[str, Any]] = Field(
        min_length=1, description="layers by name, such as {conv1: {block: conv, out_channels: 8}}"
    )

    def inherited(self) -> dict[str, Any]:
        """The fields that a layer takes from the model if it does not set them."""
        always = {"dropout", "norm", "activation", "bias", "order"}
        if_set = set(type(self).model_fields) - {*always, "name", "layers"}
        return {**self.model_dump(include=always), **self.model_dump(include=if_set, exclude_defaults=True)}


ClassWeights = Annotated[
    Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Tag("[list]")]
    | Annotated[Literal["balanced"], Tag("[name]")],
    Discriminator(lambda value: "[name]" if isinstance(value, str) else "[list]"),
]
Watch = Literal["val_loss", "val_accuracy", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]


class EarlyStopping(Section):
    """When a training ends before its last epoch, since `trainer.watch` has not become better."""

    patience: Count | None = Field(
        default=None, description="the evaluations in a row without a better value after which to stop, null to go on"
    )
    min_delta: float = Field(
        default=0.0, ge=0, le=1e6, description="by how much a value must be better than the best one to count"
    )
    min_epochs: Count = Field(default=1, description="the epochs that are trained in any case")


class TrainerConfig(Section):
    """How long a network is trained, with what batch sizes, and what happens to loss, gradients and weights."""

    name: Annotated[Name, NoEffect()]
    epochs: Count = Field(description="the number of passes over the training set; for a quick check use trainer=smoke")
    batch_size: Count = Field(description="the number of images in one parameter update")
    eval_batch_size: Count = Field(description="the number of images evaluated at a time")
    eval_every_epochs: Count = Field(default=1, description="the number of epochs from one evaluation to the next")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="the probability mass taken from the true class in training, in [0, 1)"
    )
    class_weights: ClassWeights | None = Field(
        default=None,
        description="a weight in the training loss for each class, as [1, 2.5], balanced for those that even out the "
        "numbers of images, or null",
    )
    l1: float = Field(default=0.0, ge=0, le=1e6, description="the factor of the L1 penalty on the weights, 0 for none")
    clip_grad_value: float | None = Field(
        default=None, gt=0, le=1e9, description="the largest magnitude of each gradient, null for any"
    )
    clip_grad_norm: float | None = Field(
        default=None, gt=0, le=1e9, description="the largest norm of all gradients together, null for any"
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="the decay of the moving average of the weights, null for no average"
    )
    watch: Watch = Field(
        default="val_loss",
        description="what scheduler=plateau, trainer.early_stopping and trainer.stop_at_target watch",
    )
    early_stopping: EarlyStopping = Field(
        default=EarlyStopping(), description="a mapping, such as {patience: 5}; see trainer.watch"
    )
    stop_at_target: bool = Field(
        default=False,
        description="true or false: whether to stop at target.test_accuracy on the split of trainer.watch",
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


Requirement = Literal["norm", "dropout", "gap", "depthwise", "dilation", "no_max_pool", "no_linear"]


class Target(Section):
    """The target of an experiment; all but `test_accuracy` is enforced before training starts."""

    max_params: Count | None = Field(default=None, description="the largest number of parameters, null for any")
    max_epochs: Count | None = Field(default=None, description="the largest number of epochs, null for any")
    min_receptive_field: Count | None = Field(
        default=None, description="the smallest receptive field in pixels, null for any"
    )
    requires: list[Requirement] = Field(
        default=[], max_length=16, description="what the network must have, such as [norm,dropout,gap]"
    )
    test_accuracy: float | None = Field(
        default=None, ge=0, le=1, description="the test accuracy to reach as a fraction, null for none"
    )


class Augmentation(Section):
    """Transforms by name, in the order in which they are applied: a field for each chosen transform."""

    def chosen(self) -> dict[str, TransformSection]:
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
    scheduler: SchedulerSection = Field(description="a group: scheduler=constant")
    trainer: TrainerConfig = Field(description="a group: trainer=default")
    target: Target = Field(default=Target(), description="a mapping, such as {test_accuracy: 0.99}")
    report: Annotated[bool, NoEffect()] = Field(
        default=True, description="true or false: whether report.html, report.md and plots/ are written at the end"
    )
    init_from: Annotated[str | None, NoEffect()] = Field(
        default=None, min_length=1, description="the folder of a run whose weights to begin with, null for random ones"
    )
    init_from_checkpoint: Annotated[Literal["last", "best"], NoEffect()] = Field(
        default="last", description="the weights of that run to begin with"
    )
    init_from_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="the SHA-256 of those weights, which the run records"
    )

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
        """The same config with an absolute `data.root` and `init_from`, so that it works from any directory."""
        root = getattr(self.data, "root", None)
        config = self if root is None else self.with_data_root(os.path.abspath(root))
        if self.init_from is None:
            return config
        return config.model_copy(update={"init_from": os.path.abspath(typed_path("init_from", self.init_from))})

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


def make_schedule(
    scheduler: SchedulerSection, *, epochs: int, steps_per_epoch: int, watch: str = "val_loss"
) -> Schedule:
    """The schedule of a section.

    Args:
        scheduler: The section.
        epochs: The epochs of the training.
        steps_per_epoch: The updates in an epoch.
        watch: The name of the value that a schedule may watch.

    Raises:
        FieldError: If its fields do not fit the training.
    """
    by_epoch = scheduler.update == "epoch"
    given = {"epochs": epochs, "steps_per_epoch": 1 if by_epoch else steps_per_epoch, "watch": watch}
    made = SCHEDULERS.make(scheduler.name, scheduler, **given)
    schedule = made if isinstance(made, Schedule) else Schedule(made)
    return schedule.each_epoch(steps_per_epoch) if by_epoch else schedule


def watchers(schedule: Schedule, trainer: TrainerConfig) -> list[str]:
    """What watches `trainer.watch`, in words."""
    found = {
        "the scheduler": schedule.after is not None,
        "trainer.early_stopping": trainer.early_stopping.patience is not None,
        "trainer.stop_at_target": trainer.stop_at_target,
    }
    return [what for what, watches in found.items() if watches]
