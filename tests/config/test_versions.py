from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import Field, create_model

from era_cnn.config.choices import GROUPS, LOGGERS
from era_cnn.config.network import ModelConfig
from era_cnn.config.parsing import parse
from era_cnn.config.schema import Augmentation, RunConfig, Target
from era_cnn.config.sections import NoEffect, Section, values_of
from era_cnn.config.trainer import TrainerConfig
from era_cnn.config.versions import (
    FORMER_DIGESTS,
    SCHEMA,
    STEPS,
    digest,
    digest_as_schema_1,
    numbered,
    schema_of,
    stored_digest,
    upgraded,
)
from era_cnn.errors import RunFolderError
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from tests.conftest import EXPERIMENTS, WITHOUT_FILES, config_of, option
from tests.helpers import data_for

FORMER = """\
name: model_3
seed: 1
device: cpu
threads: 2
precision: fp32
data:
  name: mnist
  root: /data
  mean: 0.1307
  std: 0.3081
  val_size: 0
augmentation:
  name: rotate
  degrees: 7.0
  fill: 1
model:
  name: model_3
  dropout: 0.1
  norm: batch
  activation: relu
  bias: false
  order:
  - conv
  - activation
  - norm
  - dropout
  layers:
    conv1:
      block: conv
      out_channels: 12
    conv2:
      block: conv
      out_channels: 16
    conv3:
      block: conv
      out_channels: 12
    pool:
      block: max_pool
    conv4:
      block: conv
      out_channels: 16
    conv5:
      block: conv
      out_channels: 16
    logits:
      block: conv
      out_channels: 10
      bare: true
    gap:
      block: gap_head
optimizer:
  name: sgd
  lr: 0.01
  momentum: 0.9
  weight_decay: 0.0
  nesterov: false
scheduler:
  name: step
  every_epochs: 6.0
  gamma: 0.1
trainer:
  name: default
  epochs: 20
  batch_size: 64
  eval_batch_size: 250
  eval_every_epochs: 1
  label_smoothing: 0.0
  checkpoint_every_seconds: 60.0
  cuda_graphs: false
  limit_epochs: null
  limit_train_images: null
  limit_test_images: null
target:
  max_params: 10000
  max_epochs: 20
  test_accuracy: 0.994
"""
"""A config.yaml of schema 1, to the byte as the version before schema 2 wrote it."""

CHANGES: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "rotate": ([], {}, "08519c0234ebd22457390de36fddc46bf32967a44d762a8c077b913c0d302626"),
    "none": (
        ["experiment=model_3_plain", "device=auto"],
        {
            "name": "model_3_plain",
            "device": "auto",
            "augmentation": {"name": "none"},
            "scheduler": {"name": "constant"},
        },
        "35db83e5d955fbd4f351b48c68e3cafad46738ca7910f17c4c3bf30c595a5c36",
    ),
}
"""What else is asked, what another file of schema 1 holds, and the digest that the former version computed itself."""


def former(changes: dict[str, Any]) -> dict[str, Any]:
    return {**yaml.safe_load(FORMER), **changes}


def as_composed(overrides: list[str]) -> RunConfig:
    chosen = {override.partition("=")[0] for override in overrides}
    usual = [each for each in ("experiment=model_3", "device=cpu") if each.partition("=")[0] not in chosen]
    return config_of(*usual, "data.root=/data", *overrides)


@pytest.mark.parametrize("case", CHANGES)
def test_a_config_of_schema_1_comes_to_the_config_of_today(case: str) -> None:
    overrides, changes, _ = CHANGES[case]
    assert parse(upgraded(former(changes))) == as_composed(overrides)


@pytest.mark.parametrize("case", CHANGES)
def test_a_config_of_schema_1_keeps_the_digest_that_its_folder_holds(case: str) -> None:
    _, changes, sha256 = CHANGES[case]
    values = former(changes)
    config = parse(upgraded(values))
    assert stored_digest(values, config) == sha256
    assert stored_digest({"schema": 1, **values}, config) != sha256  # which no version wrote
    assert digest(config) != sha256


@pytest.mark.parametrize("case", CHANGES)
def test_a_config_of_today_comes_to_the_digest_of_schema_1_although_there_are_new_keys(case: str) -> None:
    overrides, _, sha256 = CHANGES[case]
    assert digest_as_schema_1(as_composed(overrides)) == sha256


@pytest.mark.parametrize(
    "override",
    [
        "scheduler.warmup_epochs=1",
        "trainer.drop_last=true",
        "trainer.unaugmented_epochs=2",
        "optimizer.dampening=0.1",
        "+augmentation.second={transform: rotate, degrees: 7.0, fill: 1}",
    ],
)
def test_what_schema_1_could_not_express_had_no_digest_there(override: str) -> None:
    assert digest_as_schema_1(as_composed([override])) is None


def test_the_digest_of_schema_1_is_over_the_file_in_its_order() -> None:
    values = former({})
    config = parse(upgraded(values))
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for key in ("name",):
        del kept[key]
    for section, key in (
        ("data", "root"),
        ("model", "name"),
        ("trainer", "name"),
        ("trainer", "checkpoint_every_seconds"),
    ):
        del kept[section][key]
    expected = hashlib.sha256(json.dumps(kept, separators=(",", ":")).encode()).hexdigest()
    assert stored_digest(values, config) == expected
    turned = dict(reversed(values.items()))
    assert stored_digest(turned, config) != expected
    assert digest(parse(upgraded(turned))) == digest(config)


def test_a_config_of_today_comes_back_and_keeps_its_digest() -> None:
    config = as_composed([])
    values = numbered(config)
    assert next(iter(values)) == "schema"
    assert values["schema"] == SCHEMA
    assert parse(upgraded(values)) == config
    assert stored_digest(values, config) == digest(config)


def test_there_is_a_step_from_each_schema_to_the_next() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA))


@pytest.mark.parametrize(
    "values",
    [{"data": None, "augmentation": None}, {"data": [1], "augmentation": "none"}, {"data": {"mean": "x"}}, {}],
)
def test_what_is_not_a_config_of_schema_1_is_left_to_the_schema(values: dict[str, Any]) -> None:
    assert upgraded(values) == values


@pytest.mark.parametrize("number", [0, -1, "2", 2.0, None, True, [2]])
def test_a_schema_that_is_no_number_is_refused(number: object) -> None:
    with pytest.raises(ValueError, match="a schema number "):
        schema_of({"schema": number})
    with pytest.raises(ValueError, match="a schema number "):
        upgraded({"schema": number})


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (SCHEMA + 1, f"got schema {SCHEMA + 1}, which a newer version of era_cnn wrote: update era_cnn."),
        ("x", "got a schema number 'x'."),
    ],
)
@pytest.mark.parametrize("verb", ["resume", "replay"])
def test_a_folder_of_an_unknown_version_is_refused_and_left_as_it_is(number, said, verb, command, tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    text = yaml.safe_dump({**numbered(as_composed([])), "schema": number}, sort_keys=False)
    (folder.path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"config.yaml must have a known schema, got ") as caught:
        read_config(folder)
    assert said in str(caught.value)
    code, out, err = command(verb, "run")
    assert (code, out) == (4, "")
    assert said in err
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("case", CHANGES)
def test_a_folder_of_schema_1_can_be_read(case: str, tmp_path) -> None:
    overrides, changes, sha256 = CHANGES[case]
    text = yaml.safe_dump(former(changes), sort_keys=False) if changes else FORMER
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    stored = read_config(RunFolder(tmp_path))
    assert (stored.config, stored.sha256) == (as_composed(overrides), sha256)
    moved = read_config(RunFolder(tmp_path), "/elsewhere")
    assert (moved.config.data.root, moved.sha256) == ("/elsewhere", sha256)


def test_the_digest_stays_what_it_is() -> None:
    # Another value here means that no folder of before is taken for what it is: a change of the schema, not a refactoring.
    assert digest(as_composed([])) == "1078616d570e8d70e1dc9ecf7888bc3fbc3304968a3c805188dc83b173626a93"


def test_the_digest_changes_with_what_changes_the_result_and_with_nothing_else() -> None:
    same = digest(config_of())
    for override in ("name=other", "data.root=elsewhere", "model.name=other", "trainer.name=other"):
        assert digest(config_of(override)) == same, override
    for override in ("seed=2", "threads=1", "optimizer=adam", "model.dropout=0.2", "data=digits", "trainer=smoke"):
        assert digest(config_of(override)) != same, override


NO_EFFECT = {
    "logger",
    *(f"logger.{name}" for name in LOGGERS),
    "report",
    "init_from",
    "init_from_checkpoint",
    "name",
    "data.root",
    "model.name",
    "trainer.name",
    "trainer.checkpoint_every_seconds",
    "trainer.profile",
}


def fields_of(config: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each field by its key, and the config with another value there."""
    for name, value in values_of(config).items():
        if isinstance(value, Section) and values_of(value):
            for key, changed in fields_of(value, f"{prefix}{name}."):
                yield key, config.model_copy(update={name: changed})
        elif name == "layers":
            for layer, spec in value.items():
                for field in (*spec, "new"):
                    changed = {**value, layer: {**spec, field: "another value"}}
                    yield f"{prefix}layers.{layer}.{field}", config.model_copy(update={name: changed})
                rest = {other: value[other] for other in value if other != layer}
                yield f"{prefix}layers.{layer}", config.model_copy(update={name: rest})
        else:
            yield prefix + name, config.model_copy(update={name: "another value"})


OPTIONS = [" ".join(option(group, name)) for group, registry in GROUPS.items() for name in registry]
CASES = [*(f"experiment={name}" for name in EXPERIMENTS), *OPTIONS]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_field_counts_that_is_not_marked_as_without_effect(case: str) -> None:
    with data_for(case.partition("=")[2]) as words:
        config = config_of(*case.split(), *words, *WITHOUT_FILES.get(case, ()))
    keys = dict(fields_of(config))
    assert len(keys) > 30
    found = {key for key, changed in keys.items() if digest(changed) == digest(config)}
    assert found == NO_EFFECT & keys.keys()


def test_every_section_is_reached() -> None:
    """So that no kind of section escapes the test above."""
    sections = {type(value) for value in values_of(config_of()).values() if isinstance(value, Section)}
    assert {each for each in sections if each in (ModelConfig, TrainerConfig, Target)} == {
        ModelConfig,
        TrainerConfig,
        Target,
    }
    chosen = [case.partition("=")[2] for case in OPTIONS]
    assert set(chosen) >= {"mnist", "digits", "rotate", "affine", "sgd", "adam", "adamw", "constant", "one_cycle"}


@pytest.mark.parametrize("base", [RunConfig, TrainerConfig, ModelConfig])
def test_a_new_field_at_its_default_changes_no_digest(base: type[Section]) -> None:
    class Extended(base):
        ramp: float = Field(default=0.5, ge=0, le=1)
        inner: Target = Target()

    config = config_of("device=cpu")

    def extended(**more: object) -> RunConfig:
        if base is RunConfig:
            return Extended.model_construct(**values_of(config), **more)
        key = "trainer" if base is TrainerConfig else "model"
        return config.model_copy(update={key: Extended(**values_of(getattr(config, key)), **more)})

    assert digest(extended()) == digest(config)
    assert digest(extended(ramp=0.5)) == digest(config)
    assert digest(extended(ramp=0.6)) != digest(config)
    assert digest(extended(inner=Target(max_params=1))) != digest(config)


def test_a_new_field_that_has_no_effect_changes_no_digest() -> None:
    class Extended(TrainerConfig):
        colour: str = Field(default="red")

    Extended.model_fields["colour"].metadata.append(NoEffect())
    config = config_of()
    trainer = Extended(**values_of(config.trainer), colour="blue")
    assert digest(config.model_copy(update={"trainer": trainer})) == digest(config)


def test_no_augmentation_is_as_if_there_were_no_such_key() -> None:
    config = config_of("experiment=model_3_plain")
    values = config.model_dump()
    assert values.pop("augmentation") == {}
    assert digest(parse(values)) == digest(config)
    assert digest(config.model_copy(update={"augmentation": Augmentation()})) == digest(config)


def turned(values: Any, *, keep: tuple[str, ...] = ()) -> Any:
    """The same values, the keys of each mapping in reverse but for those of the sections to keep."""
    if not isinstance(values, dict):
        return values
    items = values.items() if "." in keep else reversed(values.items())
    return {key: turned(value, keep=(".",) if key in keep else tuple(set(keep) - {"."})) for key, value in items}


def test_the_order_of_keys_does_not_matter() -> None:
    config = config_of("experiment=model_3", "augmentation=[rotate,affine]")
    values = config.model_dump()
    changed = turned(values, keep=("layers", "augmentation"))
    assert list(changed) == list(reversed(values))
    assert list(changed["model"]["layers"]["conv1"]) == ["out_channels", "block"]
    assert list(changed["augmentation"]["affine"]) == list(reversed(values["augmentation"]["affine"]))
    assert list(changed["model"]["layers"]) == list(values["model"]["layers"])
    assert digest(parse(changed)) == digest(config)


def test_the_order_of_the_fields_in_the_schema_does_not_matter() -> None:
    config = config_of()
    fields = {name: (field.annotation, field) for name, field in reversed(TrainerConfig.model_fields.items())}
    trainer = create_model("Reversed", __base__=Section, **fields).model_construct(**values_of(config.trainer))
    assert list(values_of(trainer)) == list(reversed(values_of(config.trainer)))
    assert digest(config.model_copy(update={"trainer": trainer})) == digest(config)


def test_the_order_of_the_layers_matters() -> None:
    values = config_of().model_dump()
    layers = values["model"]["layers"]
    values["model"]["layers"] = dict(reversed(layers.items()))
    assert digest(parse(values)) != digest(config_of())


def test_the_order_of_the_transforms_matters() -> None:
    one, other = (
        config_of("experiment=model_3", f"augmentation=[{each}]") for each in ("rotate,affine", "affine,rotate")
    )
    assert one.augmentation.model_dump() == other.augmentation.model_dump()
    assert digest(one) != digest(other)


@pytest.mark.parametrize(("one", "other"), [("optimizer.lr=1", "optimizer.lr=1.0"), ("data.root=x", "data.root=./x")])
def test_how_a_value_is_written_does_not_matter(one: str, other: str) -> None:
    assert digest(config_of(one)) == digest(config_of(other))


def test_each_former_schema_has_a_step_and_its_digest() -> None:
    former = set(range(1, SCHEMA))
    assert set(STEPS) == former
    assert set(FORMER_DIGESTS) == former
