from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from era_cnn.composition import Words, compose, output_dir, quote, sweep_jobs, validated
from era_cnn.config import RunConfig
from era_cnn.errors import ConfigError
from tests.conftest import config_of


def jobs_of(*overrides: str) -> list[RunConfig]:
    words = Words(list(overrides))
    return sweep_jobs(words, compose(words, RunMode.MULTIRUN))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=sdg", "optimizer must be one of adam, adamw, sgd, got 'sdg'. Did you mean sgd?"),
        ("optimizer=null", "optimizer must be one of adam, adamw, sgd, got null. Choose one: optimizer=adam"),
        ("optimizer=3", "optimizer must be one of adam, adamw, sgd, got 3."),
        ("experiment=model3", "experiment must be one of model_1, model_2,"),
        ("experiment=model3", "got 'model3'. Did you mean model_3?"),
        ("optimizer.lrr=1", "optimizer.lrr must be a key of the config, got 1. Did you mean optimizer.lr?"),
        ("optimizr=sgd", "optimizr must be a key of the config, got sgd. Did you mean optimizer?"),
        ("sede=1", "sede must be a key of the config, got 1. Did you mean seed?"),
        ("qqqqqq=1", "qqqqqq must be a key of the config, got 1. See all keys: era-cnn --cfg job"),
        ("~model.layers.conv9", "model.layers.conv9 must be a key of the config, got a deletion. Did you mean model."),
        ("model.layers.conv1.stride=2", "To set a field that the layer does not state, write +model.layers.conv1.stri"),
        ("optimizer.lr=[", "optimizer.lr=[ must be key=value, got: no viable alternative"),
        ("resume", "resume must be key=value or one of models, describe, data, got: missing EQUAL"),
        ("model.dropout=0.1,0.2", "model.dropout must have one value in a single run, got 0.1,0.2. To sweep over it, "),
        ("optimizer=sgd,adam", "optimizer must have one value in a single run, got sgd,adam. To sweep over it, add -m"),
        ("hydra/launcher=nope", "hydra/launcher must be one of basic"),
        ("+seed=1", "The config must compose, got: Could not append to config. An item is already at 'seed'."),
    ],
)  # fmt: skip
def test_hydras_complaints_have_our_form(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(override)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_every_override_at_fault_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of("optimizer=sdg", "sede=1", "seed=")
    assert [problem.split()[0] for problem in caught.value.problems] == ["optimizer", "sede"]


def test_a_primary_config_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="The config must compose, got: Cannot find primary config 'nope'"):
        compose(Words(config_name="nope"))


def test_a_config_dir_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="--config-dir must be a folder, got 'nope'. Create it."):
        compose(Words(config_dir="nope"))


def test_a_folder_of_ones_own_adds_options(tmp_path: Path) -> None:
    folder = tmp_path / "it's my conf, 100%"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\nseed: 7\n", encoding="utf-8")
    config = validated(compose(Words(["experiment=mine"], config_dir=str(folder))))
    assert (config.name, config.seed) == ("mine", 7)


@pytest.mark.parametrize("text", ["a b", "it's", 'say "x"', "a=b,c", "{[()]}", "${seed}", "ünï", "a\\b", "a\\", "\\'"])
def test_quoting_keeps_any_text(text: str) -> None:
    override = OverridesParser.create().parse_override(f"name='{quote(text)}'")
    value = override.value()
    assert str(value).replace("\\${", "${") == text


def test_the_jobs_of_a_sweep_are_what_hydra_would_run() -> None:
    words = Words(["experiment=model_3,model_4", "model.dropout=0.05,0.2", "seed=range(2)", "data=digits"])
    jobs = jobs_of(*words.overrides)
    one_by_one = [
        config_of(f"experiment={experiment}", f"model.dropout={dropout}", f"seed={seed}", "data=digits")
        for experiment in ("model_3", "model_4")
        for dropout in (0.05, 0.2)
        for seed in (0, 1)
    ]
    assert jobs == one_by_one


def test_a_sweep_may_add_and_delete() -> None:
    jobs = jobs_of("+model.layers.conv1.stride=1,2", "~model.layers.conv5", "experiment=model_3")
    assert [job.model.layers["conv1"]["stride"] for job in jobs] == [1, 2]
    assert "conv5" not in jobs[0].model.layers


def test_the_problems_of_all_jobs_are_said_once_each() -> None:
    with pytest.raises(ConfigError) as caught:
        jobs_of("model.dropout=0.1,7", "optimizer.lr=0.1,-2,-3")
    assert sorted(problem.split(",")[0].split(". ")[0] for problem in caught.value.problems) == [
        "model.dropout must be less than 1",
        "optimizer.lr must be greater than 0",
        "optimizer.lr must be greater than 0",
    ]


def test_a_sweep_over_an_unknown_option_or_key() -> None:
    with pytest.raises(ConfigError, match="optimizer must be one of adam, adamw, sgd, got 'sdg'"):
        jobs_of("optimizer=sgd,sdg")
    with pytest.raises(ConfigError, match="sede must be a key of the config, got 1,2. Did you mean seed?"):
        jobs_of("sede=1,2")


def test_folders_are_named_by_date_time_and_experiment() -> None:
    composed = compose(Words(["experiment=model_3"]))
    assert Path(output_dir(composed, "hydra.run.dir")).match("outputs/????-??-??/??-??-??_model_3")


def test_a_config_may_hold_what_is_swept(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nname: mine\nhydra: {sweeper: {params: {seed: '1,2', model.dropout: '0.1,0.2'}}}\n",
        encoding="utf-8",
    )
    words = Words(["experiment=mine", "seed=7"], config_dir=str(tmp_path / "conf"))
    jobs = sweep_jobs(words, compose(words, RunMode.MULTIRUN))
    assert [(job.seed, job.model.dropout) for job in jobs] == [(7, 0.1), (7, 0.2)]
