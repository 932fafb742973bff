"""Hostile command lines and configs end with one message, at once, without a folder, and without having run anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from era_cnn.compose import guard
from era_cnn.compose.composition import compose, resolved_values, validated
from era_cnn.compose.words import Words
from era_cnn.errors import MAX_PROBLEMS, ConfigError, show
from era_cnn.folders import schemas
from tests.conftest import MODELS
from tests.helpers import plan_sweep

SECRET = "-".join(
    ["sesame", "open", "4711"]
)  # in pieces: provenance holds what was changed since the last commit, also here
OPTIMIZER = "name: sgd\nlr: 0.1\nmomentum: 0.9\nweight_decay: 0.0\nnesterov: false\n"


def test_the_files_of_a_sweep_hold_as_many_jobs_as_it_may_have() -> None:
    assert schemas.MAX_JOBS == guard.MAX_JOBS


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture(autouse=True)
def _same_logging() -> Iterator[None]:
    """Hydra's --info lets the process log whatever is said from then on."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def refused(command: Any, words: list[str], message: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command(*words)
    assert code == 2, err
    assert message in err
    assert " must " in err
    assert "Traceback" not in out + err
    assert SECRET not in out + err
    assert sorted(tmp_path.rglob("*")) == before


READS = "must read no environment variable but ERA_CNN_DATA, got 'SECRET'. Write the value itself"
CODE = "a config can't run code"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # The environment
        (["name=${oc.env:SECRET}"], f"name {READS}"),
        (["name=${oc.env:SECRET,x}"], f"name {READS}"),
        (["name='${oc.decode:${oc.env:SECRET}}'"], f"name {READS}"),
        (["name='${oc.env:${model.name}}'", "model.name=SECRET"], f"${{oc.env:…}} {READS}"),
        (["name='${oc.${y}:SECRET}'"], "name must have a value, got"),
        (["name=${oc.env:null}"], "name must read no environment variable but ERA_CNN_DATA, got 'null'."),
        (["model.layers.conv1={block:'${oc.env:SECRET}'}"], READS),
        (["hydra.run.dir=${oc.env:SECRET}"], f"hydra.run.dir {READS}"),
        (["hydra.run.dir='${oc.env:${name}}'", "name=SECRET"], f"${{oc.env:…}} {READS}"),
        (["hydra.sweep.subdir=${oc.env:SECRET}"], f"hydra.sweep.subdir {READS}"),
        (["-m", "hydra.sweep.dir=${oc.env:SECRET}", "seed=1,2"], f"hydra.sweep.dir {READS}"),
        (["--cfg", "job", "--resolve", "name=${oc.env:SECRET}"], f"name {READS}"),
        (["describe", "name=${oc.env:SECRET}"], f"name {READS}"),
        (["hydra.job.env_copy=[SECRET]"], "hydra.job.env_copy must be empty: it may copy secrets into a file"),
        # Code
        (["+hydra.job.env_set.LD_PRELOAD=x"], f"hydra.job.env_set must be empty: {CODE}"),
        (["+hydra.callbacks.x._target_=os.getcwd"], f"hydra.callbacks must be empty: {CODE}"),
        (["hydra.launcher._target_=os.getcwd"], f"hydra.launcher._target_ must not be given: {CODE}, got 'os.getcwd'. Choose one by hydra/launcher=…"),
        (["hydra.sweeper._target_=os.getcwd"], f"hydra.sweeper._target_ must not be given: {CODE}"),
        (["+hydra.launcher.x={_target_:os.getcwd}"], f"hydra.launcher.x._target_ must not be given: {CODE}"),
        (["+hydra.launcher.x.y=[{_target_:os.getcwd}]"], "hydra.launcher.x.y.0._target_ must not be given"),
        (["-m", "+hydra.launcher.x='${oc.create:{_target_:os.getcwd}}'"], "${oc.create:…} must not be used"),
        (["+model.layers.conv1._target_=os.getcwd"], f"model.layers.conv1._target_ must not be given: {CODE}"),
        (["name='${oc.create:{_target_:os.getcwd}}'"], "${oc.create:…} must not be used"),
        (["name='${oc.decode:x}'"], "${oc.decode:…} must not be used"),
        (["name='${oc.select:nope,{_target_:os.getcwd}}'"], "${oc.select:…} must have a plain value as its default"),
        (["hydra/job_logging=default"], f"hydra.job_logging must be left alone: {CODE}"),
        (["hydra/hydra_logging=default"], f"hydra.hydra_logging must be left alone: {CODE}"),
        (["--help", "hydra.hydra_logging.root={}"], f"hydra.hydra_logging must be left alone: {CODE}"),
        (["--hydra-help", "hydra.hydra_logging.root={}"], "--hydra-help must be used alone"),
        (["+hydra.job_logging.handlers.x.class=a"], f"hydra.job_logging must be left alone: {CODE}"),
        (["hydra.searchpath=[pkg://this]"], "hydra.searchpath must be empty: the groups are era_cnn's"),
        (["++hydra.searchpath=[pkg://this]"], "hydra.searchpath must be empty"),
        (["hydra={searchpath:[pkg://this]}"], "hydra.searchpath must be empty"),
        (["--info", "searchpath", "hydra.searchpath=[pkg://this]"], "hydra.searchpath must be empty"),
        # Elsewhere
        (["--config-name", "../../x"], "--config-name must be the name of a config, got '../../x'."),
        (["--config-name", "/etc/passwd"], "--config-name must be the name of a config"),
        (["--config-name", ""], "--config-name must be the name of a config"),
        (["model=../../x"], "model must be one of cifar_dilated"),
        (["hydra.output_subdir=.."], "hydra.output_subdir must be .hydra or null, got '..'."),
        (["hydra.run.dir=''"], "hydra.run.dir must be a path without line breaks and the like, got ''."),
        (["hydra.run.dir='a\nb'"], r"hydra.run.dir must be a path without line breaks and the like, got 'a\nb'."),
        (["hydra.run.dir='a\0b'"], "hydra.run.dir must be a path"),
        (["-m", "hydra.sweep.dir=' '", "seed=1,2"], "hydra.sweep.dir must be a path"),
        (["-m", "hydra.sweep.subdir=.."], "hydra.sweep.subdir must be a folder within that of the sweep, got '..'."),
        (["-m", "hydra.sweep.subdir=a/.."], "hydra.sweep.subdir must be a folder within that of the sweep, got '.'."),
        (["-m", "hydra.sweep.subdir=/x"], "hydra.sweep.subdir must be a folder within that of the sweep"),
        (["-m", "hydra.sweep.subdir=${name}//x", "name=a", "seed=1,2"], "hydra.sweep.subdir must give each job a folder"),
        # Hydra's other keys
        (["hydra.job.chdir=true"], "hydra.job.chdir must be false: data.root is relative to the current directory, got true."),
        (["hydra.mode=${x}"], "hydra.mode must be RUN or MULTIRUN"),
        (["hydra.verbose=1"], "hydra.verbose must be true, false or names of loggers, got 1."),
        (["hydra.sweeper.max_batch_size=0"], "hydra.sweeper.max_batch_size must be null or at least 1, got 0."),
        (["+hydra.x=1"], "hydra.x must be a key of Hydra's, got 1. See era-cnn --cfg hydra."),
        (["+hydra.sweep.mode=777"], "hydra.sweep.mode must be a key of Hydra's, got 777."),
        (["+hydra.job.x.y=1"], "hydra.job.x must be a key of Hydra's"),
        (["+hydra.job.config.x=1"], "hydra.job.config.x must be a key of Hydra's"),
        (["hydra.overrides.task=[a]"], "hydra.overrides.task must be left to Hydra, which records it"),
        (["hydra={overrides:{task:[a]}}"], "hydra.overrides must hold only what was typed"),
        (["hydra.runtime.cwd=/"], "hydra.runtime.cwd must be left to Hydra"),
        (["hydra={runtime:{output_dir:a}}"], "hydra.runtime.output_dir must be left to Hydra"),
        (["+hydra.runtime.choices.x=1"], "hydra.runtime.choices.x must be left to Hydra"),
        (["hydra.job.num=1"], "hydra.job.num must be left to Hydra"),
        (["hydra.job.id=1"], "hydra.job.id must be left to Hydra"),
        (["hydra.job.config_name=x"], "hydra.job.config_name must be left to Hydra"),
        (["hydra.job.override_dirname=x"], "hydra.job.override_dirname must be left to Hydra"),
        (["hydra.launcher=null"], "hydra.launcher must be a mapping, got null. Choose one by hydra/launcher=…"),
        (["hydra.sweeper=null"], "hydra.sweeper must be a mapping, got null."),
        (["-m", "hydra.launcher=x"], "hydra.launcher must be a mapping, got 'x'."),
        (["-m", "~hydra/launcher"], "hydra.launcher must be given, got nothing"),
        (["-m", "~hydra/sweeper"], "hydra.sweeper must be a mapping"),
        (["hydra/launcher=joblib"], "hydra/launcher must be one of basic, local, ray_cluster, slurm, submitit_local, got 'joblib'."),
        (["hydra/launcher=submitit_slurm"], "hydra/launcher must be one of basic, local, ray_cluster, slurm, submitit_local, got"),
        # The parser
        (["seed=" + "9" * 5000], "must have at most 4,000 characters, got 5,005."),
        (["seed=" + "9" * 101], "seed must hold no number of more than 100 digits"),
        (["seed=" + "9" * 100], "seed must be less than 9.22337e+18, got 999"),
        (["optimizer.lr=1e999"], "optimizer.lr must be a finite number, got inf."),
        (["x=" + "[" * 3000], "'x' must be nested at most 20 levels deep, got 3000."),
        (["+" + "a." * 21 + "b=1"], "must be nested at most 20 levels deep, got 21."),
        ([f"+a{i}={'x' * 3000}" for i in range(4)], "All overrides must have at most 10,000 characters, got 12,0"),
        (["name='\udcff'"], "must be valid UTF-8"),
        (["\x1b[31mx=1"], r"\x1b[31mx=1 must be key=value"),
        (["a" * 3000 + "=1"], "must be a key of the config, got 1."),
        (["model=" + "a" * 3000], "model must be one of cifar_dilated"),
        (["seed=${seed}"], "seed must have a value, got 'Recursive interpolation detected'."),
        (["name=${model.name}", "model.name=${name}"], "name must have a value, got 'Recursive interpolation"),
        (["name='${hydra:run.dir}'"], "must have a value, got"),
        # Found by tests/faults/fuzz.py
        (["model.order.x=1", "y=1"], "model.order.x must be a key of the config, got 1."),
        (["-m", "model=interval(0,1)", "=a"], f"model must be one of {MODELS}, got 'interval(0,1)'."),
        (["-m", "model=range(1,2,0)", "=a"], f"model must be one of {MODELS}, got 'range(1,2,0)'."),
        # Sweeps
        (["-m", "seed=range(10001)"], "A sweep must have at most 10,000 jobs, got 10,001. Sweep over fewer values."),
        (["-m", "seed=range(1e10)"], "A sweep must have at most 10,000 jobs, got 10,000,000,000."),
        (["-m", "seed=range(101)", "threads=range(1,101)"], "A sweep must have at most 10,000 jobs, got 10,100."),
        (["-m", "seed=range(0,inf)"], "A sweep must have at most 10,000 jobs, got more than can be counted."),
        (["-m", "seed=shuffle(range(1e12))"], "A sweep must have at most 10,000 jobs"),
        (["-m", "seed=range(0,1,0)"], "must not be zero"),
        (["model=range(1e10)", "x=["], "model must have at most 10,000 values, got more."),
    ],
    ids=lambda value: " ".join(value)[:60].encode("ascii", "replace").decode() if isinstance(value, list) else "",
)  # fmt: skip
def test_a_hostile_command_line_is_refused(words: list[str], message: str, command, tmp_path: Path) -> None:
    if words[0][0] != "-":
        words = [words[0], "data=digits", *words[1:]] if words[0] == "describe" else ["data=digits", *words]
    elif words[0] == "-m":
        words = ["-m", "data=digits", *words[1:]]
    refused(command, words, message, tmp_path)


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
)
MERGES = "\n".join(["a0: &a0 {k: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)])
ECHOES = "\n".join(["lr: ${.a0}${.a0}", *(f"a{i}: ${{.a{i + 1}}}${{.a{i + 1}}}" for i in range(30)), "a30: ha"])
ECHOING_MAPPINGS = "\n".join(
    ["lr: ${.a0}", *(f"a{i}: {{x: '${{..a{i + 1}}}', y: '${{..a{i + 1}}}'}}" for i in range(30)), "a30: ha"]
)
ECHOES_SELECTED = ECHOES.replace("${.", "${oc.select:optimizer.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "optimizer/own.yaml must have at most 10,000 entries, got "),
        (MERGES, "optimizer/own.yaml must have at most 10,000 entries, got "),
        (ECHOES, "Interpolations must expand to at most 10,000 values and characters in all, got more."),
        (ECHOING_MAPPINGS, "Interpolations must expand to at most 10,000 values and characters in all, got more."),
        (ECHOES_SELECTED, "Interpolations must expand to at most 10,000 values and characters in all, got more."),
        ("a: &a [*a]", "optimizer/own.yaml must be finite, got an alias that contains itself."),
        ("a: &a {b: *a}", "optimizer/own.yaml must be finite"),
        ("a: " + "[" * 30 + "]" * 30, "optimizer/own.yaml must be nested at most 20 levels deep, got 31."),
        ("a: " + "[" * 5000, "optimizer/own.yaml must be nested at most 20 levels deep, got many more."),
        ("[" + "1," * 20_000 + "]", "optimizer/own.yaml must have at most 10,000 entries, got more."),
        ("x: " + "y" * 70_000, "optimizer/own.yaml must have at most 65,536 bytes, got 70,003 bytes."),
        ("- a", "optimizer/own.yaml must hold a mapping, got ['a']."),
        ("'a: &a [x]'", "optimizer/own.yaml must hold a mapping"),
        ("lr: 1\nlr: 2", "found duplicate key lr"),
        ("a:\n\tb: c", "optimizer/own.yaml must be valid YAML, got: "),
        ("a: \x01", "optimizer/own.yaml must be valid YAML, got: "),
        ("a: !!python/object/apply:os.system [':']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!set {b, c}", "could not determine a constructor"),
        (f"a: {'9' * 5000}", "optimizer/own.yaml must hold no number of more than 100 digits"),
        (f"a: 0x{'f' * 5000}", "optimizer/own.yaml must hold no number of more than 100 digits"),
        ("lr: " + "${a}" * 201, "optimizer/own.yaml must hold at most 200 interpolations, got 201."),
        ("lr: 1e999\nname: sgd", "optimizer.lr must be a finite number, got inf."),
        ("lr: ${oc.env:SECRET}", f"optimizer.lr {READS}"),
        ("defaults: ['${oc.env:SECRET}']", f"${{oc.env:…}} {READS}"),
        ("null: 1", "The config must compose, got: Incompatible key type 'NoneType'"),
        ("defaults: [../../../x]", "Could not load 'optimizer/../../../x'"),
        (OPTIMIZER + "_target_: os.getcwd", f"optimizer._target_ must not be given: {CODE}"),
        ("# @package _global_\nhydra: {callbacks: {a: {_target_: os.getcwd}}}", "hydra.callbacks must be empty"),
        ("# @package hydra\njob: {env_set: {A: B}}", "hydra.job.env_set must be empty"),
        ("# @package hydra\nsearchpath: ['pkg://this']", "hydra.searchpath is only supported from the primary"),
    ],
    ids=lambda value: value[:30].encode("ascii", "replace").decode() if "must" not in value else "",
)
def test_a_hostile_file_is_refused(text: str, message: str, command, tmp_path: Path) -> None:
    path = tmp_path / "own" / "optimizer" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    refused(command, ["--config-dir", "own", "data=digits", "optimizer=own"], message, tmp_path)


@pytest.mark.parametrize("text", [OPTIMIZER, "\ufeff" + OPTIMIZER, OPTIMIZER.replace("\n", "\r\n")])
def test_a_file_may_begin_and_end_its_lines_as_it_likes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own" / "optimizer" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(f"# @package _global_.optimizer{text[-1]}{text}".encode() if text[0] == "n" else text.encode())
    assert validated(compose(Words(["optimizer=own"], config_dir="own"))).optimizer.lr == 0.1


def test_a_primary_config_of_ones_own_imports_nothing(command, tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("import pathlib\npathlib.Path('sprung').touch()\n", encoding="utf-8")
    (tmp_path / "own").mkdir()
    text = "defaults: [config, _self_]\nhydra: {searchpath: ['pkg://trap', 'structured://trap']}\n"
    (tmp_path / "own" / "mine.yaml").write_text(text, encoding="utf-8")
    words = ["--config-dir", "own", "--config-name", "mine"]
    for question in ([], ["-m"], ["--cfg", "job"], ["--help"], ["--info", "config"]):
        refused(command, [*words, *question], "hydra.searchpath must be empty", tmp_path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{seed: range(1e10)}", "A sweep must have at most 10,000 jobs"),
        ("{seed: '${oc.env:SECRET}'}", f"hydra.sweeper.params.seed {READS}"),
        (f"{{seed: '{'[' * 25}'}}", "'seed' must be nested at most 20 levels deep"),
    ],
)
def test_a_sweep_that_a_file_asks_for_is_looked_at_as_well(params: str, message: str, command, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    text = f"defaults: [config, _self_]\nhydra: {{sweeper: {{params: {params}}}}}\n"
    (tmp_path / "own" / "mine.yaml").write_text(text, encoding="utf-8")
    refused(command, ["--config-dir", "own", "--config-name", "mine", "-m"], message, tmp_path)


def test_the_secret_is_in_no_file_of_a_run(command, tmp_path: Path) -> None:
    code, _, err = command("data=digits", "trainer=smoke", "hydra.verbose=true")
    assert code == 0, err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_where_the_data_lie_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CNN_DATA", "/somewhere")
    assert validated(compose(Words())).data.root == "/somewhere"
    monkeypatch.delenv("ERA_CNN_DATA")
    assert validated(compose(Words())).data.root == "data"
    assert parse_error("${oc.env:ERA_CNN_DATA}").startswith('name must have a value, got "KeyError raised')


def test_a_config_that_hydra_did_not_compose_is_refused_as_well() -> None:
    assert READS in parse_error("${oc.env:SECRET}")


def parse_error(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolved_values(OmegaConf.create({"name": name}))
    return caught.value.problems[0]


def test_a_message_is_no_longer_than_a_terminal_takes() -> None:
    error = ConfigError([f"x{i} must be y, got {'z' * 2000}." for i in range(1000)])
    lines = str(error).splitlines()
    assert len(lines) == MAX_PROBLEMS + 1
    assert max(map(len, lines)) <= 1000
    assert lines[-1] == "There are 980 more problems."
    assert len(error.problems) == 1000
    assert show(10**5000) == "a number with thousands of digits"
    assert str(ConfigError(["x\x1b[2J\ny must be z"])) == r"x\x1b[2J\ny must be z"


@pytest.mark.slow
def test_thousands_of_unknown_keys_are_one_message(command, tmp_path: Path) -> None:
    path = tmp_path / "own" / "optimizer" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(OPTIMIZER + "".join(f"k{i}: 1\n" for i in range(4_000)), encoding="utf-8")
    code, _, err = command("--config-dir", "own", "optimizer=own")
    assert code == 2
    assert err.endswith("There are 3,980 more problems.\n")


def test_a_sweep_is_counted_before_it_is_written_out() -> None:
    words = Words(["seed=range(100)", "threads=range(1,101)", "trainer.epochs=1,2"])
    with pytest.raises(ConfigError, match="at most 10,000 jobs, got 20,000"):
        plan_sweep(words, compose(words.with_overrides([]), RunMode.MULTIRUN))
