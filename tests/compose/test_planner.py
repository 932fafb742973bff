from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import open_dict

from era_cnn.compose.complaints import COMMANDS
from era_cnn.compose.composition import compose, experiments, plain, resolved, validated
from era_cnn.compose.words import Words, parse_words, quote
from era_cnn.config.schema import RunConfig
from era_cnn.errors import ConfigError
from tests.conftest import config_of
from tests.helpers import plan_sweep


def jobs_of(*overrides: str) -> list[RunConfig]:
    words = Words(list(overrides))
    return [job.config for job in plan_sweep(words, compose(words, RunMode.MULTIRUN))]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=sdg", "optimizer must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got 'sdg'. Did you mean sgd?"),
        ("optimizer=null", "optimizer must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got null. Choose one: optimizer=adadelta"),
        ("augmentation=null", "got null. Choose one: augmentation=none"),
        ("experiment=null", "got null. To remove it, write ~experiment."),
        ("model=lenet", "got 'lenet'. One of your own is a file model/NAME.yaml in the folder"),
        ("optimizer=3", "optimizer must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got 3."),
        ("experiment=model3", "experiment must be one of cifar10_dilated,"),
        ("experiment=model3", "got 'model3'. Did you mean model_3?"),
        ("optimizer.lrr=1", "optimizer.lrr must be a key of the config, got 1. Did you mean optimizer.lr?"),
        ("optimizr=sgd", "optimizr must be a key of the config, got sgd. Did you mean optimizer?"),
        ("sede=1", "sede must be a key of the config, got 1. Did you mean seed?"),
        ("qqqqqq=1", "qqqqqq must be a key of the config, got 1. See all keys: era-cnn --cfg job"),
        ("~model.layers.conv9", "model.layers.conv9 must be a key of the config, got a deletion. model.layers has conv1, conv2, skip, conv3, pool, conv4, conv5, logits, gap."),
        ("model.layers.conv9.out_channels=3", "got 3. model.layers has conv1, conv2, skip, "),
        ("~trainer.ema_decay", "~trainer.ema_decay must remove a value, got null, which is none. Leave it out."),
        ("~seed=2", "~seed must be given without a value, or with the present one, got 2. It is 1."),
        ("~optimizer=adam", "~optimizer must be given without a value, or with the present one, got adam. To choose another, write optimizer=…"),
        ("optimizer.foo=1", "optimizer.foo must be a key of the config, got 1. optimizer has name, lr, momentum, "),
        ("optimizer.sgd.lr=1", "optimizer.sgd.lr must be a key of the config, got 1. Did you mean optimizer.lr?"),
        ("hydra.foo=1", "hydra.foo must be a key of the config, got 1. See all keys: era-cnn --cfg hydra"),
        ("model.layers.conv1.kernel=3", "got 3. Did you mean +model.layers.conv1.kernel_size?"),
        ("model.layers.conv1.out_chanels=3", "got 3. Did you mean model.layers.conv1.out_channels?"),
        ("model.layers.conv1.nonsense=3", "got 3. model.layers.conv1 has block, out_channels, dropout, "),
        ("augmentation.rotate.degree=3", "got 3. Did you mean augmentation.rotate.degrees?"),
        ("augmentation.cutout.height=3", "got 3. augmentation.cutout is not chosen: write augmentation=cutout."),
        ("augmentation.zoom=3", "got 3. augmentation has rotate."),
        ("logger.wandb.x=3", "got 3. logger.wandb is not chosen: write logger=wandb."),
        ("model.layers.conv1.stride=2", "To add a field to the layer, write +model.layers.conv1.stri"),
        ("optimizer.lr=[", "optimizer.lr=[ must be key=value, got: no viable alternative"),
        ("replai", f"replai must be key=value or one of {COMMANDS}, got neither. Did you mean replay?"),
        ("model.dropout=0.1,0.2", "model.dropout must have one value in a single run, got 0.1,0.2. To sweep over it, "),
        ("optimizer=sgd,adam", "optimizer must have one value in a single run, got sgd,adam. To sweep over it, use -m"),
        ("hydra/launcher=nope", "hydra/launcher must be one of basic"),
        ("hydra.job.name=a,b", "hydra.job.name must have one value for all jobs, got a,b. Start a sweep for each."),
        ("hydra.nope=a,b", "hydra.nope must be a key of the config, got a,b. See all keys: era-cnn --cfg hydra"),
        ("hydra/launcher=nope,basic", "hydra/launcher must have one value for all jobs, got nope,basic."),
        ("+seed=1", "+seed must add what the config lacks, got a key that it has. Write seed=… without +."),
        ("+data=mnist", "data must be chosen once, got two choices. Remove one; on the command line, write data=… without +."),
        ("+experiment=model_3", "experiment must be chosen once, got two choices. Remove one; on the command line, write experiment=…"),
    ],
)  # fmt: skip
def test_hydras_complaints_have_our_form(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(override)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_key_may_belong_to_the_swept_options_alone() -> None:
    swept = ("experiment=cifar10_dilated,cifar10_resnet9", "augmentation.cutout.height=[4,4]", "seed=1,2")
    jobs = jobs_of(*swept)
    assert [job.augmentation.chosen()["cutout"].height for job in jobs] == [[4, 4]] * 4
    assert [(job.name, job.seed) for job in jobs] == [
        (name, seed) for name in ("cifar10_dilated", "cifar10_resnet9") for seed in (1, 2)
    ]
    assert list(compose(Words(list(swept)), RunMode.MULTIRUN).hydra.overrides.task) == list(swept)


def test_a_key_that_one_of_the_swept_options_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="augmentation.cutout.height must be a key of the config"):
        jobs_of("experiment=cifar10_dilated,cifar10_small", "augmentation.cutout.height=[4,4]")


def test_every_override_at_fault_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of("optimizer=sdg", "sede=1", "seed=")
    assert [problem.split()[0] for problem in caught.value.problems] == ["optimizer", "sede"]


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["sede=1", "optimizer.lr=-1", "seed=x"], ["sede", "seed", "optimizer.lr"]),
        (
            ["sede=1", "optimizer=adam", "optimizer.lr=-1", "scheduler.nope=1"],
            ["sede", "scheduler.nope", "optimizer.lr"],
        ),
        (["sede=1", "optimizer=sdg", "optimizer.lr=-1"], ["optimizer", "sede"]),  # another one is meant
        (["sede=1", "data=image_folder"], ["sede", "data.root"]),
        (["sede=1", "seed=1,2", "optimizer.lr=-1"], ["seed", "sede", "optimizer.lr"]),
        (["sede=1", "=0.5", "optimizer.lr=-1"], ["sede"]),
        (["hydra.job.name=a,b", "optimizer.lr=-1"], ["hydra.job.name", "optimizer.lr"]),
        (["hydra.nope=a,b", "optimizer.lr=-1"], ["hydra.nope", "optimizer.lr"]),
    ],
)
def test_a_key_that_there_is_not_hides_no_wrong_value(words: list[str], keys: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*words)
    assert [problem.split()[0] for problem in caught.value.problems] == keys


def test_a_primary_config_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="The config must compose, got: Cannot find primary config 'nope'"):
        compose(Words(config_name="nope"))


def test_a_config_dir_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="--config-dir must be a folder, got 'nope'. Create it."):
        Words.of(parse_words(["--config-dir", "nope"]))


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["seed=1,2", "optimizer=adam,sgd", "model.dropout=0.1"],
        ["optimizer.lr=0.01,0.02", "optimizer=sgd,adam"],
        ["++model.layers.conv1.padding=0,1", "seed=${trainer.epochs}"],
        ["+model.layers.conv1.padding=1", "seed=1,2", "~model.layers.conv5"],
        ["model.layers.conv1={block:conv,out_channels:8},{block:conv,out_channels:9}"],
        ["hydra.sweep.subdir=${hydra.job.override_dirname}", "seed=1,2"],
        ["hydra.sweep.subdir=${hydra:job.num}_${seed}", "seed=range(2)", "scheduler=glob(*,exclude=plateau)"],
        ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=1,2", "trainer.epochs=3"],
        ["trainer.limit_train_images=null,64", "target={max_params:null,max_epochs:null,test_accuracy:0.9}"],
    ],
)
def test_a_job_is_composed_as_hydra_would_compose_it(words: list[str]) -> None:
    typed = Words(["experiment=model_4_digits", *words])
    jobs = plan_sweep(typed, compose(typed, RunMode.MULTIRUN))
    assert len(jobs) > 1
    of_hydra = [word for word in words if word.startswith("hydra.")]
    for job in jobs:
        alone = compose(Words([*of_hydra, *job.overrides]))
        with open_dict(alone):
            alone.hydra.job.num = alone.hydra.job.id = job.number
        assert job.values() == plain(alone)
        assert job.config == validated(alone)
        assert job.folder == resolved(alone, "hydra.sweep.subdir")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model.dropout=0.1,0.2", "++model.dropout=0.3"],
            "model.dropout must be given once, got model.dropout=0.1,0.2 and ++model.dropout=0.3. Remove all but one.",
        ),
        (
            ["model.layers.conv5.out_channels=8,9", "~model.layers.conv5"],
            "model.layers.conv5.out_channels must be used without ~model.layers.conv5, got both. Remove one.",
        ),
    ],
)
def test_keys_that_contradict_each_other(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jobs_of("experiment=model_4_digits", *words)
    assert caught.value.problems[0].startswith(said)


def test_a_sweep_may_add_and_delete() -> None:
    jobs = jobs_of("+model.layers.conv1.stride=1,2", "~model.layers.conv5", "experiment=model_3")
    assert [job.model.layers["conv1"]["stride"] for job in jobs] == [1, 2]
    assert "conv5" not in jobs[0].model.layers


def test_the_problems_of_all_jobs_are_said_once_each_with_the_jobs_that_have_them() -> None:
    with pytest.raises(ConfigError) as caught:
        jobs_of("model.dropout=0.1,7", "optimizer.lr=0.1,-2", "seed=-1")
    assert [problem.partition(", got")[0] for problem in caught.value.problems] == [
        "seed must be at least 0",
        "In job 1 (model.dropout=0.1, optimizer.lr=-2, seed=-1) and 1 more: optimizer.lr must be greater than 0",
        "In job 2 (model.dropout=7, optimizer.lr=0.1, seed=-1) and 1 more: model.dropout must be less than 1",
    ]


def test_a_key_that_only_some_jobs_have() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.momentum must be a key of the config, got 0.5"):
        jobs_of("optimizer=sgd,adam", "optimizer.momentum=0.5")


def test_a_sweep_over_an_unknown_option_or_key() -> None:
    with pytest.raises(
        ConfigError,
        match="optimizer must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got 'sdg'",
    ):
        jobs_of("optimizer=sgd,sdg")
    with pytest.raises(ConfigError, match="sede must be a key of the config, got 1. Did you mean seed?"):
        jobs_of("sede=1,2")


def test_folders_are_named_by_date_time_and_experiment() -> None:
    composed = compose(Words(["experiment=model_3"]))
    assert Path(resolved(composed, "hydra.run.dir")).match("outputs/????-??-??/??-??-??_model_3")


def test_a_config_may_hold_what_is_swept(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nname: mine\nhydra: {sweeper: {params: {seed: '1,2', model.dropout: '0.1,0.2'}}}\n",
        encoding="utf-8",
    )
    words = Words(["experiment=mine", "seed=7"], config_dir=str(tmp_path / "conf"))
    jobs = [job.config for job in plan_sweep(words, compose(words, RunMode.MULTIRUN))]
    assert [(job.seed, job.model.dropout) for job in jobs] == [(7, 0.1), (7, 0.2)]


def own_conf(tmp_path: Path, **files: str) -> str:
    """A folder of the user's own; `group__name` holds the text of `group/name.yaml`."""
    for name, text in files.items():
        path = tmp_path / "own" / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(tmp_path / "own")


TINY = "name: tiny\ndropout: 0.0\nlayers: {c: {block: conv, out_channels: 10}, gap: {block: gap_head}}\n"


def test_options_of_ones_own_are_known_wherever_options_are_listed(tmp_path: Path) -> None:
    folder = own_conf(tmp_path, model__tiny=TINY, experiment__mine="# @package _global_\nname: mine\n")
    assert "mine" in experiments(Words(config_dir=folder))
    with pytest.raises(ConfigError) as caught:
        compose(Words(["model=tiny", "sede=1"], config_dir=folder))
    assert caught.value.problems == ("sede must be a key of the config, got 1. Did you mean seed?",)
    words = Words(["model=glob(t*)"], config_dir=folder)
    (job,) = plan_sweep(words, compose(words, RunMode.MULTIRUN))
    assert job.config.model.name == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "found duplicate key name"),
        ("name: [\n", "while parsing"),
        ("- a\n- b\n", "model/broken.yaml must hold a mapping, got ['a', 'b']."),
        (
            "defaults: [nothing]\nname: x\n",
            "/model in model/broken.yaml must be one of cifar_dilated, cifar_small, model_1",
        ),
    ],
)
def test_a_broken_file_of_ones_own_is_named_with_its_cause(text: str, message: str, tmp_path: Path) -> None:
    folder = own_conf(tmp_path, model__broken=text)
    with pytest.raises(ConfigError) as caught:
        validated(compose(Words(["model=broken"], config_dir=folder)))
    assert message in str(caught.value)
    assert not str(caught.value).startswith("model must be one of")


def test_the_layers_of_a_file_of_ones_own_are_checked_with_all_else(tmp_path: Path) -> None:
    folder = own_conf(tmp_path, model__tiny=TINY.replace("10}", "0}"))
    with pytest.raises(ConfigError) as caught:
        validated(compose(Words(["model=tiny", "seed=-1"], config_dir=folder)))
    assert [problem.split()[0] for problem in caught.value.problems] == ["seed", "model.layers.c.out_channels"]


def test_a_layer_without_a_text_as_its_name(tmp_path: Path) -> None:
    folder = own_conf(tmp_path, model__tiny="name: tiny\nlayers: {1: {block: gap_head}}\n")
    with pytest.raises(ConfigError, match="model.layers.1 must be a string, got 1. Give layers by name"):
        validated(compose(Words(["model=tiny"], config_dir=folder)))


def test_a_model_needs_no_more_than_a_name_and_layers(tmp_path: Path) -> None:
    folder = own_conf(tmp_path, model__tiny=TINY)
    config = validated(compose(Words(["model=tiny", "~experiment"], config_dir=folder)))
    assert (config.model.norm, config.model.activation, config.name) == ("batch", "relu", "tiny")
