"""Whatever a user writes counts, or is refused: nothing is ignored, and nothing merged where it was to replace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.compose.yamlfiles import OwnFiles
from era_cnn.errors import ConfigError
from tests.conftest import MODELS

HEADER = "# @package _global_\n"
LAYERS = "layers: {c: {block: conv, out_channels: 10}, gap: {block: gap_head}}"
TINY = f"name: tiny\n{LAYERS}\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def write(own: Path, name: str, text: str) -> Path:
    path = own / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def started(*arguments: object, **options: object) -> None:
    raise AssertionError("accepted")


def refused(command: Any, *words: str) -> str:
    with pytest.MonkeyPatch.context() as patch:  # or a config that is accepted would be trained
        for place in ("era_cnn.runs.start.start", "era_cnn.sweeps.commands.claim"):
            patch.setattr(place, started)
        code, _, err = command("--config-dir", "own", *words)
    assert code == 2, err
    assert " must " in err
    assert not {"outputs", "multirun"} & set(os.listdir())
    return str(err)


# Choices


@pytest.mark.parametrize("how", [[], ["-m", "seed=1,2"], ["describe"], ["--cfg", "job"]], ids=str)
@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("model", "model_3,model_4"),
        ("data", "digits,mnist"),
        ("optimizer", "sgd,adam"),
        ("scheduler", "step,cosine"),
        ("trainer", "default,smoke"),
        ("experiment", "model_3,model_4"),
        ("sweep", "default,seeds"),
        ("hydra/launcher", "basic,local"),
        ("hydra/sweeper", "basic,optuna"),
    ],
)
def test_a_group_that_takes_one_choice_takes_no_list(group: str, names: str, how: list[str], own, command) -> None:
    got = names.replace(",", ", ")
    err = refused(command, *how, f"{group}=[{names}]")
    assert f"{group} must be one choice, got [{got}]. Choose one: {group}=" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["augmentation=[rotate,affine,rotate]"], "augmentation must name rotate once, got [rotate, affine, rotate]. Write"),
        (["logger=[tensorboard,tensorboard]"], "logger must name tensorboard once, got [tensorboard, tensorboard]. Remove"),
    ],
)  # fmt: skip
def test_an_option_that_is_listed_twice_is_not_silently_used_once(command, own, words, said) -> None:
    assert said in refused(command, *words)


def test_a_list_in_a_file_is_refused_as_well(own: Path, command) -> None:
    write(own, "experiment/mine.yaml", HEADER + "defaults: [{override /model: [model_3, model_4]}]\nname: mine\n")
    assert "model must be one choice, got [model_3, model_4]." in refused(command, "experiment=mine")


def test_a_list_that_is_swept_over_is_refused_as_well(own: Path, command) -> None:
    assert "model must be one choice" in refused(command, "-m", "data=digits", "model=[model_3,model_4],model_2")


def test_a_typo_in_a_list_is_found(own: Path, command) -> None:
    err = refused(command, "augmentation=[rotate,afine]")
    assert err.startswith("augmentation must be one of affine, auto_augment, ")
    assert err.endswith(", got 'afine'. Did you mean affine?\n")


def test_lists_of_transforms_and_inherited_experiments_are_still_accepted(own: Path) -> None:
    write(own, "experiment/base.yaml", HEADER + "name: base\nseed: 5\n")
    write(own, "experiment/mine.yaml", HEADER + "defaults: [model_3, base]\nname: mine\n")
    config = validated(compose(Words(["experiment=mine", "augmentation=[rotate,affine]"], config_dir="own")))
    assert (config.name, config.seed, config.model.name) == ("mine", 5, "model_3")
    assert list(config.augmentation.chosen()) == ["rotate", "affine"]


# Networks


@pytest.mark.parametrize(
    "body",
    [
        f"model: {{name: tiny, {LAYERS}}}",
        f"model: {{{LAYERS}}}",
        "model: {layers: {conv1: {block: conv, out_channels: 8}, gap: {block: gap_head}}}",
        f"defaults: [model_3]\nmodel: {{name: tiny, {LAYERS}}}",
        f"defaults: [{{override /model: model_2}}]\nmodel: {{name: tiny, {LAYERS}}}",
    ],
)
@pytest.mark.parametrize("group", ["experiment", "trainer", "sweep"])
def test_a_network_in_another_file_is_refused(body: str, group: str, own: Path, command) -> None:
    if group != "experiment" and "defaults" in body:
        body = body.partition("\n")[2]
    write(own, f"{group}/mine.yaml", f"{HEADER}{body}\n")
    err = refused(command, f"{group}=mine")
    assert f"{group}/mine.yaml must not hold a network of its own, which would be merged into model/model_" in err
    assert "To use it as written, add override /model: null to its defaults" in err


def test_a_network_in_a_primary_config_is_refused(own: Path, command) -> None:
    write(own, "mine.yaml", f"defaults: [config, _self_]\nmodel: {{{LAYERS}}}\n")
    assert "mine.yaml must not hold a network of its own" in refused(command, "--config-name", "mine")


def test_a_network_is_not_merged_into_that_of_another_experiment(own: Path, command) -> None:
    body = f"defaults: [{{override /model: null}}]\nmodel: {{{TINY.strip().replace(chr(10), ', ')}}}\n"
    write(own, "experiment/base.yaml", f"{HEADER}{body}")
    write(own, "experiment/mine.yaml", f"{HEADER}defaults: [base]\nmodel: {{layers: {{d: {{block: gap_head}}}}}}\n")
    assert list(validated(compose(Words(["experiment=base"], config_dir="own"))).model.layers) == ["c", "gap"]
    assert "would be merged into experiment/base, got the layers d." in refused(command, "experiment=mine")


@pytest.mark.parametrize("key", ["model={name:a,layers:LAYERS}", "model.layers=LAYERS"])
@pytest.mark.parametrize("sign", ["++", "+"])
def test_a_network_on_the_command_line_is_refused(sign: str, key: str, own: Path, command) -> None:
    err = refused(command, sign + key.replace("LAYERS", "{c:{block:conv,out_channels:10}}"))
    assert "must not be a network, which would be merged into the chosen one, got the layers c." in err


def test_changes_of_a_network_are_still_accepted(own: Path) -> None:
    body = "defaults: [model_4]\nname: mine\nmodel: {dropout: 0.25, layers: {conv1: {out_channels: 9}}}\n"
    write(own, "experiment/mine.yaml", HEADER + body)
    write(own, "model/wide.yaml", "defaults: [model_4]\nname: wide\nlayers: {conv6: {block: conv, out_channels: 8}}\n")
    model = validated(compose(Words(["experiment=mine"], config_dir="own"))).model
    assert (model.dropout, model.layers["conv1"]["out_channels"], len(model.layers)) == (0.25, 9, 9)
    assert "conv6" in validated(compose(Words(["model=wide"], config_dir="own"))).model.layers
    assert "new" in validated(compose(Words(["+model.layers.new={block: conv, out_channels: 8}"]))).model.layers


# Headers and defaults


@pytest.mark.parametrize("header", ["", "# @package experiment\n", "# package _global_\n", "#" * 600 + f"\n{HEADER}"])
def test_an_experiment_without_its_header_is_refused(header: str, own: Path, command) -> None:
    write(own, "experiment/mine.yaml", f"{header}name: mine\nseed: 7\n")
    err = refused(command, "experiment=mine")
    assert err.startswith("experiment/mine.yaml must begin with # @package _global_, got the package experiment.")


def test_an_experiment_without_its_header_is_refused_whatever_it_overrides(own: Path, command) -> None:
    write(own, "experiment/mine.yaml", "defaults: [{override /model: model_3}]\nname: mine\n")
    err = refused(command, "experiment=mine")
    assert err.startswith("experiment/mine.yaml must begin with # @package _global_, got the package experiment. Add")


@pytest.mark.parametrize(
    ("default", "message"),
    [
        ("{model: model_3}", "/experiment/model in experiment/mine.yaml must be a group, got no such group. Did you mean override /model?"),
        ("{/model: model_3}", "/model in experiment/mine.yaml must be overridden, since it is chosen already, got /model: model_3. Write override /model: model_3"),
        ("{/model: null}", "got /model: null. Write override /model: null"),
        ("{override /modell: model_3}", "/modell in experiment/mine.yaml must be a group, got no such group. Did you mean override /model?"),
        ("{override /qqqq: model_3}", "/qqqq in experiment/mine.yaml must be a group, got no such group. Choose one: override /augmentation"),
        ("{override /model: model_33}", f"/model in experiment/mine.yaml must be one of {MODELS}, got 'model_33'. Did you mean model_3?"),
        ("{override /optimizer: SGD}", "got 'SGD'. Did you mean sgd?"),
        ("{override /augmentation: [rotate, cutuot]}", "/augmentation in experiment/mine.yaml must be one of "),
        ("model_44", "/experiment in experiment/mine.yaml must be one of "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("experiment", ["mine", "above", "mine,model_4"])
def test_a_mistake_in_the_defaults_of_a_file_is_explained(
    default: str, message: str, experiment: str, own: Path, command
) -> None:
    write(own, "experiment/mine.yaml", f"{HEADER}defaults: [{default}]\nname: mine\n")
    write(own, "experiment/above.yaml", f"{HEADER}defaults: [mine]\nname: above\n")
    sweep = ["-m"] if "," in experiment else []
    assert message in refused(command, *sweep, f"experiment={experiment}")


def test_a_file_of_another_group_that_builds_upon_nothing_is_explained(own: Path, command) -> None:
    write(own, "model/mine.yaml", "defaults: [model_44]\nname: mine\n")
    message = f"/model in model/mine.yaml must be one of {MODELS}, got 'model_44'. Did you mean model_4?"
    assert refused(command, "model=mine").startswith(message)


@pytest.mark.parametrize(
    ("file", "text", "words", "message"),
    [
        ("experiment/mine.yaml", f"{HEADER}trainer: {{epochz: 2}}", "experiment=mine", "got 2. Did you mean epochs? It is in experiment/mine.yaml."),
        ("experiment/mine.yaml", f"{HEADER}seed: -1", "experiment=mine", "It is in experiment/mine.yaml."),
        ("optimizer/mine.yaml", "defaults: [sgd]\nname: sgd\nlr: -3", "optimizer=mine", "It is in optimizer/mine.yaml."),
        ("trainer/smoke.yaml", "defaults: [default]\neval_batch_size: 0", "trainer=smoke", "It is in trainer/smoke.yaml."),
        ("augmentation/mine.yaml", "defaults: [rotate]\nrotate: {degrees: no}", "augmentation=mine", "It is in augmentation/mine.yaml."),
        ("augmentation/mine.yaml", "rotate: {degrees: '${name}'}", "augmentation=mine", "It is in augmentation/mine.yaml."),
        ("experiment/mine.yaml", f"{HEADER}scheduler: ${{model.dropout}}", "experiment=mine", "It is in experiment/mine.yaml."),
    ],
)  # fmt: skip
def test_a_wrong_key_in_a_file_is_reported_with_the_file(
    file: str, text: str, words: str, message: str, own: Path, command
) -> None:
    write(own, file, f"{text}\n")
    assert refused(command, words).endswith(f"{message}\n")


def test_a_wrong_value_may_be_an_interpolation_of_the_command_line(own: Path, command) -> None:
    write(own, "experiment/mine.yaml", f"{HEADER}seed: 3\n")
    err = refused(command, "experiment=mine", "trainer.required_train_accuracy=${..name}")
    assert err.startswith("trainer.required_train_accuracy must be a number, got ")
    assert err.count("\n") == 1


def test_the_path_of_a_folder_may_look_like_an_interpolation(tmp_path: Path, command) -> None:
    own = tmp_path / "${name}"
    write(own, "experiment/mine.yaml", f"{HEADER}seed: -1\n")
    code, _, err = command("--config-dir", str(own), "experiment=mine")
    assert code == 2, err
    assert err.startswith("seed must ")
    assert err.endswith("It is in experiment/mine.yaml.\n")


@pytest.mark.parametrize("words", ["optimizer.lr=-4", "optimizer=adam"])
def test_a_key_that_the_command_line_sets_is_not_that_of_a_file(words: str, own: Path, command) -> None:
    write(own, "experiment/mine.yaml", f"{HEADER}seed: 3\noptimizer: {{lr: -3}}\n")
    err = refused(command, "experiment=mine", words)
    assert err.endswith(" It is in experiment/mine.yaml.\n") == (words == "optimizer=adam")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", "sede must be a key of the config"),
        ("seed: 1\nseed: 2", "found duplicate key seed"),
        ("trainer: {epoch: 1}", "trainer.epoch must be a key of trainer"),
        ("optimizer: {lr: 1, lr: 2}", "found duplicate key lr"),
        (
            "hydra: {sweep: {mode: 777}}",
            "In 'experiment/mine': ConfigKeyError raised while composing config: Key 'mode'",
        ),
        ("hydra: {lancher: {}}", "Key 'lancher' not in 'HydraConf'"),
    ],
)
def test_a_key_that_nobody_reads_is_refused(text: str, message: str, own: Path, command) -> None:
    write(own, "experiment/mine.yaml", f"{HEADER}{text}\n")
    assert message in refused(command, "experiment=mine")


# The command line


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1", "seed=2"],
        ["model=model_3", "model=model_4"],
        ["optimizer.lr=0.1", "++optimizer.lr=0.2"],
        ["hydra.run.dir=a", "hydra.run.dir=b"],
    ],
)
@pytest.mark.parametrize("how", [[], ["-m"], ["describe"], ["--cfg", "job"]], ids=str)
def test_a_key_is_typed_once(how: list[str], words: list[str], own, command) -> None:
    key = words[0].partition("=")[0]
    assert f"{key} must be given once, got {' and '.join(words)}. Remove all but one." in refused(command, *how, *words)


def test_the_same_override_twice_is_accepted() -> None:
    assert validated(compose(Words(["seed=3", "seed=3"]))).seed == 3


def test_a_layer_may_be_deleted_and_written_anew_in_a_single_run() -> None:
    words = ["~model.layers.conv1", "+model.layers.conv1={block: conv, out_channels: 8}"]
    assert next(reversed(validated(compose(Words(words))).model.layers)) == "conv1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.retries=1"], "sweep.retries must be used with a sweep, got a single run."),
        (["sweep=default"], "sweep must be used with a sweep"),
        (["hydra/launcher=local"], "hydra/launcher must be used with a sweep"),
        (["hydra/launcher=local", "hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs must be used with a sweep"),
        (["+hydra.launcher.setup=[reboot]"], "hydra.launcher.setup must be used with a sweep"),
        (["hydra/sweeper=optuna"], "hydra/sweeper must be used with a sweep"),
        (["hydra.sweep.dir=a"], "hydra.sweep.dir must be used with a sweep"),
        (["-m", "hydra.run.dir=a"], "hydra.run.dir must be used with a single run, got a sweep. Set hydra.sweep.dir."),
        (["-m", "sweep.reuse_from=[a]"], "sweep.reuse_from must be used with sweep.reuse=true"),
        (["-m", "hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs must be a key of the config, got 2."),
        (["-m", "+hydra.sweeper.x=2"], "hydra.sweeper.x must be a key of hydra/sweeper=basic (params), got 2."),
    ],
)
def test_an_option_without_effect_is_refused(words: list[str], message: str, own, command) -> None:
    assert message in refused(command, *words)


def test_a_run_without_hydras_files_is_one(command) -> None:
    words = ["data=digits", "trainer=smoke", "trainer.limit_train_images=64", "threads=1", "hydra.run.dir=run"]
    assert command(*words, "hydra.output_subdir=null")[0] == 0
    assert not list(Path("run/.hydra").iterdir())
    assert command(*words[:-1], "hydra.run.dir=other")[0] == 0
    assert len(list(Path("other/.hydra").iterdir())) == 3


# Files


def test_a_file_with_the_name_of_a_packaged_one_takes_its_place(own: Path) -> None:
    write(own, "model/model_4.yaml", TINY)
    write(own, "sweep/default.yaml", "name: default\nretries: 2\n")
    composed = compose(Words(config_dir="own"))
    assert (list(composed.model.layers), composed.sweep.retries) == (["c", "gap"], 2)


@pytest.mark.parametrize("suffix", [".yml", ".YAML", ".Yml"])
@pytest.mark.parametrize("name", ["model_4", "mine"])
@pytest.mark.parametrize("words", [["seed=1"], ["experiment=mine"], ["models"], ["--cfg", "job"], ["-m", "seed=1,2"]])
def test_a_file_with_another_suffix_is_refused(words: list[str], name: str, suffix: str, own: Path, command) -> None:
    path = write(own, f"experiment/{name}{suffix}", f"{HEADER}name: mine\n")
    err = refused(command, *words)
    assert f"{path} must end in .yaml, or it would be ignored, got {suffix}. Rename it to {name}.yaml." in err


def test_only_the_folder_itself_may_hold_other_files(own: Path, command) -> None:
    write(own, "mkdocs.yml", "site: x\n")
    write(own, "README.md", "x\n")
    write(own, "model/README.md", "x\n")
    assert command("--config-dir", "own", "--cfg", "job")[0] == 0


@pytest.mark.parametrize("words", [[], ["-m", "seed=1,2"], ["describe"], ["--cfg", "job"], ["models"]], ids=str)
@pytest.mark.parametrize("name", ["config.yaml", "config.yml", "hydra/config.yaml"])
def test_a_file_that_would_replace_what_all_configs_build_on_is_refused(name, words, own: Path, command) -> None:
    path = write(own, name, "seed: 2\n")
    rule = f"be under another name, since all configs build on one of this name, got {path.name}. "
    err = refused(command, *words)
    assert err.startswith(f"{path} must {rule}"), err
    assert err.count("\n") == 1


@pytest.mark.parametrize("group", ["hydra/launcher", "hydra/sweeper"])
def test_a_basic_launcher_or_sweeper_of_ones_own_is_refused(group: str, own: Path, command) -> None:
    path = write(own, f"{group}/basic.yaml", "n_jobs: 1\n")
    err = refused(command, "-m", "seed=1,2")
    assert err.startswith(f"{path} must be under another name, since "), err
    assert err.endswith(f"got basic.yaml. Rename it, and choose it with {group}=NAME.\n")


def test_a_package_of_config_groups_replaces_nothing_that_all_configs_build_on(install, tmp_path: Path) -> None:
    groups = tmp_path / "site" / "demo_groups"
    for name in ("config.yaml", "hydra/config.yaml", "hydra/launcher/basic.yaml"):
        write(groups, name, "seed: 2\n")
    write(groups, "__init__.py", "")
    write(groups, "model/mine.yaml", TINY)
    install("demo", {"config.mine": "demo_groups"})
    assert compose(Words(["model=mine", "~experiment"])).model.name == "tiny"
    assert compose(Words()).seed == 1


HIDDEN = ("._model_4.yaml", ".#model_4.yaml", ".hidden/model_4.yaml", ".model_4.yml")


@pytest.mark.slow
def test_hidden_files_are_skipped(own: Path, command) -> None:
    for name in HIDDEN:
        path = write(own, f"experiment/{name}", "\0binary")
        if "#" in name:  # the lock of an editor
            path.unlink()
            path.symlink_to("user@host.1234")
    code, out, err = command("--config-dir", "own", "models", "--json")
    assert (code, err) == (0, "")
    assert "model_4" in [entry["experiment"] for entry in json.loads(out)]
    for name in HIDDEN:
        stem = name.removesuffix(".yaml").removesuffix("/model_4")
        assert "experiment must be one of cifar10_dilated" in refused(command, f"experiment='{stem}'")


KINDS = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("name", ["sgd", "mine"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_and_not_opened(kind: str, name: str, own: Path, command) -> None:
    path = own / "optimizer" / f"{name}.yaml"
    path.parent.mkdir()
    KINDS[kind](path)
    for words in (["optimizer=sgd"], ["optimizer=mine"], ["-m", "seed=1,2"]):
        assert f"{path} must be " in refused(command, *words)


@pytest.mark.parametrize("folder", ["own", "own/model"])
def test_a_folder_that_cannot_be_read_is_refused(folder: str, own: Path, command, monkeypatch) -> None:
    write(own, "model/model_4.yaml", TINY)
    original = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path) == own.parent / folder:
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    err = refused(command, "seed=1")
    assert "must be readable, got: Permission denied. Check its permissions." in err
    assert str(own.parent / folder) in err


@pytest.mark.parametrize("target", ["nowhere", "model"])
def test_a_folder_that_is_a_link_to_nothing_is_refused(target: str, own: Path, command) -> None:
    (own / "model").symlink_to(target)
    assert f"{own / 'model'} must be readable, got: " in refused(command, "seed=1")


def test_a_file_that_cannot_be_read_is_refused(own: Path, command, monkeypatch) -> None:
    path = write(own, "model/model_4.yaml", TINY)
    original = Path.open

    def open_(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_)
    assert f"{path} must be a readable text file, got: Permission denied." in refused(command, "seed=1")


@pytest.mark.parametrize("kind", ["a pipe", "a link to a pipe", "a link to a device", "a folder"])
@pytest.mark.parametrize("place", ["config.yaml", "model/other.yaml", "experiment/model_4.yaml"])
def test_what_looks_like_a_config_and_is_no_file_is_refused_unread(kind: str, place: str, own: Path, command) -> None:
    path = own / place
    path.parent.mkdir(exist_ok=True)
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link to a device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path.with_name("pipe") if "link" in kind else path)
        if "link" in kind:
            path.symlink_to("pipe")
    for words in (["seed=1"], ["-m", "seed=1,2"], ["--cfg", "job"], ["models"], ["describe"]):
        assert f"{path} must be " in refused(command, *words)


@pytest.mark.slow
def test_a_broken_file_is_named_and_the_others_are_listed(own: Path, command) -> None:
    write(own, "experiment/broken.yaml", f"{HEADER}name: [\n")
    write(own, "experiment/wrong.yaml", f"{HEADER}name: wrong\nsede: 1\n")
    write(own, "experiment/mine.yaml", f"{HEADER}defaults: [model_4]\nname: mine\n")
    code, out, err = command("--config-dir", "own", "models", "--json")
    assert code == 2
    names = [entry["experiment"] for entry in json.loads(out)]
    assert {"mine", "model_1", "model_4"} <= set(names)
    assert not {"broken", "wrong"} & set(names)
    broken, wrong = err.splitlines()
    assert broken.startswith("In experiment broken: experiment/broken.yaml must be valid YAML, got: ")
    assert wrong.startswith("In experiment wrong: sede must be a key of the config")
    code, out, _ = command("--config-dir", "own", "models")
    assert (code, "mine" in out) == (2, True)


def test_an_experiment_that_was_removed_is_no_file_that_is_wrong(own: Path, command) -> None:
    err = refused(command, "~experiment", "seeed=1")
    assert err == "seeed must be a key of the config, got 1. Did you mean seed?\n"


def test_hidden_names_are_no_options_of_a_source(own: Path) -> None:
    write(own, "model/._mine.yaml", "x")
    write(own, "model/mine.yaml", TINY)
    source = OwnFiles("command-line", f"file://{own}")
    assert source.list("model", None) == ["mine"]
    assert (source.is_config("model/mine"), source.is_config("model/._mine"), source.is_group("nope")) == (
        True,
        False,
        False,
    )


# Options of a sweep in files

SETS = {
    "sweep.retries": "sweep: {retries: 3}",
    "sweep.on_error": "sweep: {on_error: stop}",
    "hydra.launcher.n_jobs": "hydra: {launcher: {n_jobs: 2}}\ndefaults: [{override /hydra/launcher: local}]",
    "hydra.launcher.name": "defaults: [{override /hydra/launcher: local}]",
    "hydra.sweeper.params.seed": "hydra: {sweeper: {params: {seed: '1,2'}}}",
    "hydra.sweep.dir": "hydra: {sweep: {dir: elsewhere}}",
}


@pytest.mark.parametrize("key", SETS)
def test_an_experiment_that_is_swept_over_sets_no_option_of_the_sweep(key: str, own: Path, command) -> None:
    write(own, "experiment/mine.yaml", f"{HEADER}{SETS[key]}\nname: mine\n")
    err = refused(command, "-m", "data=digits", "experiment=model_4,mine")
    assert f"{key} must be the same for all jobs of a sweep, got " in err
    assert "in job 1 (data=digits, experiment=mine). Give it on the command line: " in err
    assert not Path("elsewhere").exists()


def test_a_typed_option_overrules_those_of_swept_experiments(own: Path, fake_sweep_options) -> None:
    write(own, "experiment/mine.yaml", f"{HEADER}sweep: {{retries: 3}}\nname: mine\n")
    assert fake_sweep_options("experiment=model_4,mine", "sweep.retries=2").sweep.retries == 2


def test_an_experiment_that_is_not_swept_over_sets_the_options(own: Path, fake_sweep_options) -> None:
    text = f"{HEADER}defaults: [{{override /hydra/launcher: local}}]\nsweep: {{retries: 3}}\nname: mine\n"
    write(own, "experiment/mine.yaml", text)
    options = fake_sweep_options("experiment=mine", "seed=1,2")
    assert (options.sweep.retries, type(options.launcher).__name__) == (3, "LocalLauncher")


@pytest.fixture
def fake_sweep_options() -> Any:
    from era_cnn.compose.composition import compose_sweep
    from era_cnn.sweeps.options import sweep_options
    from tests.helpers import plan_sweep

    def plan(*words: str) -> Any:
        typed = Words(["data=digits", *words], config_dir="own")
        composed = compose_sweep(typed)
        assert len(plan_sweep(typed, composed)) == 2
        return sweep_options(composed)

    return plan


def test_a_change_of_a_resumed_sweep_is_typed_once() -> None:
    from era_cnn.compose.changes import parse_changes

    with pytest.raises(ConfigError, match="sweep.retries must be given once"):
        parse_changes(["sweep.retries=1", "sweep.retries=2"])
