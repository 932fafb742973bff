"""The blocks that a network is made of. A new one is a class with a decorator, in a module here or in a plugin.

The network passes a constructor's positional parameters: any of `in_channels`, `in_size` (height, width) and
`num_classes`; a block that also takes flattened input has `in_shape`, (C, H, W) or (F,), instead; one that takes
several inputs has `in_shapes`, which maps the name of each to its shape. The keyword parameters are the block's fields
in YAML: see `config.choices`.

Shapes: B images, C channels, H×W pixels, F features, K classes.
"""

from era_cnn.models.blocks.convolutions import Conv, DepthwiseSeparable, Transition
from era_cnn.models.blocks.heads import Flatten, GapHead, Linear
from era_cnn.models.blocks.merging import Add, Concat
from era_cnn.models.blocks.pooling import AvgPool, BlurPool, MaxPool
from era_cnn.models.blocks.residual import Residual
from era_cnn.models.blocks.single import ActivationBlock, DropoutBlock, NormBlock, Scale, SqueezeExcite

__all__ = [
    "ActivationBlock",
    "Add",
    "AvgPool",
    "BlurPool",
    "Concat",
    "Conv",
    "DepthwiseSeparable",
    "DropoutBlock",
    "Flatten",
    "GapHead",
    "Linear",
    "MaxPool",
    "NormBlock",
    "Residual",
    "Scale",
    "SqueezeExcite",
    "Transition",
]
