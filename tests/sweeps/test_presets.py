from __future__ import annotations

import pytest

from era_cnn.compose.composition import compose_typed
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words, parse_words
from tests.conftest import CONF_DIR
from tests.helpers import plan_sweep

PRESETS = sorted(path.stem for path in (CONF_DIR / "sweep").glob("*.yaml") if path.stem != "default")


def plan(*words: str) -> list[dict[str, str]]:
    args = parse_words(words)
    composed, is_sweep = compose_typed(Words.of(args), args)
    assert is_sweep
    jobs = plan_sweep(Words.of(args), composed)
    return [dict(override.split("=") for override in job.overrides) for job in jobs]


def test_there_are_as_many_as_documented() -> None:
    assert PRESETS == ["dropout_lr", "models", "seeds"]


@pytest.mark.parametrize("multirun", [(), ("-m",)])
def test_dropout_by_learning_rate(multirun: tuple[str, ...]) -> None:
    jobs = plan(*multirun, "sweep=dropout_lr")
    assert len({(job["model.dropout"], job["optimizer.lr"]) for job in jobs}) == len(jobs) == 12
    args = parse_words(["sweep=dropout_lr"])
    composed, _ = compose_typed(Words.of(args), args)
    assert {job.config.name for job in plan_sweep(Words.of(args), composed)} == {"model_3"}


def test_seeds_of_any_experiment() -> None:
    jobs = plan("sweep=seeds", "experiment=model_2")
    assert [job["seed"] for job in jobs] == [str(seed) for seed in range(20)]
    assert {job["experiment"] for job in jobs} == {"model_2"}


def test_every_model() -> None:
    assert [job["experiment"] for job in plan("sweep=models")] == ["model_1", "model_2", "model_3", "model_4"]


def test_what_is_typed_wins_over_a_preset() -> None:
    assert [job["seed"] for job in plan("-m", "sweep=seeds", "seed=5,6")] == ["5", "6"]
    assert [job["seed"] for job in plan("sweep=seeds", "seed=5")] == ["5"]
    assert plan("sweep=seeds", "sweep.retries=2", "seed=1")[0] == {"sweep.retries": "2", "seed": "1", "sweep": "seeds"}


def test_a_planner_numbers_jobs_as_hydra_does() -> None:
    args = parse_words(["-m", "seed=1,2", "model.dropout=0,0.1"])
    composed, _ = compose_typed(Words.of(args), args)
    assert Planner(Words.of(args), composed).grid() == [
        ("seed=1", "model.dropout=0"), ("seed=1", "model.dropout=0.1"),
        ("seed=2", "model.dropout=0"), ("seed=2", "model.dropout=0.1"),
    ]  # fmt: skip
