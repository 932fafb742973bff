"""Networks whose layers name their inputs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from era_cnn.errors import ConfigError
from era_cnn.models.build import build_network
from era_cnn.models.network import Graph, Network
from era_cnn.models.receptive import receptive_fields
from era_cnn.models.summary import summarise
from tests.helpers import GREY
from tests.models.test_blocks import INHERITED
from tests.models.test_summary import seen_pixels

PLAIN = {**INHERITED, "norm": "none", "dropout": 0.0}
INFO = replace(GREY, shape=(1, 16, 16))
HEAD = {"head": {"block": "gap_head", "projection": "conv"}}


def conv(**fields: Any) -> dict[str, Any]:
    return {"block": "conv", "out_channels": 4, "padding": 1, **fields}


def build(layers: Mapping[str, Mapping[str, Any]], info=INFO) -> Network:
    return build_network({**layers, **HEAD}, PLAIN, seed=1, info=info)


SKIP = {
    "a": conv(),
    "b": conv(),
    "sum": {"block": "add", "inputs": ["a", "b"], "activation": "relu"},
    "both": {"block": "concat", "inputs": ["sum", "image", "a"]},
    "c": conv(out_channels=6, input="both", stride=2),
}


def test_a_graph_computes_what_its_names_say() -> None:
    network = build(SKIP)
    a, b, c, head = (network.get_submodule(name) for name in ("a", "b", "c", "head"))
    images = torch.randn(2, *INFO.shape)
    first = a(images)
    both = torch.cat([torch.relu(first + b(first)), images, first], dim=1)
    assert torch.equal(network(images), head(c(both)).flatten(1))


def test_a_chain_stays_a_sequence_with_the_weights_that_its_layers_have_in_a_graph() -> None:
    chain = build({"a": conv(), "b": conv(input="a")})
    graph = build({"a": conv(), "b": conv(), "sum": SKIP["sum"]})
    assert (type(chain), type(graph)) == (Network, Graph)
    ours, theirs = chain.state_dict(), graph.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_an_activation_in_place_leaves_what_another_layer_reads() -> None:
    """Each block ends in ReLU, which overwrites its input: the sum must read what conv1 gave, not what b made of it."""
    layers = {
        "a": conv(activation="none"),
        "relu": {"block": "activation"},
        "pre": {"block": "residual", "out_channels": 4, "preactivation": True, "input": "a"},
        "late": conv(order=["activation", "conv", "norm", "dropout"], input="a"),
        "sum": {"block": "add", "inputs": ["a", "relu", "pre", "late"], "activation": "relu"},
    }
    network, images = build(layers), torch.randn(2, *INFO.shape)
    kept: dict[str, Tensor] = {}
    for name in layers:
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: kept.update({name: output})
        )
    before = network.get_submodule("a")(images).clone()
    network(images)
    assert torch.equal(kept["a"], before)
    total = kept["a"] + kept["relu"] + kept["pre"] + kept["late"]
    assert torch.equal(kept["sum"], torch.relu(total))


@pytest.mark.parametrize("is_training", [True, False])
def test_an_output_is_released_after_its_last_reader(is_training: bool) -> None:
    layers = {**{name: conv() for name in "abcd"}, "sum": {"block": "add", "inputs": ["b", "d"]}}
    network = build(layers).train(is_training)
    outputs: dict[str, weakref.ref[Tensor]] = {}
    alive: dict[str, str] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            alive[name] = "".join(other for other, ref in outputs.items() if ref() is not None)
            outputs[name] = weakref.ref(output)

        return hook

    for name in "abcd":
        network.get_submodule(name).register_forward_hook(look(name))
    with torch.no_grad():
        network(torch.randn(2, *INFO.shape))
    assert alive == {"a": "", "b": "a", "c": "b", "d": "bc"}  # each with its own input, and b for the sum


def test_the_table_of_a_graph_is_that_computed_by_hand() -> None:
    network = build(SKIP)
    summary = summarise(network, INFO.shape)
    rows = {row.name: (row.output_shape, row.params, row.receptive_field, row.inputs) for row in summary.rows}
    assert rows["a.conv"] == ((4, 16, 16), 36, 3, ("image",))
    assert rows["b.conv"] == ((4, 16, 16), 144, 5, ("a",))
    assert rows["sum.sum"] == ((4, 16, 16), 0, 5, ("a", "b"))
    assert rows["both"] == ((9, 16, 16), 0, 5, ("sum", "image", "a"))
    assert rows["c.conv"] == ((6, 8, 8), 486, 7, ("both",))
    assert (summary.params, summary.receptive_field) == (36 + 144 + 486 + 60, 7)
    assert summary.mult_adds == (36 + 144) * 256 + 486 * 64 + 60
    lines = summary.table().splitlines()
    assert lines[0].split()[-1] == "input"
    assert next(line for line in lines if line.startswith("both")).endswith("5  sum, image, a")
    assert "input" not in summarise(build({"a": conv()}), INFO.shape).table()


BRANCHES = {
    "narrow": conv(kernel_size=1, padding=0),
    "wide": conv(kernel_size=5, padding=4, dilation=2, input="image"),
    "sum": {"block": "add", "inputs": ["narrow", "wide"]},
    "side": conv(input="narrow"),
    "both": {"block": "concat", "inputs": ["side", "narrow"]},
    "after": conv(),
    "down": conv(stride=2, input="sum"),
    "fine": {"block": "residual", "out_channels": 4, "pool": "avg", "input": "after"},
    "all": {"block": "add", "inputs": ["down", "fine"]},
    "last": conv(),
}
FIELDS = {
    "narrow.conv": 1,
    "wide.conv": 9,
    "sum.sum": 9,
    "side.conv": 3,
    "both": 3,
    "after.conv": 5,
    "down.conv": 11,
    "fine.body.pool": 8,
    "all.sum": 12,
    "last.conv": 16,
}
"""By hand."""


def test_the_receptive_field_of_every_branch_is_what_the_gradient_sees() -> None:
    info = replace(GREY, shape=(1, 64, 64))
    network = build(BRANCHES, info)
    fields, widest = receptive_fields(network, info.shape)
    assert {name: fields[name] for name in FIELDS} == FIELDS
    for name in FIELDS:
        assert fields[name] == seen_pixels(network, 64, name), name
    assert widest == FIELDS["last.conv"]


def test_the_receptive_field_leaves_out_what_weighs_whole_channels() -> None:
    layers = {"a": conv(), "weights": {"block": "squeeze_excite", "ratio": 2}, "b": conv()}
    fields, widest = receptive_fields(build(layers), INFO.shape)
    assert (fields["weights.weights.excite"], fields["b.conv"], widest) == (3, 5, 5)


def test_a_branch_after_a_global_pooling_does_not_count() -> None:
    layers = {
        "a": conv(),
        "pooled": {"block": "avg_pool", "kernel_size": 16},
        "b": conv(input="a", stride=16, kernel_size=3),
        "all": {"block": "add", "inputs": ["pooled", "b"]},
        "c": conv(),
    }
    assert receptive_fields(build(layers), INFO.shape)[1] == 5 + 2 * 16


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"a": conv(), "b": conv(input="c")}, "model.layers.b.input must be one of image, a, got 'c'."),
        ({"conv1": conv(), "b": conv(input="conv")}, "must be one of image, conv1, got 'conv'. Did you mean conv1?"),
        ({"a": conv(input="b"), "b": conv()}, "model.layers.a.input must name an earlier layer, got 'b'. Move b above a."),
        ({"a": conv(), "b": conv(input="b")}, "model.layers.b.input must name an earlier layer, got 'b'. Name another."),
        ({"a": conv(input=3)}, "model.layers.a.input must be a string, got 3. Give the name of an earlier layer, or image."),
        ({"a": conv(), "b": conv(inputs=["a", "image"])}, "model.layers.b.inputs must not be set for conv, which has one input"),
        ({"a": conv(), "s": {"block": "add"}}, "model.layers.s.inputs must be given, got nothing. Name the layers"),
        ({"a": conv(), "s": {"block": "add", "inputs": "a"}}, "model.layers.s.inputs must be a list, got 'a'. Give two or more"),
        ({"a": conv(), "s": {"block": "add", "inputs": ["a"]}}, "model.layers.s.inputs must have at least 2 entries, got ['a']"),
        ({"a": conv(), "s": {"block": "add", "inputs": ["a", "a"]}}, "inputs must name each layer once, got ['a', 'a']."),
        ({"a": conv(), "s": {"block": "concat", "input": "a"}}, "model.layers.s.input must not be set for concat, which has sev"),
        ({"a": conv(), "b": conv(), "c": conv(input="a")}, "model.layers.b must be the input of a later layer, got none that"),
        (
            {"a": conv(), "b": conv(out_channels=8, stride=2), "s": {"block": "add", "inputs": ["a", "b"]}},
            "model.layers.s.inputs must have equal shapes, got 'a (4, 16, 16) and b (8, 8, 8)'. Make them equal",
        ),
        (
            {"a": conv(), "b": conv(stride=2), "s": {"block": "concat", "inputs": ["a", "b"]}},
            "model.layers.s.inputs must have equal heights and widths, got 'a (4, 16, 16) and b (4, 8, 8)'.",
        ),
        ({"a": conv(), "f": {"block": "linear", "out_features": 3}}, "f.block must get a flattened input for linear, got '4 × 16"),
        ({"f": {"block": "flatten"}, "a": conv()}, "model.layers.a.block must fit its input, which is flattened, got 'conv'."),
    ],
)  # fmt: skip
def test_each_wrong_input_has_its_message(layers: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(layers)
    assert message in caught.value.problems[0]


def test_flattened_features_can_be_added_concatenated_and_dropped() -> None:
    layers = {
        "flat": {"block": "flatten"},
        "one": {"block": "linear", "out_features": 7, "activation": "prelu"},
        "two": {"block": "linear", "out_features": 7, "input": "flat"},
        "sum": {"block": "add", "inputs": ["one", "two"]},
        "all": {"block": "concat", "inputs": ["sum", "flat"]},
        "drop": {"block": "dropout", "dropout": 0.5, "dropout_channels": True},
        "logits": {"block": "linear", "out_features": "classes"},
    }
    network = build_network(layers, PLAIN, seed=1, info=INFO)
    assert network.get_submodule("logits.linear").in_features == 7 + 256
    assert network(torch.randn(2, *INFO.shape)).shape == (2, 10)
    assert summarise(network, INFO.shape).rows[-1].output_shape == (10,)


YAML = """
# @package _global_
defaults: [model_4_digits]
name: graph
threads: 1
trainer: {limit_epochs: 2, limit_train_images: 96, limit_test_images: 50}
target: {max_params: null, test_accuracy: null, requires: [norm, dropout, gap]}
"""
MODEL = """
name: skips
dropout: 0.1
norm: ghost_batch
activation: prelu
bias: false
order: [conv, norm, activation, dropout]
dropout_channels: true
init: kaiming_normal
layers:
  conv1: {block: conv, out_channels: 6, pool: max}
  left: {block: conv, out_channels: 6, padding: same, padding_mode: reflect}
  right: {block: conv, out_channels: 6, kernel_size: 1, input: conv1}
  sum: {block: add, inputs: [left, right, conv1], activation: relu}
  weights: {block: squeeze_excite, ratio: 2}
  all: {block: concat, inputs: [weights, conv1]}
  residual: {block: residual, out_channels: 8, shortcut: conv, pool: avg, preactivation: true}
  norm: {block: norm}
  relu: {block: activation}
  gap: {block: gap_head, projection: conv}
"""


@pytest.mark.slow
def test_a_run_of_a_graph_is_described_trained_and_replayed_bit_for_bit(command, tmp_path) -> None:
    for folder, name, text in (("experiment", "graph", f"{YAML}"), ("model", "skips", MODEL)):
        (tmp_path / "own" / folder).mkdir(parents=True)
        (tmp_path / "own" / folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    words = ("experiment=graph", "model=skips", "--config-dir", "own")
    code, out, err = command("describe", *words)
    assert code == 0, err
    assert "left, right, conv1" in out
    code, _, err = command(*words, "device=cpu", "hydra.run.dir=run")
    assert code == 0, err
    code, out, err = command("replay", "run")
    assert code == 0, out + err
