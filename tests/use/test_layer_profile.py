from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from era_cnn.use import layer_profile
from era_cnn.use.catalogue import describe
from era_cnn.use.layer_profile import LayerCost, NetworkCost, profile_layers
from tests.conftest import config_of


@pytest.fixture(autouse=True)
def _few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_profile, "REPEATS", 1)


@pytest.mark.parametrize("experiment", ["model_1", "model_4", "cifar10_small", "cifar10_resnet9"])
def test_every_layer_is_measured_in_order(experiment: str) -> None:
    config = config_of(f"experiment={experiment}", "trainer.batch_size=4", "threads=1", "device=cpu")
    cost, (summary, _) = profile_layers(config), describe(config)
    assert [layer.name for layer in cost.layers] == [row.name for row in summary.rows]
    for layer, row in zip(cost.layers, summary.rows, strict=True):
        assert layer.parameter_bytes == 4 * row.params
        assert layer.activation_bytes == 4 * 4 * math.prod(row.output_shape)
        assert layer.forward_seconds > 0
        assert layer.backward_seconds > 0
    assert cost.whole.parameter_bytes == 4 * summary.params
    assert cost.whole.activation_bytes == sum(layer.activation_bytes for layer in cost.layers)
    assert all(len(line) <= 80 for line in cost.lines())


def test_a_layer_that_works_in_place_is_measured_on_what_it_is_given() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(inplace=True))
    images = torch.randn(2, 1, 5, 5)
    (_, _, _), (name, _, (given,)) = layer_profile._inputs(network, lambda: network(images))
    assert name == "1"
    assert (given < 0).any()
    assert given.requires_grad


def test_the_random_numbers_of_the_caller_stay(command) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    code, out, err = command("describe", "data=digits", "--profile", "trainer.batch_size=4", "threads=2", "device=cpu")
    assert (code, err) == (0, "")
    assert "A training step of 4 random images (cpu, 2 threads), each layer measured alone:" in out
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_the_table_says_what_was_measured() -> None:
    layer = LayerCost("conv", 1536, 3 * 2**20, 0.001, 0.003)
    long = replace(layer, name="a_long_name." * 9, parameter_bytes=0, activation_bytes=5 * 2**30, forward_seconds=1.2)
    whole = replace(layer, name="whole network")
    lines = list(NetworkCost((layer, long), whole, 64, "cuda", 2).lines())
    assert lines[0] == "A training step of 64 random images (cuda), each layer measured alone:"
    assert lines[2].split() == ["conv", "1.5", "KiB", "3.0", "MiB", "1.00", "ms", "3.00", "ms", "0%"]
    name, *cells = lines[3].split()
    assert name.endswith("...")
    assert cells == ["0", "B", "5.0", "GiB", "1200.00", "ms", "3.00", "ms", "100%"]
    assert max(map(len, lines)) == 80
