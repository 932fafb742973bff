"""Blocks that end a network: from channels to features to classes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from era_cnn.config.choices import block
from era_cnn.config.network import ActivationChoice, Bias, Dropout
from era_cnn.config.sections import FieldError, Own
from era_cnn.models.blocks.fields import Features
from era_cnn.models.blocks.parts import Parts, make_activation, make_dropout

Projection = Annotated[Literal["none", "conv", "linear"], Field(description="the layer after the pooling")]


@block("flatten")
class Flatten(nn.Flatten):
    """All values of an image as features in one row; (B, C, H, W) to (B, C·H·W)."""

    def __init__(self) -> None:
        super().__init__()


@block("linear")
class Linear(Parts):
    """A fully connected layer, and optionally activation and dropout; (B, F) to (B, out_features).

    Bias, activation and dropout are the layer's own: those of the model do not apply.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        *,
        out_features: Features,
        bias: Annotated[Bias, Own()] = True,
        activation: Annotated[ActivationChoice, Own()] = "none",
        dropout: Annotated[Dropout, Own()] = 0.0,
    ) -> None:
        if len(in_shape) != 1:
            got = " × ".join(map(str, in_shape))
            raise FieldError(
                "block", "get a flattened input for linear", got, "Add a layer {block: flatten} before it."
            )
        super().__init__(
            linear=nn.Linear(in_shape[0], out_features, bias=bias),
            activation=make_activation(activation, out_features),
            dropout=make_dropout(dropout),
        )


@block("gap_head")
class GapHead(Parts):
    """Global average pooling, (B, C, H, W) to (B, C, 1, 1), and optionally a layer from C to K after it.

    Without a projection, C must be K (Lin et al. 2013, arXiv 1312.4400). `projection: conv` is a 1×1 convolution,
    `linear` a linear layer on the flattened means: (B, K).
    """

    def __init__(
        self,
        in_channels: int,
        in_size: tuple[int, int],
        num_classes: int,
        *,
        projection: Projection = "none",
        bias: Bias = False,
    ) -> None:
        if projection == "none" and in_channels != num_classes:
            rule = f"be conv or linear if there are {in_channels} input channels for {num_classes} classes"
            raise FieldError("projection", rule, projection, "Set projection: conv.")
        super().__init__(pool=nn.AvgPool2d(in_size if in_size[0] != in_size[1] else in_size[0]))
        if projection == "conv":
            self.add_module("conv", nn.Conv2d(in_channels, num_classes, kernel_size=1, bias=bias))
        elif projection == "linear":
            self.add_module("flatten", nn.Flatten())
            self.add_module("linear", nn.Linear(in_channels, num_classes, bias=bias))
