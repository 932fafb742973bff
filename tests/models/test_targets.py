"""What a target requires of a network before it is trained."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from era_cnn.config.schema import Requirement
from era_cnn.errors import ConfigError
from era_cnn.models.build import check_network
from era_cnn.models.targets import REQUIREMENTS
from tests.conftest import config_of

HEAD = {"gap": {"block": "gap_head", "projection": "conv"}}
PLAIN = {"conv": {"block": "conv", "out_channels": 8, "norm": "none", "dropout": 0.0}}
LARGE = {"logits": {"block": "conv", "out_channels": "classes", "kernel_size": 28, "bare": True}}

# For each requirement: layers that meet it, layers that do not, and what these have instead.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "norm": ({"a": {"block": "conv", "out_channels": 8, "norm": "group"}, **HEAD}, {**PLAIN, **HEAD}, "none"),
    "dropout": ({"a": {"block": "dropout", "dropout": 0.1}, **HEAD}, {**PLAIN, **HEAD}, "none"),
    "gap": ({**PLAIN, **HEAD}, LARGE, "none"),
    "depthwise": (
        {**PLAIN, "a": {"block": "depthwise_separable", "out_channels": 8}, **HEAD},
        {"a": {"block": "conv", "out_channels": 8, "norm": "none"}, **HEAD},  # one input channel
        "none",
    ),
    "dilation": ({"a": {"block": "conv", "out_channels": 8, "dilation": 2}, **HEAD}, {**PLAIN, **HEAD}, "none"),
    "no_max_pool": ({**PLAIN, "p": {"block": "avg_pool"}, **HEAD}, {**PLAIN, "p": {"block": "max_pool"}, **HEAD}, "p"),
    "no_linear": ({**PLAIN, **HEAD}, {"gap": {**HEAD["gap"], "projection": "linear"}}, "gap.linear"),
}


def check(layers: dict[str, Any], **target: Any) -> None:
    config = config_of("model.dropout=0")
    model = config.model.model_copy(update={"layers": layers})
    check_network(config.model_copy(update={"model": model, "target": config.target.model_copy(update=target)}))


def test_every_requirement_of_the_schema_has_a_check_and_a_case() -> None:
    assert set(get_args(Requirement)) == set(REQUIREMENTS) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_requirement_is_met_or_named(name: str) -> None:
    good, bad, got = CASES[name]
    check(good, requires=[name])
    check(bad, requires=[])
    with pytest.raises(ConfigError) as caught:
        check(bad, requires=[name])
    (said,) = caught.value.problems
    requirement = REQUIREMENTS[name]
    assert said == (
        f"model.layers must have {requirement.what}, the target of model_4, got {got}. {requirement.advice}"
    )


def test_a_pooling_to_one_pixel_of_one_pixel_is_no_global_pooling() -> None:
    with pytest.raises(ConfigError, match="must have global average pooling"):
        check({**LARGE, "gap": {"block": "gap_head"}}, requires=["gap"])


def test_the_smallest_receptive_field() -> None:
    layers = {"a": {**PLAIN["conv"], "dilation": 3}, **HEAD}
    check(layers, min_receptive_field=7)
    with pytest.raises(ConfigError, match="must have a receptive field of at least 8 px, .*, got 7 px. Add layers"):
        check(layers, min_receptive_field=8)


def test_every_part_of_a_target_that_is_missed_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check({**PLAIN, **HEAD}, max_params=1, min_receptive_field=100, requires=["norm", "dropout"])
    assert len(caught.value.problems) == 4
