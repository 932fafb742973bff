"""The part of the schema that describes a network: its layers, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from era_cnn.config.sections import Name, NoEffect, Section

Norm = Literal["batch", "ghost_batch", "group", "layer", "none"]
Activation = Literal[
    "relu",
    "leaky_relu",
    "prelu",
    "gelu",
    "silu",
    "hardswish",
    "elu",
    "selu",
    "relu6",
    "mish",
    "tanh",
    "sigmoid",
    "none",
]
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
    Literal[
        "default",
        "kaiming_normal",
        "kaiming_uniform",
        "kaiming_normal_fan_out",
        "kaiming_uniform_fan_out",
        "xavier_normal",
        "xavier_uniform",
        "orthogonal",
    ],
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
