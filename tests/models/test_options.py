"""Options of layers and of the model: momentum and eps of norms, slopes, padding, dropout of channels, initial weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from era_cnn.config.network import ModelConfig
from era_cnn.config.versions import digest
from era_cnn.errors import ConfigError
from era_cnn.models import layers
from era_cnn.models.build import build_from_config, build_network, check_network
from era_cnn.models.options import OPTIONS
from tests.conftest import config_of
from tests.helpers import GREY
from tests.models.test_blocks import INHERITED

LAYERS = {
    "one": {"block": "conv", "out_channels": 8, "padding": 1},
    "two": {"block": "conv", "out_channels": 8, "padding": 1},
    "head": {"block": "gap_head", "projection": "linear", "bias": True},
}

# An option, a value of it, what the model needs for it to have an effect, and how to read it from a network.
CASES: dict[str, tuple[Any, dict[str, str], Any]] = {
    "norm_momentum": (0.01, {}, lambda layer: layer.norm.momentum),
    "norm_eps": (0.001, {}, lambda layer: layer.norm.eps),
    "ghost_splits": (4, {"norm": "ghost_batch"}, lambda layer: layer.norm.splits),
    "negative_slope": (0.2, {"activation": "leaky_relu"}, lambda layer: layer.activation.negative_slope),
    "dropout_channels": (True, {}, lambda layer: layer.dropout.channels),
    "padding_mode": ("reflect", {}, lambda layer: layer.conv.padding_mode),
    "init": ("orthogonal", {}, lambda layer: "orthogonal" if is_orthogonal(layer.conv.weight) else "default"),
}


def is_orthogonal(weight: torch.Tensor) -> bool:
    rows = weight.detach().flatten(1)
    return torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)


def test_every_option_has_a_case() -> None:
    assert set(CASES) == set(OPTIONS)


@pytest.mark.parametrize("name", CASES)
def test_an_option_of_the_model_reaches_each_layer_that_sets_nothing_else(name: str) -> None:
    value, needed, read = CASES[name]
    default = ModelConfig.model_fields[name].get_default()
    usual = read(build_network(LAYERS, INHERITED | needed, seed=1, info=GREY).get_submodule("one"))
    own = {**LAYERS, "two": {**LAYERS["two"], name: default}}
    network = build_network(own, {**INHERITED, **needed, name: value}, seed=1, info=GREY)
    assert read(network.get_submodule("one")) == value != usual
    assert read(network.get_submodule("two")) == usual
    one = build_network({**LAYERS, "one": {**LAYERS["one"], name: value}}, INHERITED | needed, seed=1, info=GREY)
    assert [read(one.get_submodule(layer)) for layer in ("one", "two")] == [value, usual]


@pytest.mark.parametrize("name", CASES)
def test_an_option_at_its_default_changes_no_digest_and_no_weight(name: str) -> None:
    default = ModelConfig.model_fields[name].get_default()
    config = config_of()
    same = config.model_copy(update={"model": config.model.model_copy(update={name: default})})
    assert digest(same) == digest(config)
    before, after = (build_from_config(each).state_dict() for each in (config, same))
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("experiment=model_1 +model.norm_eps=0.1", "model.norm_eps must not be set if no layer that leaves it to the model has"),
        ("+model.norm_momentum=0.2 model.norm=layer", "model.norm_momentum must not be set if no layer that leaves it"),
        ("+model.ghost_splits=4", "model.ghost_splits must not be set if no layer that leaves it to the model has ghost batch"),
        ("+model.negative_slope=0.1", "model.negative_slope must not be set if no layer that leaves it to the model has leaky"),
        ("+model.dropout_channels=true model.dropout=0", "model.dropout_channels must not be set if no layer that leaves it"),
        ("+model.padding_mode=reflect", "model.padding_mode must not be set if no layer that leaves it to the model has padded"),
        ("+model.norm_groups=2", "model.norm_groups must not be set if no layer that leaves it to the model has group norm, got 2"),
        ("+model.init=he_normal", "model.init must be one of default, kaiming_normal, kaiming_uniform, kaiming_normal_fan_out, kaim"),
        ("+model.norm_eps=0", "model.norm_eps must be greater than 0, got 0. Give the number that norms add to the variance."),
        ("+model.ghost_splits=0", "model.ghost_splits must be at least 1, got 0. Give the number of parts of a batch that ghost"),
        ("+model.negative_slope=-1", "model.negative_slope must be at least 0, got -1. Give the slope of leaky ReLU for negative"),
    ],
)  # fmt: skip
def test_each_option_without_effect_or_out_of_range_has_its_message(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_network(config_of(*overrides.split()))
    assert caught.value.problems[0].startswith(message)


def test_the_groups_of_the_model_reach_its_norms() -> None:
    network = build_from_config(config_of("model.norm=group", "+model.norm_groups=2", "target.max_params=null"))
    assert {module.num_groups for module in network.modules() if isinstance(module, nn.GroupNorm)} == {2}


STD = {
    "kaiming_normal_fan_out": (2 / (9 * 64)) ** 0.5,
    "kaiming_uniform_fan_out": (2 / (9 * 64)) ** 0.5,
    "kaiming_normal": (2 / 72) ** 0.5,
    "kaiming_uniform": (2 / 72) ** 0.5,
    "xavier_normal": (2 / (72 + 9 * 64)) ** 0.5,
    "xavier_uniform": (2 / (72 + 9 * 64)) ** 0.5,
    "default": (1 / (3 * 72)) ** 0.5,
}


@pytest.mark.parametrize("init", STD)
def test_initial_weights_have_the_deviation_of_their_distribution_and_biases_are_0(init: str) -> None:
    wide = {**LAYERS, "two": {"block": "conv", "out_channels": 64, "bias": True}}
    network = build_network(wide, {**INHERITED, "init": init}, seed=1, info=GREY)
    conv = network.get_submodule("two.conv")
    assert conv.weight.std().item() == pytest.approx(STD[init], rel=0.05)
    assert bool(conv.bias.any()) is (init == "default")
    again = build_network(wide, {**INHERITED, "init": init}, seed=1, info=GREY)
    assert torch.equal(again.get_submodule("two.conv").weight, conv.weight)


def test_prelu_begins_with_the_slope_for_each_channel() -> None:
    one = {"block": "conv", "out_channels": 8, "activation": "prelu", "negative_slope": 0.1}
    network = build_network({**LAYERS, "one": one}, INHERITED, seed=1, info=GREY)
    weight = network.get_submodule("one.activation").weight
    assert torch.equal(weight, torch.full((8,), 0.1))
    assert isinstance(network.get_submodule("one.dropout"), layers.Dropout)


ON_ONE_PIXEL = {
    "pool": {"block": "avg_pool", "kernel_size": 28},
    "logits": {"block": "conv", "out_channels": "classes", "kernel_size": 1},
}


@pytest.mark.parametrize(
    ("batch_size", "splits", "is_refused"), [(32, 14, False), (32, 15, True), (479, 200, False), (718, 1, True)]
)
def test_ghost_batch_norm_on_one_pixel_needs_two_images_in_each_part(batch_size, splits, is_refused) -> None:
    """Of 1,437 images: batches of 32 leave 29, those of 479 none, those of 718 one."""
    config = config_of("data=digits", f"trainer.batch_size={batch_size}", "model.norm=ghost_batch", "model.dropout=0")
    model = config.model.model_copy(update={"layers": ON_ONE_PIXEL, "ghost_splits": splits})
    config = config.model_copy(update={"model": model})
    if is_refused:
        with pytest.raises(ConfigError, match="trainer.batch_size must not leave one of 1,437 images alone in a batch"):
            check_network(config)
    else:
        check_network(config)
