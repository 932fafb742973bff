"""Hydra's private names stay in one file, nothing that it composes gets around the guard, and it leaves no traces."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import omegaconf
import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import Container, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import ConfigAttributeError

import era_cnn
from era_cnn.cli import main
from era_cnn.compose import hydra_door, launchers
from era_cnn.compose.composition import compose, compose_sweep, plain, plan_run, resolved, validated
from era_cnn.compose.hydra_door import STAMP, Frozen, Loader, PackagedFiles, require_checked
from era_cnn.compose.interpolation import limited
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words, load, loader_of
from era_cnn.errors import ConfigError

PACKAGE = Path(era_cnn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
DOOR = PACKAGE / "compose" / "hydra_door.py"
SMALL = ["data=digits", "trainer=smoke", "threads=1", "trainer.limit_train_images=64", "trainer.limit_test_images=50"]


@cache
def names_in(path: Path) -> tuple[frozenset[str], tuple[str, ...]]:
    """Every name that a module imports, with the module that it comes from; and what it uses of Hydra's and
    OmegaConf's that is private: imports, class paths, members.
    """
    imports, private = set(), []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("hydra._", "omegaconf._")):
            private.append(str(node.value))
        elif path.parent == DOOR.parent and isinstance(node, ast.Attribute) and is_private(node.attr):
            of_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            private += [] if of_itself else [node.attr]
    private += [name for name in imports if name.split(".")[0] in ("hydra", "omegaconf") and is_private(name)]
    return frozenset(imports), tuple(private)


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_the_package_is_looked_at_whole() -> None:
    assert len(MODULES) > 60
    assert len(set(names_in(DOOR)[1])) > 20


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path != DOOR], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_names_of_hydra_and_omegaconf_are_used_in_one_file(path: Path) -> None:
    assert names_in(path)[1] == ()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_compose_knows_hydra(path: Path) -> None:
    imports, _ = names_in(path)
    roots = {name.split(".")[0] for name in imports}
    if path.parent != DOOR.parent:
        assert "hydra" not in roots
    if path.parent.name == "folders":
        assert "omegaconf" not in roots
        assert not [name for name in imports if name.startswith("era_cnn.compose")]


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "version", "words", "message"),
    [
        ("hydra", "1.4.0", SMALL, "hydra-core must be version 1.3, got '1.4.0'. Install it: pip install 'hydra-core==1.3.*'\n"),
        ("hydra", "1.30.1", ["--help"], "hydra-core must be version 1.3, got '1.30.1'."),
        ("omegaconf", "2.4.0.dev1", ["describe"], "omegaconf must be version 2.3, got '2.4.0.dev1'."),
    ],
)  # fmt: skip
def test_another_hydra_is_refused_at_first_use(module: str, version: str, words: list[str], message: str) -> None:
    program = (
        f"import sys, {module}\n{module}.__version__ = {version!r}\nfrom era_cnn.cli import main\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert os.listdir() == []


AROUND = "A config must pass era_cnn's guard before it is used, got one that Hydra composed without it."

WAYS_IN = {
    "run": SMALL,
    "sweep": ["-m", *SMALL, "seed=1,2"],
    "search": ["-m", *SMALL, "data.val_size=100", "hydra/sweeper=optuna", "seed=1,2"],
    "resume": ["resume", "sweep", "sweep.retries=1"],
    "describe": ["describe"],
    "models": ["models", "--json"],
    "data": ["data", "digits"],
    "cfg": ["--cfg", "job"],
    "help": ["--help"],
    "hydra-help": ["--hydra-help"],
    "info": ["--info", "searchpath"],
    "completion": ["-sc", "query=bash"],
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete sweep of one job."""
    folder = tmp_path_factory.mktemp("complete") / "sweep"
    assert main(["-m", *SMALL, "seed=1", f"hydra.sweep.dir={folder}"]) == 0
    return folder


@pytest.mark.parametrize("way", WAYS_IN)
def test_no_way_in_gets_around_the_guard(
    way: str, command, sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    monkeypatch.setenv("COMP_LINE", "era-cnn optimizer.")
    monkeypatch.setenv("COMP_POINT", "18")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    # As on Hydra's main branch, where what was overridden is no longer called.
    monkeypatch.setattr(Loader, "_load_configuration_impl", ConfigLoaderImpl._load_configuration_impl)
    code, out, err = command(*WAYS_IN[way])
    assert code == 2
    assert err.startswith(AROUND)
    assert err.count("\n") == 1
    assert "sgd" not in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_sweep_whose_jobs_are_composed_around_the_guard_is_refused(
    command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # `models` composes nothing that an earlier test has cached

    def around(loader: Any, words: Words, overrides: Any, mode: Any) -> Any:
        return ConfigLoaderImpl(loader.config_search_path).load_configuration(words.config_name, list(overrides), mode)

    for name in ("composition", "planner"):
        monkeypatch.setattr(f"era_cnn.compose.{name}.load", around)
    for words in ([*SMALL], ["-m", *SMALL, "seed=1,2"], ["describe"], ["models"]):
        code, _, err = command(*words)
        assert (code, AROUND in err) == (2, True), err


def unchecked() -> Any:
    """A config that Hydra's own loader composed."""
    words = Words(SMALL)
    with loader_of(words) as loader:
        plain_loader = ConfigLoaderImpl(loader.config_search_path)
        return plain_loader.load_configuration("config", SMALL, RunMode.RUN)


def test_whoever_uses_a_config_requires_that_it_was_checked(tmp_path: Path) -> None:
    composed = unchecked()
    for use in (
        require_checked,
        validated,
        plain,
        lambda each: resolved(each, "hydra.run.dir"),
        lambda each: plan_run(Words(SMALL), each),
        lambda each: launchers.LauncherPlugin(Words(), each, tmp_path, lambda sweep_dir, path: 0),
        lambda each: launchers._job(lambda sweep_dir, path: 0, each),
    ):
        with pytest.raises(ConfigError, match="must pass era_cnn's guard"):
            use(composed)


def test_no_yaml_can_say_that_it_was_checked() -> None:
    composed = unchecked()
    OmegaConf.update(composed, "era_cnn_checked", True, force_add=True)
    with pytest.raises(ConfigError, match="must pass era_cnn's guard"):
        require_checked(composed)


def test_the_configs_that_a_launcher_plugin_composes_are_checked(tmp_path: Path) -> None:
    composed = compose_sweep(Words([*SMALL, "hydra/launcher=basic"]))
    seen: list[Any] = []

    def do(sweep_dir: Path, path: Path) -> int:
        seen.append((sweep_dir, path))
        return 0

    launchers.LauncherPlugin(Words(), composed, tmp_path / "sweep", do).launch(["a 'b'", "c"], first=0)
    assert seen == [(tmp_path / "sweep", tmp_path / "sweep" / name) for name in ("a 'b'", "c")]


def test_values_that_jobs_are_given_are_checked() -> None:
    words = Words([*SMALL, "model.layers.conv1={block:conv,_target_:a},{block:conv}"])
    with pytest.raises(ConfigError, match=r"model.layers.conv1._target_ must not be given"):
        Planner(words, compose_sweep(words)).plan([("model.layers.conv1={block:conv,_target_:a}",)])


# What is left in the process


def globals_of_hydra() -> tuple[Any, ...]:
    base = hydra_door.version.VersionBase.instance().version_base
    return (
        dict(BaseContainer._resolvers),
        Container.resolve_parse_tree,
        GlobalHydra.instance().hydra,
        HydraConfig.instance().cfg,
        base,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--cfg", "job", "--resolve"],
        ["--help"],
        ["describe", "data=digits"],
        [*SMALL],
        ["-m", *SMALL, "seed=1"],
        ["optimizer=nope"],
    ],
    ids=" ".join,
)
def test_a_command_leaves_hydra_and_omegaconf_as_they_were(words: list[str], command) -> None:
    before = globals_of_hydra()
    command(*words)
    assert globals_of_hydra() == before


@pytest.mark.slow
def test_elsewhere_interpolations_are_omegaconfs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    OmegaConf.register_new_resolver("oc.decode", lambda text: "theirs", replace=True)  # of another library
    config = OmegaConf.create({"read": "${oc.env:SECRET}", "decoded": "${oc.decode:1}", "long": "${read}" * 10_001})
    try:
        with limited():
            with limited():
                pass
            with pytest.raises(
                omegaconf.errors.InterpolationResolutionError, match="must read no environment variable"
            ):
                config.read  # noqa: B018
            elsewhere: list[str] = []
            thread = threading.Thread(target=lambda: elsewhere.extend([config.read, config.decoded, config.long]))
            thread.start()
            thread.join()
            with pytest.raises(Exception, match="must not be used"):
                config.decoded  # noqa: B018
        assert elsewhere == ["x", "theirs", "x" * 10_001]
        assert (config.read, config.decoded) == ("x", "theirs")
    finally:
        OmegaConf.register_new_resolver("oc.decode", omegaconf.resolvers.oc.decode, replace=True)


def test_threads_compose_at_the_same_time() -> None:
    found: dict[int, int] = {}
    before = globals_of_hydra()
    threads = [
        threading.Thread(
            target=lambda seed=seed: found.update({seed: validated(compose(Words([f"seed={seed}"]))).seed})
        )
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: seed for seed in range(6)}
    assert globals_of_hydra() == before


# What is written


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["experiment=model_3", "+model.layers.conv2.stride=1", "name='1e-3'"],
        ["hydra.verbose=true", "hydra.job.name=x"],
    ],
)
def test_a_run_writes_what_hydra_would_write(more: list[str], command, tmp_path: Path) -> None:
    words = [*SMALL, *more, "hydra.run.dir=run"]
    with loader_of(Words()) as loader:
        GlobalHydra.instance().hydra.run("config", lambda config: None, [*words, "hydra.mode=RUN"])
        assert loader is GlobalHydra.instance().hydra.config_loader
    expected = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "run" / ".hydra").iterdir()}
    shutil.rmtree(tmp_path / "run")
    code, _, err = command(*words)
    assert code == 0, err
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "run" / ".hydra").iterdir()}
    assert len(written) == 3
    assert written == expected


def test_loading_is_still_hydras() -> None:
    with loader_of(Words()) as loader:
        assert isinstance(loader, ConfigLoaderImpl)
        assert load(loader, Words(), ["seed=5"], RunMode.RUN).seed == 5


def test_a_packaged_file_is_parsed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "file.yaml").write_text("a: 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = hydra_door.PackagedFiles("some", "pkg://some_package")
    first = source.load_config("file")
    first.config.a = 7
    monkeypatch.setattr(OmegaConf, "load", lambda file: pytest.fail("it was parsed again"))
    assert source.load_config("file").config.a == 1
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "file.yaml").write_text("a: 22\n", encoding="utf-8")
    assert source.load_config("file").config.a == 22


ODDLY_SET = [
    [],
    ["seed=3"],
    ["optimizer.lr=0.02", "experiment=model_3", "optimizer.momentum=0"],
    ["~model.layers.conv5", "+model.layers.conv4.padding=1", "++optimizer.nesterov=true"],
    ["model.layers.conv2={out_channels:3}", "target={max_params:null}"],
    ["~experiment", "model=model_2", "model.dropout=0.2"],
    ["augmentation=[rotate,affine]", "augmentation.affine.shear=2"],
    ["scheduler=one_cycle", "+scheduler.points=[1,2]", "name='a b'"],
    ["sweep=seeds", "sweep.retries=1"],
    ["hydra.run.dir=x", "hydra/launcher=local", "seed=4"],
    ["hydra.run.dir=x", "seed=4"],
    ["experiment=model_3", "++hydra.sweep.dir='${name}'", "optimizer.lr=0.02", "hydra.sweep.subdir=${hydra.job.num}"],
]


SWEPT = [
    ["optimizer.lr=0.01,0.02", "seed=range(3)", "trainer.epochs=3"],
    ["model=model_2,model_3", "model.dropout=0.1,0.2", "~model.layers.conv5"],
    ["hydra/launcher=local", "hydra.sweep.dir=x", "experiment=model_3", "model.dropout=choice(0,0.1)"],
    ["hydra/launcher=local", "hydra.launcher.n_jobs=2", "seed=1,2"],
    ["+optimizer.dampening=0,0.5", "hydra/sweeper=optuna", "scheduler=one_cycle", "seed=1"],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "run_mode"),
    [
        *((each, RunMode.RUN) for each in ODDLY_SET),
        *((each, RunMode.MULTIRUN) for each in [*ODDLY_SET, *SWEPT]),
    ],
    ids=lambda value: value.name if isinstance(value, RunMode) else " ".join(value),
)
def test_a_config_from_a_remembered_one_is_the_one_that_hydra_composes(
    overrides: list[str], run_mode: RunMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose(Words([*overrides, "threads=7"]), run_mode)  # the choices are remembered from here
    ours = compose(Words(overrides), run_mode)
    monkeypatch.setattr(Loader, "_from_base", lambda *arguments: None)
    hydras = compose(Words(overrides), run_mode)
    assert ours == hydras
    assert str(OmegaConf.to_container(ours)) == str(OmegaConf.to_container(hydras))  # also in order
    for config in (ours, hydras):
        with pytest.raises(ConfigAttributeError):
            config.unknown = 1
        config.hydra.verbose = True


def test_hydra_composes_once_what_differs_in_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["hydra/launcher=local", "hydra.sweep.dir=x", "experiment=model_3"]
    for mode in (RunMode.RUN, RunMode.MULTIRUN):
        compose(Words(words), mode)
        with monkeypatch.context() as patch:
            patch.setattr(Loader, "_compose_config_from_defaults_list", lambda *arguments: pytest.fail("again"))
            compose(Words([*words, "optimizer.lr=0.5"]), mode)
            if mode == RunMode.MULTIRUN:
                compose(Words([*words, "optimizer.lr=0.5,0.6", "model=model_1,model_2"]), mode)


def test_a_wrong_value_is_refused_whether_its_groups_are_remembered_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    compose(Words())
    messages = []
    for _ in range(2):
        with pytest.raises(ConfigError) as error:
            compose(Words(["optimizer.nothing=1", "~model.layers.none"]))
        messages.append(error.value.problems)
        monkeypatch.setattr(Loader, "_from_base", lambda *arguments: None)
    assert messages[0] == messages[1]
    assert len(messages[0]) == 2


def test_a_remembered_config_is_a_copy_and_follows_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "_bases", {})
    words = Words(["experiment=model_3", "data=digits"])
    first = compose(words)
    first.optimizer.lr = 7.0
    assert compose(words).optimizer.lr == 0.01
    assert compose(words.with_overrides([*words.overrides, "optimizer.lr=0.5"])).optimizer.lr == 0.5
    assert compose(words).optimizer.lr == 0.01
    assert len(Loader._bases) == 1
    ((key, (stamps, base)),) = Loader._bases.items()
    changed = base.copy()
    changed.optimizer.lr = 0.7  # as if the files had said so
    Loader._bases[key] = stamps, Frozen(changed)
    assert compose(words).optimizer.lr == 0.7
    Loader._bases[key] = (*stamps[:-1], f"0 {stamps[-1].partition(' ')[2]}"), Frozen(changed)
    assert compose(words).optimizer.lr == 0.01, "a file that has changed must be read again"
    group = tmp_path / "own" / "optimizer"
    group.mkdir(parents=True)
    for lr in (0.3, 0.4):  # a file of one's own is never remembered
        (group / "mine.yaml").write_text(f"defaults: [sgd]\nlr: {lr}\n", encoding="utf-8")
        own = Words([*words.overrides, "optimizer=mine"], config_dir=str(tmp_path / "own"))
        assert compose(own).optimizer.lr == lr
    assert len(Loader._bases) == 1


def test_a_packaged_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "adam.yaml"
    stamps = []
    for lr in (0.1, 0.25):
        path.write_text(f"lr: {lr}\n", encoding="utf-8")
        found = PackagedFiles("main", "pkg://era_cnn.conf")._read_config(path)
        assert found.config.lr == lr
        stamps.append(found.header[STAMP])
    assert stamps[0] != stamps[1]


def test_a_defaults_list_may_refer_to_the_options_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, collected = defaults_list._create_interpolation_map, []

    def collect(*arguments: Any) -> Any:
        collected.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(hydra_door._options_by_name, "_collect", collect)
    experiment = tmp_path / "own" / "experiment"
    (tmp_path / "own" / "own").mkdir(parents=True)
    experiment.mkdir()
    (tmp_path / "own" / "own" / "mine.yaml").write_text("# @package _global_\nseed: 7\n", encoding="utf-8")
    text = "# @package _global_\ndefaults:\n  - /own: ${experiment}\n  - override /optimizer: adam\n"
    (experiment / "mine.yaml").write_text(text, encoding="utf-8")
    composed = compose(Words(["experiment=mine"], config_dir=str(tmp_path / "own")))
    assert (composed.seed, composed.optimizer.name) == (7, "adam")
    assert len(collected) == 1
    assert defaults_list._create_interpolation_map is collect  # as it was before
