from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import era_cnn
from era_cnn.runs import find_lr as module
from era_cnn.runs.find_lr import LrTest, find_lr
from tests.conftest import config_of

Command = Callable[..., tuple[int, str, str]]
WORDS = ("experiment=model_4_digits", "threads=1", "device=cpu")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> LrTest:
    """Two tests of 60 steps, over more than one epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("found"))
        return find_lr(config_of(*WORDS), ["era-cnn", "find-lr"], steps=60, seeds=2)


def rows_of(test: LrTest) -> list[dict[str, str]]:
    with (test.path / "find_lr.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_recipe_gets_a_learning_rate_that_trains_it(found: LrTest) -> None:
    assert found.suggestion is not None
    assert 0.005 < found.suggestion < 0.5
    assert found.override == f"optimizer.lr={found.suggestion:g}"
    assert found.lines()[-2:][0] == f"To use it: {found.override}"


def test_its_folder_holds_the_test(found: LrTest) -> None:
    assert found.path.name.endswith("_find_lr_model_4_digits")
    names = {path.name for path in found.path.iterdir()}
    assert names == {"config.yaml", "find_lr.csv", "find_lr.json", "find_lr.png", "find_lr.svg"}
    rows = rows_of(found)
    assert [int(row["step"]) for row in rows if row["seed"] == "1"] == list(range(1, len(found.curves[1].points) + 1))
    assert {row["seed"] for row in rows} == {"1", "2"}
    assert float(rows[0]["lr"]) == pytest.approx(1e-5)
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    values = json.loads((found.path / "find_lr.json").read_text(encoding="utf-8"))
    assert (values["override"], values["suggestion"]) == (found.override, found.suggestion)
    assert values["provenance"]["config_sha256"]
    assert b"suggested: " in (found.path / "find_lr.svg").read_bytes()


@pytest.mark.slow
def test_a_seed_gives_the_same_bits_each_time_and_leaves_the_rest_alone(found: LrTest) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    again = era_cnn.find_lr(config_of(*WORDS, "seed=2"), steps=60)
    assert again.curves[2] == found.curves[2]
    assert again.curves[2] != found.curves[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_the_first_step_is_that_of_a_run(found: LrTest) -> None:
    """The images, their order and augmentation, the initial weights and dropout are those of the recipe."""
    run = era_cnn.train([*WORDS, "trainer.limit_epochs=1", "report=false"], folder="run", quiet=True)
    assert found.curves[1].points[0].loss == run.steps[0]["loss"]


def test_every_step_is_augmented_however_few_epochs_the_recipe_has() -> None:
    recipes = (("trainer.epochs=5",), ("trainer.epochs=1",), ("trainer.epochs=2", "trainer.unaugmented_epochs=1"))
    words = (*WORDS, "augmentation=affine", "scheduler=constant")
    curves = [find_lr(config_of(*words, *recipe), [], steps=60).curves[1] for recipe in recipes]
    assert curves[0] == curves[1] == curves[2]


def test_the_override_is_for_the_highest_rate_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(*WORDS, "scheduler=piecewise_linear", "scheduler.points=[[0,0.1],[5,2],[15,0]]")
    assert module._peak(config) == (pytest.approx(2.0), None)
    curves = {1: module.Curve((), "", 0.8), 2: module.Curve((), "", 0.2)}
    test = module._outcome(Path(), curves, config)
    assert (test.suggestion, test.override) == (0.04, "optimizer.lr=0.02")


def test_the_momentum_is_that_of_the_highest_rate() -> None:
    words = ("scheduler=one_cycle", "scheduler.base_momentum=0.8", "scheduler.max_momentum=0.95")
    assert module._peak(config_of(*WORDS, *words)) == (pytest.approx(1.0), pytest.approx(0.8))


@pytest.mark.slow
def test_without_a_suggestion_the_exit_code_is_1_and_the_reason_is_told(command: Command) -> None:
    code, out, err = command("find-lr", *WORDS, "--start", "1e-12", "--end", "1e-9", "--steps", "40")
    assert code == 1
    assert err.startswith("No learning rate can be suggested: with seed 1, the loss never fell below 2.")
    assert "To use it" not in out
    (path,) = Path().glob("outputs/*/*_find_lr_model_4_digits/find_lr.json")
    assert json.loads(path.read_text(encoding="utf-8"))["override"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--start", "0"], "--start must be greater than 0 and less than 1e+06, got 0.0. Give 1e-5"),
        (["--start", "nan"], "--start must be greater than 0 and less than 1e+06, got nan."),
        (["--start", "1", "--end", "1"], "--end must be greater than --start, 1, and at most 1e+06, got 1.0."),
        (["--end", "inf"], "--end must be greater than --start, 1e-05, and at most 1e+06, got inf."),
        (["--steps", "39"], "--steps must be from 40 to 100,000, got 39. Choose another number."),
        (["--seeds", "0"], "--seeds must be from 1 to 100, got 0. Choose another number."),
        (["sweep.retries=1"], "sweep.retries must be used with a sweep, got a single run."),
        (["hydra.run.dir=x"], "hydra.run.dir must be used with a run, got find-lr. Remove it: a test writes outputs/"),
        (["optimizer.lr=-1"], "optimizer.lr must be greater than 0, got -1."),
    ],
)
def test_a_range_or_a_config_that_is_wrong_is_refused(words: list[str], message: str, command: Command) -> None:
    code, out, err = command("find-lr", *WORDS, *words)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert not Path("outputs").exists()


def test_a_folder_is_refused_in_python_too() -> None:
    with pytest.raises(era_cnn.ConfigError, match="hydra.run.dir must be used with a run, got find-lr"):
        era_cnn.find_lr([*WORDS, "hydra.run.dir=x"])


def test_an_interrupted_test_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_curve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_lr(config_of(*WORDS), [])
    assert not Path("outputs").exists()


def test_its_folder_is_not_taken_for_a_run(found: LrTest, command: Command) -> None:
    outputs = str(found.path.parents[1])
    code, out, err = command("list", outputs)
    assert (code, err) == (0, "")
    assert out == f"No runs or sweeps in {outputs}.\n"
    code, _, err = command("resume", str(found.path))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("RUN must be the folder of a run, not of a learning-rate test, got '")
    assert err.endswith("Read find_lr.json in it.\n")
    code, _, err = command("compare", str(found.path))
    assert (code, err.count("\n")) == (4, 1)
