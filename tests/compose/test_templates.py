"""Jobs whose values are set without OmegaConf: each config is the one that Hydra composes from the job's own words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.types import RunMode
from omegaconf import open_dict

from era_cnn.compose.composition import Planned, compose, plain, resolved, validated
from era_cnn.compose.hydra_door import as_hydra_yaml
from era_cnn.compose.planner import Planner
from era_cnn.compose.templates import Template
from era_cnn.compose.words import Words
from era_cnn.errors import ConfigError
from tests.conftest import CONF_DIR, EXPERIMENTS
from tests.helpers import plan_sweep

SMALL = "experiment=model_4_digits"


def planned(*overrides: str) -> list[Planned]:
    words = Words(list(overrides))
    return plan_sweep(words, compose(words, RunMode.MULTIRUN))


def assert_as_hydra_composes_it(job: Planned, *of_hydra: str) -> None:
    alone = compose(Words([*of_hydra, *job.overrides]))
    with open_dict(alone):
        alone.hydra.job.num = alone.hydra.job.id = job.number
    assert as_hydra_yaml(job.values()) == as_hydra_yaml(plain(alone))  # as text, in which 1 is not 1.0
    assert job.config == validated(alone)
    assert repr(job.config) == repr(validated(alone))
    assert job.folder == resolved(alone, "hydra.sweep.subdir")


@pytest.fixture
def composed_exactly(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the jobs that no template made."""
    numbers: list[int] = []
    original = Planner._fill

    def counting(planner: Planner, number: int, overrides: tuple[str, ...]) -> Planned | None:
        job = original(planner, number, overrides)
        numbers.extend([number] if job is None else [])
        return job

    monkeypatch.setattr(Planner, "_fill", counting)
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "exact"),
    [
        (["seed=range(5)"], [0]),
        (["seed=range(3)", "model.dropout=0,0.1", "optimizer.lr=1e-3,0.1,1"], [0]),
        (["optimizer=sgd,adam", "seed=1,2"], [0, 2]),
        (["trainer.epochs=1,2", "name=a,'b-c'", "threads=1"], [0]),
        (["trainer.limit_train_images=null,64", "trainer.repeat_train_images=2"], [0]),
        (["trainer.class_weights=null,balanced", "report=true,false"], [0]),
        (["model.layers.conv1.out_channels=8,9", "model.layers.conv2.out_channels=10"], [0]),
        (["hydra.sweep.subdir=${hydra:job.num}_${name}", "seed=1,2"], [0]),
        (["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=1,2", "optimizer.lr=0.1"], [0]),
        # What is no plain value in place of another, or is referred to, is composed as before.
        (["seed=1,${trainer.epochs}"], [0, 1]),
        (["init_from=x,${name}"], [0, 1]),
        (["portable=true,false"], [0, 1]),
        (["threads=1,2"], [0]),
        (["trainer=overfit", "trainer.batch_size=32,64"], [0, 1]),
        (["trainer=overfit", "trainer.limit_train_images=32,64"], [0]),
        (["~experiment", "data=digits", "model.name=a,b"], [0, 1]),
        (["data.mean=[0.1],[0.2]"], [0, 1]),
        (["model.order=[conv,norm,activation,dropout],[norm,conv,activation,dropout]"], [0, 1]),
        (["target={test_accuracy:0.5},{test_accuracy:0.6}"], [0, 1]),
        (["+model.layers.conv1.padding=0,1", "seed=1,2"], [0, 2]),
        (["++model.layers.conv1.out_channels=8,9"], [0, 1]),
        (["~model.layers.conv5", "seed=1,2"], [0]),
        (["hydra.sweep.subdir=${hydra.job.override_dirname}", "seed=1,2"], [0, 1]),
        (["hydra.sweep.subdir=a_${hydra.job.num}_${seed}", "seed=1,2"], [0, 1]),
        (["scheduler=glob(co*)", "optimizer.lr=0.1,0.2"], [0, 2]),
        # The order counts where a key lies within another.
        (["model.layers.conv1={out_channels:9},{out_channels:8}", "model.layers.conv1.out_channels=10"], [0, 1]),
        (["model.layers.conv1.out_channels=8,9", "++model.layers.conv1={padding:0}"], [0, 1]),
        (["++model.layers.conv1={out_channels:7}", "model.layers.conv1.out_channels=8,9"], [0, 1]),
    ],
)  # fmt: skip
def test_a_job_is_what_hydra_composes_from_its_own_words(
    words: list[str], exact: list[int], composed_exactly: list[int]
) -> None:
    jobs = planned(*([] if "~experiment" in words else [SMALL]), *words)
    assert composed_exactly == exact
    assert len(jobs) > 1
    for job in jobs:
        assert_as_hydra_composes_it(job, *(word for word in words if word.startswith("hydra.")))


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def varied_keys() -> list[str]:
    """All plain keys that an experiment sets."""
    files = (CONF_DIR / "experiment").rglob("*.yaml")
    contents = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in files)
    found = {key for content in contents for key, value in leaves(content) if not isinstance(value, list)}
    return sorted(key for key in found if not key.startswith(("model.layers.", "data.root")))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_whatever_an_experiment_varies_can_be_swept(experiment: str) -> None:
    """Sets keys that any experiment sets, where this one has them, to values of each type; a third of them each time."""
    template = Template.of(compose(Words([f"experiment={experiment}"])))
    assert template is not None
    keys, num_set = varied_keys()[EXPERIMENTS.index(experiment) % 3 :: 3], 0
    assert len(keys) > 5
    for number, key in enumerate(keys):
        value = (0.25, 3, "a b", None, True)[number % 5]
        values = template.values({key: value})
        text = "null" if value is None else "true" if value is True else value
        try:
            alone = compose(Words([f"experiment={experiment}", f"{key}={text}"]))
        except ConfigError:
            assert values is None, key
            continue
        if values is not None:
            num_set += 1
            expected = plain(alone)
            del expected["hydra"], expected["sweep"]
            if expected["name"] == "${model.name}":
                expected["name"] = expected["model"]["name"]
            expected["data"]["root"] = values["data"].get("root")  # of the environment
            if isinstance(expected["threads"], str):  # the default
                expected["threads"] = 2
            if "root" not in values["data"]:
                del expected["data"]["root"]
            assert repr(values) == repr(expected), key
    assert num_set > 2


def test_no_job_shares_a_value_that_could_be_changed() -> None:
    first, second = (job.config.model.layers for job in planned(SMALL, "seed=range(3)")[1:])
    assert first == second
    assert not {id(spec) for spec in first.values()} & {id(spec) for spec in second.values()}


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1,-1,2", "optimizer.lr=0.1,-2"],
        ["seed=1,x,true,0.5"],
        ["model.dropout=0.1,7", "trainer.epochs=15,null"],
        ["data.mean=[0.1],0.1,x"],
        ["name=a,b c"],
        ["init_from=x,???"],
        ["model.layers.conv1.out_channels=8,0", "seed=1,-1"],
        ["optimizer=sgd,adam", "optimizer.lr=0.1,-1"],
    ],
)
def test_wrong_jobs_have_the_problems_that_they_have_alone(overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(SMALL, *overrides)
    words = Words([SMALL, *overrides])
    alone: dict[str, list[str]] = {}
    jobs = Planner(words, compose(words, RunMode.MULTIRUN)).grid()
    for number, job in enumerate(jobs):
        try:
            validated(compose(Words(list(job))))
        except ConfigError as error:
            for each in error.problems:
                alone.setdefault(each, []).append(f"job {number} ({', '.join(job)})")
    assert len(caught.value.problems) == len(alone) > 0
    for said, (text, having) in zip(caught.value.problems, alone.items(), strict=True):
        more = f" and {len(having) - 1} more" if having[1:] else ""
        assert said == (text if len(having) == len(jobs) else f"In {having[0]}{more}: {text}")


def test_a_folder_that_leaves_the_sweep_is_refused_for_every_job() -> None:
    with pytest.raises(ConfigError) as caught:
        planned(SMALL, "hydra.sweep.subdir=../${hydra.job.num}_${name}", "seed=1,2")
    said = [text.partition(": ")[2] for text in caught.value.problems]
    assert [text.partition(", got ")[2][:6] for text in said] == ["'../0_", "'../1_"]


def test_an_interpolation_of_ones_own_file_is_seen(tmp_path: Path, composed_exactly: list[int]) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nname: mine\ndefaults: [model_4_digits]\ntrainer: {limit_epochs: '${seed}'}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    words = Words(["experiment=mine", "seed=1,2"], config_dir=str(tmp_path))
    jobs = plan_sweep(words, compose(words, RunMode.MULTIRUN))
    assert [job.config.trainer.limit_epochs for job in jobs] == [1, 2]
    assert composed_exactly == [0, 1]
