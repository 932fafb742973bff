"""The networks in conf/model: what their headers say of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from era_cnn.config.data_info import DataInfo
from era_cnn.config.network import ModelConfig
from era_cnn.models.build import build_network
from era_cnn.models.network import Network
from era_cnn.models.summary import Summary, summarise
from tests.conftest import CONF_DIR
from tests.helpers import GREY

MODELS = sorted((CONF_DIR / "model").rglob("*.yaml"))
CIFAR = DataInfo((3, 32, 32), tuple("0123456789"), train_size=50_000, test_size=10_000)


def info_of(path: Path) -> DataInfo:
    return GREY if path.stem.startswith("model_") else CIFAR


def network_of(path: Path, **changes: str) -> Network:
    model = ModelConfig.model_validate({**yaml.safe_load(path.read_text(encoding="utf-8")), **changes})
    return build_network(model.layers, model.inherited(), seed=1, info=info_of(path))


def summary_of(path: Path, **changes: str) -> Summary:
    return summarise(network_of(path, **changes), info_of(path).shape)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_header_of_a_model_says_its_parameters_and_receptive_field(path: Path) -> None:
    summary = summary_of(path)
    header = path.read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith(f"# {summary.params:,} parameters, receptive field {summary.receptive_field} px")


def of(name: str) -> Path:
    return CONF_DIR / "model" / f"{name}.yaml"


@pytest.mark.parametrize("norm", ["batch", "ghost_batch", "group", "layer"])
def test_the_small_network_has_fewer_than_50_000_parameters_with_each_norm(norm: str) -> None:
    assert summary_of(of("cifar_small"), norm=norm).params == summary_of(of("cifar_small")).params < 50_000


def test_the_dilated_network_is_what_the_exercise_asks_for() -> None:
    network, summary = network_of(of("cifar_dilated")), summary_of(of("cifar_dilated"))
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert summary.params < 200_000
    assert summary.receptive_field > 44
    assert sum(conv.groups == conv.in_channels for conv in convs) == 4
    assert [conv.dilation for conv in convs if conv.dilation != (1, 1)] == [(2, 2)]
    assert [conv.stride for conv in convs if conv.stride != (1, 1)] == [(2, 2)] * 3
    assert not any(isinstance(module, nn.MaxPool2d) for module in network.modules())


def test_resnet18_has_the_parameters_of_the_usual_one_for_cifar() -> None:
    assert summary_of(of("resnet18")).params == 11_173_962


def test_resnet9_computes_x_plus_r_of_x() -> None:
    network, images = network_of(of("resnet9")).eval(), torch.randn(2, *CIFAR.shape)
    parts = dict(network.named_children())
    x = parts["conv1"](parts["prep"](images))
    x = parts["residual1"].body(x) + x
    x = parts["conv3"](parts["conv2"](x))
    x = parts["residual3"].body(x) + x
    expected = parts["logits"](nn.functional.max_pool2d(x, 4).flatten(1))
    torch.testing.assert_close(network(images), expected)
    assert [name for name, _ in parts["conv1"].named_children()] == ["conv", "norm", "activation", "pool"]


@pytest.mark.parametrize("shape", [(3, 40, 33), (3, 33, 40)])
@pytest.mark.parametrize("name", ["cifar_small", "cifar_dilated", "resnet18"])
def test_images_need_not_be_square(name: str, shape: tuple[int, int, int]) -> None:
    model = ModelConfig.model_validate(
        yaml.safe_load((CONF_DIR / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    )
    info = DataInfo(shape, ("cat", "dog"), train_size=5, test_size=5)
    network = build_network(model.layers, model.inherited(), seed=1, info=info).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, 2)
    assert summarise(network, shape).receptive_field > 20
