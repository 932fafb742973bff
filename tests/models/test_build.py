from __future__ import annotations

import pytest
import torch

from era_cnn.config.data_info import DataInfo
from era_cnn.errors import ConfigError
from era_cnn.models.build import build_from_config, build_network, check_network
from era_cnn.models.network import Network
from era_cnn.models.summary import summarise
from tests.conftest import EXPERIMENTS, config_of
from tests.models.test_blocks import INHERITED


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.layers.conv1.block=convv"], "model.layers.conv1.block must be one of activation, add, avg_pool, "),
        (["model.layers.conv1.block=convv"], "got 'convv'. Did you mean conv?"),
        (["~model.layers.conv1.block"], "model.layers.conv1.block must be given, got nothing. Choose one: activation, add, "),
        (["model.layers.conv1.block=[1]"], "model.layers.conv1.block must be one of activation"),
        (["~model.layers.gap"], "model.layers must output 10 values for each image, one for each class, got '10 × 5 × 5'."),
        (["model.layers.logits.out_channels=12"], "model.layers.gap.projection must be conv or linear if there are 12"),
        (["+model.layers.forward={block: max_pool}"], "model.layers.forward must have a plain name"),
        (["+model.layers.a-b={block: max_pool}"], "model.layers.a-b must have a plain name (letters, digits, _), got 'a-b'"),
        (["+model.layers.more={block: max_pool}"], "model.layers.more.kernel_size must be at most 1: its input is 1 px"),
        (["+model.layers.conv1.stride=5"], "model.layers.conv4.kernel_size must be at most 1: its input is 1 px high or wide, got 3."),
        (["target.max_params=7615"], "model.layers must make at most 7,615 parameters, the target of model_4,"),
        (["target.max_params=7615"], "got 7,616. Make the network smaller, or raise target.max_params; ~experiment"),
        (
            ["experiment=model_1", "model.dropout=0.1", *[f"+model.layers.conv{i}.dropout=0.0" for i in range(1, 7)]],
            "model.dropout must be 0 if no layer uses it, got 0.1. Set it in a layer.",
        ),
        (["+model.layers.gap.projection=linear", "+model.layers.more={block: max_pool}"], "model.layers.more.block must"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_message(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_network(config_of(*overrides))
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_the_mistakes_of_all_layers_are_said_at_once() -> None:
    config = config_of("model.layers.conv1.out_channels=0", "model.layers.pool.block=poll", "+model.layers.skip.x=1")
    with pytest.raises(ConfigError) as caught:
        check_network(config)
    keys = [problem.split()[0] for problem in caught.value.problems]
    assert keys == ["model.layers.conv1.out_channels", "model.layers.skip.x", "model.layers.pool.block"]


def test_layers_are_changed_added_and_removed_by_name() -> None:
    network = build_from_config(
        config_of("model.layers.conv2.out_channels=20", "~model.layers.skip", "target.max_params=9000")
    )
    assert network.get_submodule("conv2.conv").out_channels == 20
    assert network.get_submodule("conv3.conv").in_channels == 20
    assert "skip" not in dict(network.named_children())


def test_model_wide_options_reach_every_layer_that_sets_nothing_else() -> None:
    network = build_from_config(config_of("experiment=model_3", "model.norm=layer", "model.dropout=0.3"))
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("GroupNorm") == 5
    assert [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)] == [0.3] * 5


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_parameter_for_every_gradient(experiment: str) -> None:
    config = config_of(f"experiment={experiment}")
    network = build_from_config(config)
    network(torch.randn(2, *config.info.shape)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_the_initial_weights_are_a_function_of_the_seed_and_the_layers_name() -> None:
    def weights(*overrides: str) -> dict[str, torch.Tensor]:
        return build_from_config(config_of(*overrides)).state_dict()

    first, again, other = weights(), weights(), weights("seed=2")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.conv.weight"], other["conv1.conv.weight"])
    without_skip = weights("~model.layers.skip")
    assert all(torch.equal(without_skip[name], first[name]) for name in without_skip)


def test_checking_a_network_allocates_nothing() -> None:
    # 65,536 × 65,536 × 9 weights would be 155 GB.
    huge = ["model.layers.conv2.out_channels=65536", "model.layers.skip.out_channels=65536", "target.max_params=null"]
    with pytest.raises(ConfigError, match=r"skip.block must make at most 268,435,456 parameters, got 4294967296"):
        check_network(config_of(*huge))
    check_network(config_of("model.layers.conv2.out_channels=65536", "target.max_params=null"))


def test_describing_a_network_that_has_no_room_is_refused_before_it_takes_any(command) -> None:
    huge = ("model.layers.conv2.out_channels=65536", "model.layers.skip.out_channels=65536", "target.max_params=null")
    code, _, err = command("describe", *huge)
    assert (code, "skip.block must make at most 268,435,456 parameters" in err) == (2, True)


COLOUR = DataInfo((3, 20, 33), tuple("abcdefg"), train_size=100, test_size=10)
LAYERS = {
    "conv1": {"block": "conv", "out_channels": 8},
    "residual": {"block": "residual", "out_channels": 12, "shortcut": "conv", "stride": 2},
    "blur": {"block": "blur_pool"},
    "separable": {"block": "depthwise_separable", "out_channels": 9},
    "head": {"block": "gap_head", "projection": "conv"},
}


@pytest.mark.parametrize("projection", ["conv", "linear"])
def test_a_network_takes_its_channels_sizes_and_classes_from_the_data_set(projection: str) -> None:
    layers = {**LAYERS, "head": {"block": "gap_head", "projection": projection}}
    network = build_network(layers, INHERITED, seed=1, info=COLOUR)
    assert network.get_submodule("conv1.conv").in_channels == 3
    assert network(torch.randn(2, *COLOUR.shape)).shape == (2, 7)
    summary = summarise(network, COLOUR.shape)
    assert summary.rows[0].output_shape == (8, 18, 31)


def test_a_network_for_other_classes_is_refused() -> None:
    layers = {
        **LAYERS,
        "last": {"block": "conv", "out_channels": 10, "kernel_size": 1, "bare": True},
        "gap": {"block": "gap_head"},
    }
    del layers["head"]
    with pytest.raises(
        ConfigError, match=r"gap.projection must be conv or linear if there are 10 input channels for 7 classes"
    ):
        build_network(layers, INHERITED, seed=1, info=COLOUR)
    without = {name: layers[name] for name in list(layers)[:3]}
    with pytest.raises(
        ConfigError, match="model.layers must output 7 values for each image, one for each class, got '12 × 5 × 8'"
    ):
        build_network(without, INHERITED, seed=1, info=COLOUR)


def test_the_smaller_side_bounds_a_kernel() -> None:
    layers = {**LAYERS, "conv1": {"block": "conv", "out_channels": 8, "kernel_size": 21}}
    with pytest.raises(ConfigError, match="conv1.kernel_size must be at most 20: its input is 20 px high or wide"):
        build_network(layers, INHERITED, seed=1, info=COLOUR)


def test_a_network_without_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("era_cnn.models.build.build_network", lambda *_, **__: Network())
    with pytest.raises(ConfigError, match=r"^model\.layers must have parameters to train, got 0\. Add a layer such as"):
        build_from_config(config_of())
