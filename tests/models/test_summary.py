from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from era_cnn.models.build import build_from_config, build_network
from era_cnn.models.summary import Summary, summarise
from tests.conftest import config_of
from tests.helpers import GREY
from tests.models.reference_tables import TABLES, TOTALS, rows
from tests.models.test_blocks import INHERITED


def summary_of(model: str) -> Summary:
    config = config_of(f"experiment={model}")
    return summarise(build_from_config(config), config.info.shape)


@pytest.mark.parametrize("model", TABLES)
def test_every_row_of_the_reference_tables(model: str) -> None:
    summary = summary_of(model)
    ours = [(row.type, row.output_shape, row.params) for row in summary.rows]
    if model == "model_1":  # its reference calls ReLU as a function, so that it has no rows of its own
        ours = [row for row in ours if row[0] != "ReLU"]
    assert ours == rows(model)
    assert summary.params == TOTALS[model] == sum(row.params for row in summary.rows)


def test_the_reference_tables_are_whole() -> None:
    assert [len(rows(model)) for model in TABLES] == [9, 22, 23, 21]
    assert TOTALS == {"model_1": 6_379_786, "model_2": 12_854, "model_3": 9_180, "model_4": 7_616}


def seen_pixels(network: nn.Module, size: int, up_to: str) -> int:
    """The width of the input region that the middle output of a layer depends on, found by its gradient."""
    outputs: list[torch.Tensor] = []
    network.get_submodule(up_to).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    images = torch.rand(1, 1, size, size, requires_grad=True)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01)  # nothing cancels, no ReLU is off
    network.eval()(images)
    middle = outputs[0][0, :, outputs[0].shape[2] // 2, outputs[0].shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle.sum(), images)
    columns = gradient[0, 0].abs().sum(dim=0).nonzero()
    return int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(("model", "expected"), [("model_1", 40), ("model_2", 28), ("model_3", 20), ("model_4", 20)])
def test_the_receptive_field_of_a_model(model: str, expected: int) -> None:
    assert summary_of(model).receptive_field == expected


def test_the_receptive_field_of_every_row_is_what_the_gradient_sees() -> None:
    # Average pooling instead of the maximum, whose gradient follows one pixel only.
    layers = {
        "conv1": {"block": "conv", "out_channels": 4, "padding": 1},
        "pool": {"block": "avg_pool"},
        "residual": {"block": "residual", "out_channels": 6, "shortcut": "conv", "stride": 2},
        "conv2": {"block": "conv", "out_channels": 4, "dilation": 2, "padding": 2},
        "separable": {"block": "depthwise_separable", "out_channels": 5, "padding": 1},
        "blur": {"block": "blur_pool"},
        "conv3": {"block": "conv", "out_channels": 10, "padding": 1},
        "gap": {"block": "gap_head"},
    }
    info = replace(GREY, shape=(1, 256, 256))
    network = build_network(layers, {**INHERITED, "norm": "none"}, seed=1, info=info)
    summary = summarise(network, info.shape)
    fields = {row.name: row.receptive_field for row in summary.rows}
    for name in (
        "conv1.conv",
        "pool",
        "residual.body.conv2",
        "conv2.conv",
        "separable.pointwise",
        "blur",
        "conv3.conv",
    ):
        assert fields[name] == seen_pixels(network, 256, name), name
    assert summary.receptive_field == fields["conv3.conv"]


def test_the_table_says_everything() -> None:
    table = summary_of("model_4").table()
    assert "conv1.conv" in table
    assert "Conv2d-1 " in table
    assert "(8, 26, 26)" in table
    assert table.endswith("Parameters: 7,616\nReceptive field: 20 px\nMultiply-adds: 2,190,328 for one image\n")


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build_from_config(config_of())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    summarise(network, GREY.shape)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
