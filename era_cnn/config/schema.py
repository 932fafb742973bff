"""The schema: every rule about every key, and the one place where a composed config becomes typed objects.

Each field's description is a noun phrase; a message about the field ends in "Give <description>." This module
does not import torch, so that a wrong config is answered at once.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from era_cnn.compose.interpolation import limited, refusal_in
from era_cnn.config.messages import field_problems
from era_cnn.errors import ConfigError, problem

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""What a name may be: it becomes part of a folder's name."""


class Section(BaseModel):
    """A part of the config: read-only, nothing unknown, nothing converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def options(self) -> dict[str, Any]:
        """The section as keyword arguments: all its keys but the name."""
        return self.model_dump(exclude={"name"})


Name = Annotated[str, Field(pattern=NAME, max_length=80, description="letters, digits, _, - and . only")]
Count = Annotated[int, Field(ge=1, le=2**31)]
Limit = Count | None


class IdxData(Section):
    """One of the data sets in MNIST's file format: 60,000 + 10,000 grey images of 28×28 pixels in ten classes."""

    name: Literal["mnist", "fashion_mnist", "kmnist"]
    root: str = Field(min_length=1, description="the folder that holds the data sets (ERA_CNN_DATA sets it)")
    mean: float = Field(description="the mean of the training pixels, scaled to [0, 1]")
    std: float = Field(gt=0, description="the standard deviation of the training pixels, scaled to [0, 1]")
    val_size: int = Field(
        ge=0, description="the number of training images that are split off for validation, 0 for none"
    )

    @property
    def train_size(self) -> int:
        """Training images before validation images are split off."""
        return 60_000


class DigitsData(Section):
    """Scikit-learn's 1,797 handwritten digits, embedded: grey, scaled to 28×28 pixels, ten classes."""

    name: Literal["digits"]
    train_size: int = Field(
        ge=100,
        le=1_697,
        description="the index of the first test image, 100 to 1,697: all before it are training images",
    )
    mean: float = Field(description="the mean of the training pixels, scaled to [0, 1]")
    std: float = Field(gt=0, description="the standard deviation of the training pixels, scaled to [0, 1]")
    val_size: int = Field(
        ge=0, description="the number of training images that are split off for validation, 0 for none"
    )


IMAGE_SHAPE = (1, 28, 28)
"""Channels, height and width of every image of every data set here."""

NUM_CLASSES = 10
"""Classes of every data set here."""


class NoAugmentation(Section):
    """The images as they are."""

    name: Literal["none"]


Fill = Annotated[int, Field(ge=0, le=255, description="the grey value of the pixels that come from outside, 0 to 255")]
Degrees = Annotated[float, Field(ge=0, le=180, description="the largest rotation to either side in degrees, 0 to 180")]


class Rotate(Section):
    """A rotation about the centre, by an angle drawn uniformly for each image."""

    name: Literal["rotate"]
    degrees: Degrees
    fill: Fill


class Affine(Section):
    """Rotation, translation, scaling and shear, each drawn uniformly for each image."""

    name: Literal["affine"]
    degrees: Degrees
    translate: float = Field(
        ge=0, le=1, description="the largest shift along each axis, as a fraction of the size, 0 to 1"
    )
    scale: list[Annotated[float, Field(gt=0, le=10)]] = Field(
        min_length=2, max_length=2, description="the smallest and the largest scale, as [0.9, 1.1]"
    )
    shear: float = Field(ge=0, lt=90, description="the largest horizontal shear to either side in degrees, below 90")
    fill: Fill


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
"""The reference runs' own: the norm sees what the activation lets through."""


class ModelConfig(Section):
    """A network as data: layers in order, and what they take where they state nothing else."""

    name: Name
    dropout: Dropout = 0.0
    norm: NormChoice = "batch"
    activation: ActivationChoice = "relu"
    bias: Bias = False
    order: Order = DEFAULT_ORDER
    layers: dict[str, dict[str, Any]] = Field(
        min_length=1, description="layers by name, such as {conv1: {block: conv, out_channels: 8}}"
    )

    def inherited(self) -> dict[str, Any]:
        """What a block takes from the model if its own layer does not set it."""
        return self.model_dump(include={"dropout", "norm", "activation", "bias", "order"})


LearningRate = Annotated[float, Field(gt=0, le=1e6, description="the learning rate, greater than 0")]
WeightDecay = Annotated[float, Field(ge=0, le=1e6, description="the weight decay, 0 for none")]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[
    list[Beta],
    Field(min_length=2, max_length=2, description="the decay rates of both moments, as [0.9, 0.999]"),
]
Eps = Annotated[float, Field(gt=0, le=1, description="the term added to the denominator, as 1e-8")]


class Sgd(Section):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    lr: LearningRate
    momentum: float = Field(ge=0, lt=1, description="the momentum, in [0, 1)")
    weight_decay: WeightDecay
    nesterov: bool = Field(description="true or false: whether the momentum is Nesterov's")


class Adam(Section):
    """Adam (Kingma and Ba 2014, arXiv 1412.6980)."""

    name: Literal["adam"]
    lr: LearningRate
    betas: Betas
    eps: Eps
    weight_decay: WeightDecay


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101)."""

    name: Literal["adamw"]
    lr: LearningRate
    betas: Betas
    eps: Eps
    weight_decay: WeightDecay


Epochs = Annotated[float, Field(gt=0, le=1e6, description="a duration in epochs, greater than 0")]
WarmupEpochs = Annotated[
    float, Field(ge=0, le=1e6, description="the duration of the linear warm-up in epochs, 0 for none")
]


class Constant(Section):
    """The optimizer's learning rate throughout."""

    name: Literal["constant"]


class StepDecay(Section):
    """The learning rate times `gamma` after every `every_epochs`."""

    name: Literal["step"]
    every_epochs: Epochs
    gamma: float = Field(gt=0, le=1, description="the factor, in (0, 1]")


class OneCycle(Section):
    """Up to the optimizer's learning rate and down again, both along a cosine (Smith and Topin 2017)."""

    name: Literal["one_cycle"]
    warmup_epochs: Epochs
    div_factor: float = Field(ge=1, le=1e9, description="the peak divided by the first learning rate, at least 1")
    final_div_factor: float = Field(
        ge=1, le=1e9, description="the first learning rate divided by the last one, at least 1"
    )


class Cosine(Section):
    """A linear warm-up, then down along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""

    name: Literal["cosine"]
    warmup_epochs: WarmupEpochs
    final_factor: float = Field(
        ge=0, le=1, description="the last learning rate as a fraction of the optimizer's, 0 to 1"
    )


class TrainerConfig(Section):
    """How long and in what portions a network is trained."""

    name: Name
    epochs: Count = Field(description="the number of passes over the training set; for a quick check use trainer=smoke")
    batch_size: Count = Field(description="the number of images in one parameter update")
    eval_batch_size: Count = Field(description="the number of images evaluated at a time")
    eval_every_epochs: Count = Field(description="the number of epochs from one evaluation to the next")
    label_smoothing: float = Field(
        ge=0, lt=1, description="the probability mass taken from the true class in training, in [0, 1)"
    )
    checkpoint_every_seconds: float | None = Field(
        gt=0, description="the seconds between two checkpoints within an epoch, null for none; each epoch ends with one"
    )
    cuda_graphs: bool = Field(description="true or false: whether a CUDA device replays a recorded step")
    limit_epochs: Limit = Field(description="the number of epochs after which to stop, null for all of them")
    limit_train_images: Limit = Field(description="the number of training images to use, null for all of them")
    limit_test_images: Limit = Field(description="the number of test images to use, null for all of them")

    @property
    def epochs_to_run(self) -> int:
        """The epochs that are trained: those of the recipe, unless a limit ends it sooner."""
        return min(self.epochs, self.limit_epochs or self.epochs)


class Target(Section):
    """What an experiment sets out to reach; the first two are enforced before training starts."""

    max_params: Count | None = Field(default=None, description="the largest number of parameters, null for any")
    max_epochs: Count | None = Field(default=None, description="the largest number of epochs, null for any")
    test_accuracy: float | None = Field(
        default=None, ge=0, le=1, description="the test accuracy to reach as a fraction, null for none"
    )


class RunConfig(Section):
    """One run, whole."""

    name: Name
    seed: int = Field(ge=0, lt=2**63, description="a whole number from 0 to 2^63 - 1")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="the device to train on")
    threads: int = Field(ge=1, le=1024, description="the number of processor threads; results are bound to it")
    precision: Literal["fp32", "bf16"] = Field(description="the arithmetic of convolutions: fp32, or bf16 by autocast")
    data: IdxData | DigitsData = Field(discriminator="name", description="a group: data=mnist")
    augmentation: NoAugmentation | Rotate | Affine = Field(
        discriminator="name", description="a group: augmentation=none"
    )
    model: ModelConfig = Field(description="a group: model=model_4")
    optimizer: Sgd | Adam | AdamW = Field(discriminator="name", description="a group: optimizer=sgd")
    scheduler: Constant | StepDecay | OneCycle | Cosine = Field(
        discriminator="name", description="a group: scheduler=constant"
    )
    trainer: TrainerConfig = Field(description="a group: trainer=default")
    target: Target = Field(default=Target(), description="a mapping, such as {test_accuracy: 0.99}")

    @property
    def num_train_images(self) -> int:
        """Images in an epoch: those of the data set, without validation images, up to the trainer's limit."""
        available = self.data.train_size - self.data.val_size
        return min(available, self.trainer.limit_train_images or available)

    def anchored(self) -> RunConfig:
        """The same with the folder of the data from its root on: else it could only be found from here."""
        if isinstance(self.data, DigitsData):
            return self
        root = os.path.abspath(self.data.root)
        return self.model_copy(update={"data": self.data.model_copy(update={"root": root})})

    def digest(self) -> str:
        """SHA-256 over all that can change the result."""
        return digest_of(self.model_dump())


def digest_of(values: dict[str, Any]) -> str:
    """SHA-256 over a config as plain values, without what changes no result: names, and how files are kept."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items() if key != "name"}
    for section, key in (
        ("data", "root"),
        ("model", "name"),
        ("trainer", "name"),
        ("trainer", "checkpoint_every_seconds"),
    ):
        kept[section].pop(key, None)
    text = json.dumps(kept, separators=(",", ":"))  # in order: that of the layers is the network's
    return hashlib.sha256(text.encode()).hexdigest()


def parse(composed: DictConfig) -> RunConfig:
    """Turns a composed config into typed objects.

    Raises:
        ConfigError: With every problem that the config has.
    """
    try:
        with limited():
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:  # the latter for values that name each other in a circle
        if refused := refusal_in(error):
            raise refused from error
        first_line = str(error).splitlines()[0]
        key = getattr(error, "full_key", None) or "the config"
        raise ConfigError([problem(key, "have a value", first_line, f"Give one: {key}=…")]) from error
    problems: list[str] = []
    if isinstance(values, dict):
        values.pop("sweep", None)  # of what is beside this run
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems = field_problems(error, RunConfig)
    problems += _problems_between_keys(values)
    if problems:
        raise ConfigError(problems)
    return config


def _problems_between_keys(values: Any) -> Iterator[str]:
    """What each rule over several sections finds, as long as those sections are right by themselves."""
    sections: dict[str, Any] = {}
    for name in RunConfig.model_fields:
        if isinstance(values, dict) and name in values:
            try:
                sections[name] = _schema(name).validate_python(values[name])
            except ValidationError:
                continue  # said already
    for rule in RULES:
        needed = inspect.signature(rule).parameters
        if needed.keys() <= sections.keys():
            yield from rule(**{name: sections[name] for name in needed})


@functools.cache
def _schema(name: str) -> TypeAdapter[Any]:
    field = RunConfig.model_fields[name]
    return TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]


def _epochs_within_target(name: str, trainer: TrainerConfig, target: Target) -> Iterator[str]:
    if target.max_epochs is not None and trainer.epochs > target.max_epochs:
        rule = f"be at most {target.max_epochs}, the target of experiment {name}"
        yield problem("trainer.epochs", rule, trainer.epochs, "Lower it, or raise target.max_epochs.")


def _nesterov_needs_momentum(optimizer: Sgd | Adam | AdamW) -> Iterator[str]:
    if isinstance(optimizer, Sgd) and optimizer.nesterov and optimizer.momentum == 0:
        advice = "Set optimizer.momentum=0.9, for example."
        yield problem("optimizer.nesterov", "be false without momentum", True, advice)


def _warmup_ends(scheduler: Constant | StepDecay | OneCycle | Cosine, trainer: TrainerConfig) -> Iterator[str]:
    if isinstance(scheduler, OneCycle | Cosine) and scheduler.warmup_epochs >= trainer.epochs:
        rule = f"be shorter than trainer.epochs, {trainer.epochs}"
        yield problem("scheduler.warmup_epochs", rule, scheduler.warmup_epochs, "Lower it.")


def _scale_is_a_range(augmentation: NoAugmentation | Rotate | Affine) -> Iterator[str]:
    if isinstance(augmentation, Affine) and augmentation.scale[0] > augmentation.scale[1]:
        yield problem("augmentation.scale", "hold the smaller value first", augmentation.scale, "Swap the two.")


def _both_sides_of_the_split_have_every_class(data: IdxData | DigitsData) -> Iterator[str]:
    largest = data.train_size - NUM_CLASSES
    if data.val_size and not NUM_CLASSES <= data.val_size <= largest:
        rule = f"be 0, or from {NUM_CLASSES} to {largest:,}: at least one image of each class on both sides"
        advice = "Give the number of training images to validate on, 5000 for example."
        yield problem("data.val_size", rule, data.val_size, advice)


def _every_part_once(model: ModelConfig) -> Iterator[str]:
    if len(set(model.order)) < len(model.order):
        yield problem("model.order", "name every part once", model.order, "Write each part once.")


def _graphs_need_cuda(device: str, trainer: TrainerConfig) -> Iterator[str]:
    if trainer.cuda_graphs and device != "cuda":
        yield problem("trainer.cuda_graphs", "be false unless device is cuda", True, "Set device=cuda.")


RULES: tuple[Callable[..., Iterator[str]], ...] = (
    _epochs_within_target,
    _nesterov_needs_momentum,
    _warmup_ends,
    _scale_is_a_range,
    _both_sides_of_the_split_have_every_class,
    _every_part_once,
    _graphs_need_cuda,
)
"""Rules over several keys; the parameters of each are the sections that it needs."""
