"""Names from elsewhere lead to ours."""

from __future__ import annotations

from typing import get_args

import pytest

from era_cnn.config.choices import REGISTRIES
from era_cnn.config.network import Activation, Init, Norm
from era_cnn.config.synonyms import OURS, THEIRS, plain, suggestion
from era_cnn.errors import ConfigError
from era_cnn.models.build import check_network
from tests.conftest import config_of

ENTRIES = [
    (kind, ours, theirs)
    for kind, registry in REGISTRIES.items()
    for ours in registry
    for theirs in OURS.get(ours, ())
    if theirs not in registry
]


@pytest.mark.parametrize(("kind", "ours", "theirs"), ENTRIES)
def test_an_entry_is_found_by_each_of_its_names(kind: str, ours: str, theirs: str) -> None:
    said = REGISTRIES[kind].unknown("key", theirs.title().replace("_", ""))
    found = said.partition("Did you mean ")[2].rstrip("?").split(" or ")
    assert ours in found
    assert set(found) <= set(THEIRS[plain(theirs)])


@pytest.mark.parametrize(("ours", "theirs"), [(ours, theirs) for ours, others in OURS.items() for theirs in others])
def test_each_name_leads_to_ours_where_that_is_known(ours: str, theirs: str) -> None:
    assert suggestion(theirs, [ours, "something"], "Nothing.") == f"Did you mean {ours}?"
    assert suggestion(theirs.upper(), [ours], "Nothing.") == f"Did you mean {ours}?"


def test_a_name_does_not_lead_to_one_that_is_not_known_there() -> None:
    assert suggestion("ReduceLROnPlateau", ["adam", "sgd"], "Nothing.") == "Nothing."


def test_every_value_that_has_synonyms_for_norms_and_activations_exists() -> None:
    values = {*get_args(Norm), *get_args(Activation), *get_args(get_args(Init)[0])}
    assert {"batch", "ghost_batch", "group", "layer", "silu", "kaiming_normal", "xavier_uniform"} <= values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("optimizer=SGD", "optimizer must be one of adadelta, adagrad, adam, "),
        ("optimizer=AdamW", "got 'AdamW'. Did you mean adamw?"),
        ("scheduler=OneCycleLR", "got 'OneCycleLR'. Did you mean one_cycle?"),
        ("scheduler=StepLR", "got 'StepLR'. Did you mean step?"),
        ("scheduler.name=CosineAnnealingLR", "got 'CosineAnnealingLR'. Did you mean cosine?"),
        ("augmentation=RandomRotation", "got 'RandomRotation'. Did you mean rotate?"),
        ("data=FashionMNIST", "got 'FashionMNIST'. Did you mean fashion_mnist?"),
        ("model.norm=BatchNorm2d", "model.norm must be one of batch, ghost_batch, group, layer, none, got 'BatchNorm2d'. Did you mean batch?"),
        ("model.activation=LeakyReLU", "got 'LeakyReLU'. Did you mean leaky_relu?"),
        ("model.activation=swish", "got 'swish'. Did you mean silu?"),
        ("+model.init=he_normal", "got 'he_normal'. Did you mean kaiming_normal?"),
        ("model.layers.conv1.block=Conv2d", "got 'Conv2d'. Did you mean conv?"),
        ("model.layers.gap.block=AdaptiveAvgPool2d", "got 'AdaptiveAvgPool2d'. Did you mean gap_head?"),
        ("model.layers.skip.block=SE", "got 'SE'. Did you mean squeeze_excite?"),
        ("+model.layers.conv1.filters=8", "got 8. Did you mean out_channels?"),
        ("+model.layers.conv1.p=0.1", "got 0.1. Did you mean dropout?"),
        ("+model.layers.gap.kernel=3", "model.layers.gap.kernel must be a key of model.layers.gap (projection, bias, input"),
        ("optimizer.learning_rate=0.1", "optimizer.learning_rate must be a key of the config, got 0.1. Did you mean optimizer.lr?"),
        ("learning_rate=0.1", "learning_rate must be a key of the config, got 0.1. Did you mean optimizer.lr?"),
        ("num_epochs=3", "num_epochs must be a key of the config, got 3. Did you mean trainer.epochs?"),
        ("drop_rate=0.1", "drop_rate must be a key of the config, got 0.1. Did you mean model.dropout?"),
        ("scheduler.pct_start=0.3", "scheduler.pct_start must be a key of the config, got 0.3. It belongs to one_cycle: choose scheduler=one_cycle."),
        ("+scheduler.pct_start=0.3", "It belongs to one_cycle: choose scheduler=one_cycle."),
        ("device=gpu", "got 'gpu'. Did you mean cuda?"),
        ("precision=fp16", "got 'fp16'. Did you mean bf16?"),
        ("model.layers.conv2.channels=12", "got 12. Did you mean model.layers.conv2.out_channels?"),
        ("trainer.lr=0.1", "trainer.lr must be a key of the config, got 0.1. Did you mean optimizer.lr?"),
        ("trainer.limit=3", "Did you mean trainer.limit_epochs or trainer.limit_train_images or trainer.limit_test_images?"),
        ("trainer.clip_grad=1", "got 1. Did you mean trainer.clip_grad_norm or trainer.clip_grad_value?"),
        ("optimizer.epochs=3", "optimizer.epochs must be a key of the config, got 3. Did you mean trainer.epochs?"),
        ("+trainer.lr=0.1", "got 0.1. Did you mean optimizer.lr?"),
        ("+optimizer.batch_size=3", "got 3. Did you mean trainer.batch_size?"),
        ("+optimizer.wd=3", "got 3. Did you mean weight_decay?"),
        ("model.init=orthogonal", "model.init must be a key of the config, got orthogonal. It has its default so far; to set it, write +model.init=…"),
    ],
)  # fmt: skip
def test_a_message_recognises_what_is_meant(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_network(config_of(*overrides.split()))
    assert message in str(caught.value)
