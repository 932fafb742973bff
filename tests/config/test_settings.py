from __future__ import annotations

import random
from typing import Any

import pytest

from era_cnn.config.schema import RunConfig
from era_cnn.config.settings import Setting, setting_of
from era_cnn.config.versions import digest
from tests.reports.made import config_with

CONV = {"block": "conv", "out_channels": 10, "bare": True}
CHANGES: list[tuple[str, Any]] = [
    ("seed", 2), ("seed", 3), ("name", "other"), ("model.name", "other"), ("trainer.name", "other"),
    ("trainer.checkpoint_every_seconds", 1.0), ("optimizer.lr", 0.02), ("optimizer.lr", 0.020), ("threads", 2),
    ("precision", "bf16"), ("precision", None), ("data.val_size", 100), ("data.val_size", None),
    ("model.layers.conv1.out_channels", 6), ("model.layers.logits", CONV), ("model.layers.logits", {**CONV, "bias": True}),
    ("augmentation", {}), ("augmentation", None), ("augmentation.rotate.degrees", 8.0),
    ("scheduler", {"name": "constant"}), ("target.test_accuracy", 0.5), ("trainer.limit_test_images", 50),
]  # fmt: skip


def setting(config: RunConfig) -> Setting:
    return setting_of(config.model_dump(), type(config))


@pytest.mark.parametrize("number", range(60))
def test_settings_are_equal_exactly_if_only_what_changes_no_result_and_the_seed_differ(number: int) -> None:
    """The digest of configs says what can change a result."""
    chosen = random.Random(number)
    one, other = (config_with(dict(chosen.sample(CHANGES, chosen.randrange(3)))) for _ in range(2))
    without_seeds = [digest(config.model_copy(update={"seed": 0})) for config in (one, other)]
    assert (setting(one).sha256 == setting(other).sha256) == (without_seeds[0] == without_seeds[1])
    assert (setting(one).values == setting(other).values) == (without_seeds[0] == without_seeds[1])


def test_the_order_of_layers_and_transforms_matters_and_no_other() -> None:
    values = config_with().model_dump()
    layers, transforms = values["model"]["layers"], {**values["augmentation"], "affine": {"degrees": 1.0}}
    plain = setting_of({**values, "augmentation": transforms})
    backwards = [
        {**values, "augmentation": dict(reversed(transforms.items()))},
        {**values, "augmentation": transforms, "model": {**values["model"], "layers": dict(reversed(layers.items()))}},
    ]
    assert len({plain.sha256, *(setting_of(each).sha256 for each in backwards)}) == 3
    assert plain.values["augmentation"] == "[rotate,affine]"
    assert setting_of(dict(reversed(list({**values, "augmentation": transforms}.items())))).sha256 == plain.sha256


def test_keys_and_values_are_those_that_are_typed() -> None:
    values = setting(config_with({"name": "mine", "model.dropout": 0, "augmentation": {}}))
    shown = {
        key: values.values[key]
        for key in ("optimizer", "optimizer.lr", "augmentation", "model.order", "model.bias", "model.dropout")
    }
    assert shown == {
        "optimizer": "sgd", "optimizer.lr": "0.01", "augmentation": "none",
        "model.order": "[conv,activation,norm,dropout]", "model.bias": "false", "model.dropout": "0",
    }  # fmt: skip
    assert (values.seed, values.labels["experiment"], values.labels["model"]) == (1, "mine", "model_4")


@pytest.mark.parametrize("key", ["name", "model.name", "trainer.name", "trainer.checkpoint_every_seconds", "data.root"])
def test_a_config_whose_plugin_is_missing_has_the_same_setting(key: str) -> None:
    """Its schema is not known then, but what changes no result is."""
    config = config_with()
    values = config.model_dump()
    assert setting_of(values) == setting(config)
    section, _, name = key.rpartition(".")
    (values[section] if section else values)[name] = "other"
    assert setting_of(values).sha256 == setting(config).sha256
