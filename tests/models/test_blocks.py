from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from era_cnn.config.choices import BLOCKS
from era_cnn.errors import ConfigError
from era_cnn.models.blocks import BlurPool, Conv, reflect
from era_cnn.models.build import Network, build_network
from tests.helpers import GREY

INHERITED = {
    "dropout": 0.1,
    "norm": "batch",
    "activation": "relu",
    "bias": False,
    "order": ["conv", "activation", "norm", "dropout"],
}

# One or more valid layers for each block, on an input of 10 channels and 8×8 pixels, and the shape that comes out.
EXAMPLES: dict[str, list[tuple[dict[str, object], tuple[int, ...]]]] = {
    "conv": [
        ({"out_channels": 12}, (12, 6, 6)),
        ({"out_channels": 12, "kernel_size": 5, "stride": 2, "padding": 1, "dilation": 1}, (12, 3, 3)),
        ({"out_channels": 20, "groups": 5, "bias": True, "activation": "gelu"}, (20, 6, 6)),
        ({"out_channels": 12, "norm": "group", "norm_groups": 3, "activation": "silu"}, (12, 6, 6)),
        ({"out_channels": 12, "norm": "layer", "activation": "hardswish"}, (12, 6, 6)),
        ({"out_channels": 12, "norm": "none", "activation": "leaky_relu", "dropout": 0.0}, (12, 6, 6)),
        ({"out_channels": 12, "order": ["norm", "activation", "conv", "dropout"]}, (12, 6, 6)),
        ({"out_channels": 12, "bare": True}, (12, 6, 6)),
    ],
    "transition": [
        ({"out_channels": 4}, (4, 4, 4)),
        ({"out_channels": 4, "pool": "avg", "pool_size": 3}, (4, 2, 2)),
        ({"out_channels": 4, "pool": "none", "bare": True}, (4, 8, 8)),
    ],
    "depthwise_separable": [
        ({"out_channels": 12}, (12, 6, 6)),
        ({"out_channels": 12, "stride": 2, "padding": 1}, (12, 4, 4)),
    ],
    "residual": [
        ({"out_channels": 10}, (10, 8, 8)),
        ({"out_channels": 12, "shortcut": "conv", "stride": 2}, (12, 4, 4)),
    ],
    "max_pool": [({}, (10, 4, 4)), ({"kernel_size": 3, "stride": 2, "padding": 1}, (10, 4, 4))],
    "avg_pool": [({}, (10, 4, 4)), ({"kernel_size": 3, "stride": 1}, (10, 6, 6))],
    "blur_pool": [({}, (10, 4, 4)), ({"kernel_size": 4, "stride": 2}, (10, 4, 4)), ({"kernel_size": 5}, (10, 4, 4))],
    "gap_head": [({}, (10, 1, 1)), ({"projection": "conv"}, (10, 1, 1)), ({"projection": "linear"}, (10,))],
}


def test_every_registered_block_has_an_example() -> None:
    assert set(EXAMPLES) == set(BLOCKS)


def build_one(block: str, fields: dict[str, object]) -> Network:
    """A network of one stem, the block, and whatever ends in ten classes."""
    layers = {
        "stem": {"block": "conv", "out_channels": 10, "norm": "none", "dropout": 0.0},
        "middle": {"block": block, **fields},
        "end": {"block": "gap_head", "projection": "conv"},
    }
    if block == "gap_head":
        del layers["end"]
    return build_network(layers, INHERITED, seed=1, info=replace(GREY, shape=(1, 10, 10)))


@pytest.mark.parametrize(
    ("block", "fields", "shape"),
    [(block, fields, shape) for block, examples in EXAMPLES.items() for fields, shape in examples],
)
def test_every_block_forward_and_backward(block: str, fields: dict[str, object], shape: tuple[int, ...]) -> None:
    network = build_one(block, fields)
    images = torch.randn(3, 1, 10, 10)
    middle = network[:2]
    assert torch.nn.Sequential(*middle)(images).shape == (3, *shape)
    network(images).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_the_order_of_the_parts_is_that_of_the_field() -> None:
    conv = Conv(4, out_channels=6, dropout=0.5, order=["norm", "activation", "conv", "dropout"])
    assert [name for name, _ in conv.named_children()] == ["norm", "activation", "conv", "dropout"]
    assert conv.norm.num_features == 4  # what comes in: it stands before the convolution


def test_blur_pool_keeps_a_constant_image_and_has_no_parameters() -> None:
    for kernel_size in (3, 4, 5):
        blur = BlurPool(2, (8, 8), kernel_size=kernel_size)
        assert torch.allclose(blur(torch.full((1, 2, 8, 8), 3.0)), torch.full((1, 2, 4, 4), 3.0))
        assert list(blur.parameters()) == []


def test_reflecting_a_border_is_pytorchs_own_reflection() -> None:
    images = torch.randn(2, 3, 6, 7)
    ours = reflect(reflect(images, 1, 2, dim=2), 3, 2, dim=3)
    assert torch.equal(ours, F.pad(images, (3, 2, 1, 2), mode="reflect"))


def test_a_residual_adds_its_input() -> None:
    network = build_one("residual", {"out_channels": 10, "dropout": 0.0, "activation": "none"})
    block = network.get_submodule("middle").eval()
    for parameter in block.body.parameters():
        torch.nn.init.zeros_(parameter)
    images = torch.randn(2, 10, 8, 8)
    assert torch.equal(block(images), images)


@pytest.mark.parametrize(
    ("block", "fields", "message"),
    [
        ("conv", {}, "model.layers.middle.out_channels must be given, got nothing. Give the number of channels"),
        ("conv", {"out_channels": 0}, "model.layers.middle.out_channels must be at least 1, got 0. Give the number"),
        ("conv", {"out_channels": 1.5}, "model.layers.middle.out_channels must be a whole number, got 1.5."),
        ("conv", {"out_chanels": 8}, "model.layers.middle.out_channels must be given"),
        ("conv", {"out_channels": 8, "kernel": 3}, "middle.kernel must be a key of model.layers.middle (out_channels, ke"),
        ("conv", {"out_channels": 8, "kernel": 3}, "got 3. Did you mean kernel_size?"),
        ("conv", {"out_channels": 8, "norm": "bach"}, "model.layers.middle.norm must be one of batch, group, layer, none, g"),
        ("conv", {"out_channels": 8, "dropout": 1.0}, "model.layers.middle.dropout must be less than 1, got 1.0."),
        ("conv", {"out_channels": 8, "groups": 4}, "model.layers.middle.groups must divide both the 10 input channels"),
        ("conv", {"out_channels": 10, "norm": "group"}, "model.layers.middle.norm_groups must divide the 10 channels, got 4."),
        ("conv", {"out_channels": 8, "norm_groups": 2}, "model.layers.middle.norm_groups must not be set unless norm is"),
        ("conv", {"out_channels": 8, "bare": True, "dropout": 0.1}, "dropout must not be set where bare is true, got 0.1"),
        ("conv", {"out_channels": 8, "order": ["conv"] * 4}, "model.layers.middle.order must name every part once"),
        ("conv", {"out_channels": 8, "kernel_size": 9}, "model.layers.middle.kernel_size must be at most 8: its input is 8"),
        ("conv", {"out_channels": 8, "dilation": 5}, "model.layers.middle.kernel_size must be at most 2: its input is 8 px"),
        ("transition", {"out_channels": 8, "pool_size": 9}, "model.layers.middle.pool_size must be at most 8: its input"),
        ("max_pool", {"kernel_size": 9}, "model.layers.middle.kernel_size must be at most 8: its input is 8 px high or wi"),
        ("max_pool", {"padding": 2}, "model.layers.middle.padding must be at most half of kernel_size, 1, got 2."),
        ("blur_pool", {"kernel_size": 8}, "model.layers.middle.kernel_size must be at most 7, got 8. Give the taps"),
        ("residual", {"out_channels": 12}, "middle.out_channels must equal the 10 input channels if shortcut is"),
        ("residual", {"out_channels": 10, "stride": 2}, "model.layers.middle.stride must be 1 if shortcut is identity"),
        ("gap_head", {"projection": "dense"}, "model.layers.middle.projection must be one of none, conv, linear, got"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_by_its_command_line_key(block: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_one(block, fields)
    assert message in str(caught.value)


def test_every_field_has_a_description_for_its_message() -> None:
    for block in BLOCKS:
        for name, field in BLOCKS.section(block).model_fields.items():
            assert field.description or name in ("stride", "pool"), f"{block}.{name}"
