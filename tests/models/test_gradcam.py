"""Grad-CAM against a network whose answer is known, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from era_cnn.errors import ConfigError
from era_cnn.models.build import build_network
from era_cnn.models.gradcam import grad_cam
from era_cnn.training.fingerprint import weights_sha256
from tests.helpers import GREY
from tests.models.test_blocks import INHERITED


def detector() -> nn.Sequential:
    """Class 0 counts bright pixels, class 1 dark ones; nothing else."""
    network = nn.Sequential()
    conv = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        conv.weight[:] = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        conv.bias[:] = torch.tensor([0.0, 1.0])
    network.add_module("conv", conv)
    network.add_module("relu", nn.ReLU(inplace=True))
    network.add_module("gap", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    return network


def spot(row: int, column: int) -> Tensor:
    image = torch.zeros(1, 5, 7)
    image[0, row, column] = 1.0
    return image


def test_the_evidence_lies_where_the_class_is() -> None:
    images = torch.stack([spot(1, 2), spot(4, 6)])
    maps = grad_cam(detector(), images, torch.tensor([0, 1]))
    assert maps.layer == "relu"
    assert torch.equal(maps.values[0], images[0, 0])
    assert torch.equal(maps.values[1], 1 - images[1, 0])


def test_a_batch_gives_the_maps_of_its_images() -> None:
    images = torch.rand(4, 1, 5, 7)
    classes = torch.tensor([0, 1, 1, 0])
    network = detector()
    alone = [grad_cam(network, image[None], label[None]).values for image, label in zip(images, classes, strict=True)]
    torch.testing.assert_close(grad_cam(network, images, classes).values, torch.cat(alone))


def test_a_map_is_zero_where_nothing_speaks_for_the_class() -> None:
    values = grad_cam(detector(), torch.zeros(1, 1, 5, 7), torch.tensor([0])).values
    assert torch.equal(values, torch.zeros(1, 5, 7))


@pytest.mark.parametrize("is_training", [True, False])
def test_the_network_stays_as_it_was(is_training: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(45, 2)
    )
    network.train(is_training)
    before = weights_sha256(network)
    grad_cam(network, torch.rand(2, 1, 5, 7), torch.tensor([0, 1]))
    assert network.training is is_training
    assert weights_sha256(network) == before
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_go_even_if_the_network_fails() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(RuntimeError):
        grad_cam(network, torch.rand(1, 1, 5, 7), torch.tensor([0]))
    assert not any(module._forward_hooks for module in network.modules())
    assert network.training


def test_a_network_without_positions_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(35, 2))
    with pytest.raises(ConfigError, match="must have a layer whose output is more than one pixel"):
        grad_cam(network, torch.rand(1, 1, 5, 7), torch.tensor([0]))


RESIDUAL = {
    "stem": {"block": "conv", "out_channels": 4, "padding": 1},
    "conv": {"block": "conv", "out_channels": 4, "padding": 1},
    "sum": {"block": "add", "inputs": ["stem", "conv"]},
    "both": {"block": "concat", "inputs": ["sum", "stem"]},
    "last": {"block": "conv", "out_channels": 6},
    "gap": {"block": "gap_head", "projection": "conv"},
}


@pytest.mark.parametrize("last", ["last", "both", "sum"])
def test_networks_with_sums_and_dense_connections_are_explained(last: str) -> None:
    names = [*RESIDUAL][: [*RESIDUAL].index(last) + 1]
    network = build_network({name: RESIDUAL[name] for name in [*names, "gap"]}, INHERITED, seed=1, info=GREY).eval()
    images, classes = torch.rand(3, 1, 28, 28), torch.tensor([4, 0, 9])
    maps = grad_cam(network, images, classes)
    assert maps.layer == last
    outputs: dict[str, Tensor] = {}
    network.get_submodule(last).register_forward_hook(lambda module, inputs, output: outputs.update(it=output))
    logits = network(images)
    (slopes,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), outputs["it"])
    evidence = (outputs["it"] * slopes.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()
    expected = evidence / evidence.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(maps.values, expected.detach())
    alone = [grad_cam(network, images[i : i + 1], classes[i : i + 1]).values for i in range(3)]
    torch.testing.assert_close(maps.values, torch.cat(alone))
