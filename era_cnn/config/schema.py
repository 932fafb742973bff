"""The schema: every key of a run, typed.

Each field's description is a noun phrase, since a message about the field ends in "Give <description>." This module
does not import torch, so that a wrong config is reported at once.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field

from era_cnn.config.choices import SCHEDULERS, DataSection, SchedulerSection, TransformSection, entry_of
from era_cnn.config.data_info import DataInfo
from era_cnn.config.description import info_of
from era_cnn.config.network import ModelConfig
from era_cnn.config.schedule import Schedule
from era_cnn.config.sections import Choice, Count, Name, NoEffect, Section
from era_cnn.config.signatures import is_own
from era_cnn.config.trainer import TrainerConfig
from era_cnn.errors import ConfigError, PluginError, problem
from era_cnn.paths import typed_path

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


class Loggers(Section):
    """Loggers by name: a field for each chosen logger."""

    def chosen(self) -> dict[str, Section]:
        """The fields of each logger, by its name."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class RunConfig(Section):
    """The config of one run. A section that names an entry has the fields of that entry."""

    name: Annotated[Name, NoEffect()]
    seed: int = Field(ge=0, lt=2**63, description="the seed of all random numbers, from 0 to 2^63 - 1")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="the device to train on")
    threads: int = Field(ge=1, le=1024, description="the number of processor threads; results depend on it")
    portable: bool = Field(
        default=False, description="true or false: whether other x86-64 processors compute the same bits"
    )
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
    logger: Annotated[Loggers, NoEffect()] = Field(default=Loggers(), description="a group: logger=none")
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

    @property
    def limits(self) -> dict[str, int]:
        """The limits of the trainer that leave something out, by their keys: one as large as the data set does not."""
        trainer = self.trainer
        available = {
            "limit_epochs": trainer.epochs,
            "limit_train_images": self.info.train_size - self.data.val_size,
            "limit_test_images": self.info.test_size,
        }
        given = {key: getattr(trainer, key) for key in available}
        return {key: limit for key, limit in given.items() if limit is not None and limit < available[key]}

    @property
    def steps_per_epoch(self) -> int:
        """Parameter updates in an epoch."""
        return self.trainer.steps_per_epoch(self.num_train_images)

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
    transforms = {f"transform.{entry_of(*each)}" for each in config.augmentation.chosen().items()}
    return chosen | blocks | transforms


def _choices_of(config: RunConfig) -> dict[str, Choice]:
    return {"dataset": config.data, "optimizer": config.optimizer, "scheduler": config.scheduler}


def num_train_images(info: DataInfo, data: DataSection, trainer: TrainerConfig) -> int:
    """Images in an epoch: the training images without validation images, up to the trainer's limit, repeated."""
    available = info.train_size - data.val_size
    return min(available, trainer.limit_train_images or available) * trainer.repeat_train_images


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
        PluginError: By the schedule, where it gives no factor or momentum that could be used.
    """
    by_epoch = scheduler.update == "epoch"
    given = {"epochs": epochs, "steps_per_epoch": 1 if by_epoch else steps_per_epoch, "watch": watch}
    made = SCHEDULERS.make(scheduler.name, scheduler, **given)
    schedule = made if isinstance(made, Schedule) else Schedule(made)
    schedule = schedule.checked(lambda rule, got: PluginError(SCHEDULERS.fault(scheduler.name, rule, got)))
    return schedule.each_epoch(steps_per_epoch) if by_epoch else schedule


MAX_CHECKED_STEPS = 1_000
"""The most steps at which a schedule is checked beforehand."""


def check_schedule(config: RunConfig) -> None:
    """Raises a `ConfigError` if a plugin's schedule gives a factor or momentum that can't be used; not all are tried.

    Those of era_cnn, which the ranges of their fields keep within theirs, cost a large sweep no time. What the code of
    a plugin raises is left to the run, which ends with its traceback.
    """
    if is_own(SCHEDULERS[config.scheduler.name]):
        return
    trainer, num_steps = config.trainer, config.trainer.epochs_to_run * config.steps_per_epoch
    schedule = make_schedule(
        config.scheduler, epochs=trainer.epochs, steps_per_epoch=config.steps_per_epoch, watch=trainer.watch
    )
    try:
        for step in range(0, num_steps, max(1, num_steps // MAX_CHECKED_STEPS)):
            schedule.lr(step)
            if schedule.momentum is not None:
                schedule.momentum(step)
        if schedule.after is not None:
            schedule.after([])  # as before the first epoch
    except PluginError as error:
        raise ConfigError([str(error)]) from error
    except Exception:  # noqa: BLE001 - of the plugin's own: the run comes to it, and records where it was raised
        return


def watchers(schedule: Schedule, trainer: TrainerConfig) -> list[str]:
    """What watches `trainer.watch`, in words."""
    found = {
        "the scheduler": schedule.after is not None,
        "trainer.early_stopping": trainer.early_stopping.patience is not None,
        "trainer.stop_at_target": trainer.stop_at_target,
    }
    return [what for what, watches in found.items() if watches]
