from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from era_cnn.config.choices import BLOCKS
from era_cnn.config.network import Activation
from era_cnn.errors import ConfigError
from era_cnn.models.blocks import BlurPool, Conv
from era_cnn.models.blocks.parts import make_activation
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
        ({"out_channels": "classes", "kernel_size": 5, "padding": "same", "dilation": 2}, (10, 8, 8)),
        ({"out_channels": 12, "padding": 1, "padding_mode": "reflect", "pool": "max"}, (12, 4, 4)),
        ({"out_channels": 12, "pool": "avg", "order": ["conv", "pool", "norm", "activation", "dropout"]}, (12, 3, 3)),
        ({"out_channels": 12, "norm": "ghost_batch", "ghost_splits": 3, "activation": "prelu"}, (12, 6, 6)),
        ({"out_channels": 12, "dropout": 0.2, "dropout_channels": True, "init": "orthogonal"}, (12, 6, 6)),
    ],
    "transition": [
        ({"out_channels": 4}, (4, 4, 4)),
        ({"out_channels": 4, "pool": "avg", "pool_size": 3}, (4, 2, 2)),
        ({"out_channels": 4, "pool": "none", "bare": True}, (4, 8, 8)),
        (
            {"out_channels": 4, "norm": "batch", "dropout": 0.1, "order": ["norm", "activation", "conv", "dropout"]},
            (4, 4, 4),
        ),
    ],
    "depthwise_separable": [
        ({"out_channels": 12}, (12, 6, 6)),
        ({"out_channels": 12, "stride": 2, "padding": 1}, (12, 4, 4)),
        ({"out_channels": 12, "dilation": 2, "padding": "same"}, (12, 8, 8)),
    ],
    "residual": [
        ({"out_channels": 10}, (10, 8, 8)),
        ({"out_channels": 12, "shortcut": "conv", "stride": 2}, (12, 4, 4)),
        ({"out_channels": 12, "shortcut": "conv", "stride": 2, "preactivation": True}, (12, 4, 4)),
        ({"out_channels": 10, "preactivation": True, "norm": "none"}, (10, 8, 8)),
        ({"out_channels": 10, "final_activation": "before_sum", "kernel_size": 5}, (10, 8, 8)),
        ({"out_channels": 10, "pool": "max", "final_activation": "none"}, (10, 4, 4)),
        ({"out_channels": 12, "shortcut": "conv", "pool": "avg", "preactivation": True}, (12, 4, 4)),
    ],
    "norm": [({}, (10, 8, 8)), ({"norm": "layer"}, (10, 8, 8)), ({"norm": "none"}, (10, 8, 8))],
    "scale": [({"factor": 0.125}, (10, 8, 8))],
    "activation": [({}, (10, 8, 8)), ({"activation": "prelu", "negative_slope": 0.1}, (10, 8, 8))],
    "dropout": [({}, (10, 8, 8)), ({"dropout": 0.5, "dropout_channels": True}, (10, 8, 8))],
    "squeeze_excite": [({"ratio": 4}, (10, 8, 8))],
    "add": [
        ({"inputs": ["stem", "side"]}, (10, 8, 8)),
        ({"inputs": ["stem", "side", "other"], "activation": "relu"}, (10, 8, 8)),
    ],
    "concat": [({"inputs": ["stem", "side"]}, (20, 8, 8))],
    "flatten": [({}, (640,))],
    "linear": [
        ({"out_features": 5}, (5,)),
        ({"out_features": "classes", "bias": False, "activation": "relu", "dropout": 0.5}, (10,)),
    ],
    "max_pool": [({}, (10, 4, 4)), ({"kernel_size": 3, "stride": 2, "padding": 1}, (10, 4, 4))],
    "avg_pool": [({}, (10, 4, 4)), ({"kernel_size": 3, "stride": 1}, (10, 6, 6))],
    "blur_pool": [({}, (10, 4, 4)), ({"kernel_size": 4, "stride": 2}, (10, 4, 4)), ({"kernel_size": 5}, (10, 4, 4))],
    "gap_head": [({}, (10, 1, 1)), ({"projection": "conv"}, (10, 1, 1)), ({"projection": "linear"}, (10,))],
}


def test_every_registered_block_has_an_example() -> None:
    assert set(EXAMPLES) == set(BLOCKS)


@pytest.mark.parametrize("name", sorted({*get_args(Activation)} - {"none"}))
def test_an_activation_is_pytorchs_of_that_name(name: str) -> None:
    inputs = torch.linspace(-8, 8, 60).view(2, 3, 2, 5)
    ours = make_activation(name, 3)
    function = getattr(F, name, None) or getattr(torch, name)
    more = [ours.weight] if name == "prelu" else []
    assert torch.equal(ours(inputs.clone()), function(inputs, *more))


def test_scale_multiplies_by_its_factor() -> None:
    middle, (images,) = middle_of(build_one("scale", {"factor": 0.125}))
    assert torch.equal(middle(images), images / 8)


def build_one(block: str, fields: dict[str, object]) -> Network:
    """A network of one stem, the block, and whatever ends in ten classes."""
    stem = {"block": "conv", "out_channels": 10, "norm": "none", "dropout": 0.0}
    sides = {name: {**stem, "input": "image"} for name in fields.get("inputs", []) if name not in ("stem", "nowhere")}
    flatten = {"flat": {"block": "flatten"}} if block == "linear" else {}
    end = {"block": "linear", "out_features": "classes"} if block in ("flatten", "linear") else END
    layers = {"stem": stem, **sides, **flatten, "middle": {"block": block, **fields}, "end": end}
    if block == "gap_head":
        del layers["end"]
    return build_network(layers, INHERITED, seed=1, info=replace(GREY, shape=(1, 10, 10)))


END = {"block": "gap_head", "projection": "conv"}


def middle_of(network: Network) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """The layer called middle, and random inputs for it."""
    taken: list[torch.Tensor] = []
    middle = network.get_submodule("middle")
    hook = middle.register_forward_pre_hook(lambda module, inputs: taken.extend(inputs))
    network(torch.randn(3, 1, 10, 10))
    hook.remove()
    return middle, [torch.randn_like(each) for each in taken]


every_example = pytest.mark.parametrize(
    ("block", "fields", "shape"),
    [(block, fields, shape) for block, examples in EXAMPLES.items() for fields, shape in examples],
)


@every_example
def test_every_block_forward_and_backward(block: str, fields: dict[str, object], shape: tuple[int, ...]) -> None:
    network = build_one(block, fields)
    middle, inputs = middle_of(network)
    assert middle(*inputs).shape == (3, *shape)
    network(torch.randn(3, 1, 10, 10)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@every_example
@pytest.mark.parametrize("is_training", [True, False])
def test_no_block_overwrites_its_input_which_another_layer_may_read(block, fields, shape, is_training: bool) -> None:
    middle, inputs = middle_of(build_one(block, fields))
    before = [each.clone() for each in inputs]
    middle.train(is_training)(*inputs)
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))


def test_the_order_of_the_parts_is_that_of_the_field() -> None:
    conv = Conv(4, out_channels=6, dropout=0.5, order=["norm", "activation", "conv", "dropout"])
    assert [name for name, _ in conv.named_children()] == ["norm", "activation", "conv", "dropout"]
    assert conv.norm.num_features == 4  # what comes in: it stands before the convolution


def test_blur_pool_keeps_a_constant_image_and_has_no_parameters() -> None:
    for kernel_size in (3, 4, 5):
        blur = BlurPool(2, (8, 8), kernel_size=kernel_size)
        assert torch.allclose(blur(torch.full((1, 2, 8, 8), 3.0)), torch.full((1, 2, 4, 4), 3.0))
        assert list(blur.parameters()) == []


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
        ("conv", {"out_channels": 8, "norm": "bach"}, "model.layers.middle.norm must be one of batch, ghost_batch, group, layer, none, g"),
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
        ("conv", {"out_channels": "clases"}, "middle.out_channels must be a whole number, got 'clases'. Give the number of channels, or classes"),
        ("conv", {"out_channels": 8, "kernel_size": "same"}, "model.layers.middle.kernel_size must be a whole number, got 'same'."),
        ("conv", {"out_channels": 8, "padding": "same", "stride": 2}, "middle.padding must be a number where stride is not 1"),
        ("conv", {"out_channels": 8, "padding": "same", "kernel_size": 4}, "middle.padding must be a number where kernel_size is even"),
        ("conv", {"out_channels": 8, "pool_size": 3}, "model.layers.middle.pool_size must not be set where pool is none, got 3."),
        ("conv", {"out_channels": 8, "pool": "max", "pool_size": 7}, "model.layers.middle.pool_size must be at most 6: its input"),
        ("conv", {"out_channels": 8, "pool": "max", "bare": True}, "model.layers.middle.pool must be none where bare is true"),
        ("conv", {"out_channels": 8, "order": ["pool", "conv", "norm", "activation", "dropout"]}, "order must not name pool where pool is"),
        ("conv", {"out_channels": 8, "pool": "max", "order": ["pool", "conv", "norm", "dropout"]}, "order must name every part once"),
        ("conv", {"out_channels": 8, "norm_eps": 0.001, "norm": "none"}, "norm_eps must not be set in a layer without norm, got 0.001."),
        ("conv", {"out_channels": 8, "norm_momentum": 0.2, "norm": "layer"}, "must not be set in a layer without batch norm, got 0.2"),
        ("conv", {"out_channels": 8, "norm_momentum": 0}, "model.layers.middle.norm_momentum must be greater than 0, got 0."),
        ("conv", {"out_channels": 8, "ghost_splits": 2}, "ghost_splits must not be set in a layer without ghost batch norm, got 2."),
        ("conv", {"out_channels": 8, "negative_slope": 0.1}, "must not be set in a layer without leaky ReLU or PReLU, got 0.1."),
        ("conv", {"out_channels": 8, "dropout": 0.0, "dropout_channels": True}, "must not be set in a layer without dropout, got true."),
        ("conv", {"out_channels": 8, "padding_mode": "reflect"}, "must not be set in a layer without padded convolution, got 'refl"),
        ("conv", {"out_channels": 8, "padding_mode": "mirror"}, "middle.padding_mode must be one of zeros, reflect, replicate, circ"),
        ("conv", {"out_channels": 8, "padding": 8, "padding_mode": "reflect"}, "padding must be at most 7 where padding_mode is reflect"),
        ("conv", {"out_channels": 8, "padding": 9, "padding_mode": "circular"}, "padding must be at most 8 where padding_mode is circular"),
        ("max_pool", {"init": "orthogonal"}, "init must not be set in a layer without convolution or linear layer, got 'orthogonal'."),
        ("transition", {"out_channels": 8, "norm": "batch", "bare": True}, "norm must not be set where bare is true, got 'batch'."),
        ("residual", {"out_channels": 10, "kernel_size": 4}, "model.layers.middle.kernel_size must be odd, got 4. Change it by one."),
        ("residual", {"out_channels": 10, "shortcut": "conv", "stride": 2, "pool": "max"}, "middle.pool must be none if stride is"),
        ("residual", {"out_channels": 10, "preactivation": True, "final_activation": "none"}, "must not be set where preactivation"),
        ("residual", {"out_channels": 10, "preactivation": True, "zero_init_residual": True}, "must not be set where preactivation"),
        ("residual", {"out_channels": 10, "norm": "none", "zero_init_residual": True}, "must not be set where norm is none, got true"),
        ("squeeze_excite", {"ratio": 11}, "model.layers.middle.ratio must be at most the 10 input channels, got 11. Lower it."),
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


def block_of(name: str, **fields: object) -> torch.nn.Module:
    """The block alone, in training, for 10 channels."""
    return build_one(name, {"dropout": 0.0, **fields}).get_submodule("middle")


def test_the_variants_of_a_residual_compute_their_formulas() -> None:
    images, relu = torch.randn(2, 10, 8, 8), torch.relu
    after = block_of("residual", out_channels=10)
    body = after.body
    inner = body.norm2(body.conv2(relu(body.norm1(body.conv1(images)))))
    torch.testing.assert_close(after(images), relu(inner + images))
    before = block_of("residual", out_channels=10, final_activation="before_sum")
    before.load_state_dict(after.state_dict(), strict=True)
    torch.testing.assert_close(before(images), relu(inner) + images)
    without = block_of("residual", out_channels=10, final_activation="none")
    without.load_state_dict(after.state_dict(), strict=True)
    torch.testing.assert_close(without(images), inner + images)
    pre = block_of("residual", out_channels=12, shortcut="conv", stride=2, preactivation=True)
    body = pre.body
    inner = body.conv2(relu(body.norm2(body.conv1(relu(body.norm1(images))))))
    torch.testing.assert_close(pre(images), inner + pre.shortcut.conv(images))
    pooled = block_of("residual", out_channels=10, pool="max")
    body = pooled.body
    inner = body.norm2(body.conv2(F.max_pool2d(relu(body.norm1(body.conv1(images))), 2)))
    torch.testing.assert_close(pooled(images), relu(inner + F.max_pool2d(images, 2)))


def test_a_residual_whose_last_norm_begins_with_0_begins_as_its_shortcut() -> None:
    images = torch.randn(2, 10, 8, 8)
    block = block_of("residual", out_channels=10, zero_init_residual=True, final_activation="none")
    assert torch.equal(block(images), images)
    block(images).sum().backward()
    assert block.body.norm2.weight.grad is not None


def test_the_pooling_of_a_convolution_comes_last_or_where_the_order_has_it() -> None:
    last = block_of("conv", out_channels=4, pool="max")
    assert [name for name, _ in last.named_children()] == ["conv", "activation", "norm", "pool"]
    order = ["conv", "pool", "norm", "activation", "dropout"]
    within = block_of("conv", out_channels=4, pool="avg", pool_size=3, order=order)
    assert [name for name, _ in within.named_children()] == ["conv", "pool", "norm", "activation"]
    assert (within.pool.kernel_size, type(within.pool)) == (3, torch.nn.AvgPool2d)


def test_the_norm_and_the_dropout_of_a_transition_are_its_own() -> None:
    plain, full = (
        block_of_model("transition", out_channels=4),
        block_of_model("transition", out_channels=4, norm="group"),
    )
    assert [name for name, _ in plain.named_children()] == ["pool", "conv", "activation"]
    assert [name for name, _ in full.named_children()] == ["pool", "conv", "activation", "norm"]


def block_of_model(name: str, **fields: object) -> torch.nn.Module:
    """The block with the dropout and the norm of the model, if it takes them."""
    return build_one(name, fields).get_submodule("middle")


def test_squeeze_and_excitation_weighs_each_channel_by_the_means() -> None:
    block, images = block_of_model("squeeze_excite", ratio=5), torch.randn(3, 10, 8, 8)
    weights = block.weights
    hidden = torch.relu(images.mean((2, 3)) @ weights.squeeze.weight.flatten(1).T + weights.squeeze.bias)
    scales = torch.sigmoid(hidden @ weights.excite.weight.flatten(1).T + weights.excite.bias)
    torch.testing.assert_close(block(images), images * scales[:, :, None, None])
    assert sum(parameter.numel() for parameter in block.parameters()) == 10 * 2 + 2 + 2 * 10 + 10
