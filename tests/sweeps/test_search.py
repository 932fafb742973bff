from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._cached_storage import _CachedStorage

from era_cnn.compose.composition import compose_typed
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words, parse_words
from era_cnn.errors import ConfigError, StorageError
from era_cnn.folders.ledger import Job
from era_cnn.folders.sweep import PlannedJob, SweepFolder
from era_cnn.sweeps.space import Space
from tests.process import Command
from tests.sweeps.conftest import SMALL, outcomes_of
from tests.sweeps.fakes import Script, learned
from tests.sweeps.test_sweeps import wait_until

SEARCH = (
    "-m", *SMALL, "hydra/sweeper=optuna", "data.val_size=300", "hydra.sweeper.n_trials=5", "hydra.sweep.dir=sweep",
    "model.dropout=interval(0,0.3)", "optimizer.lr=tag(log,interval(0.001,0.3))", "model.activation=relu,gelu",
)  # fmt: skip

FEW = [word.replace("n_trials=5", "n_trials=3") for word in SEARCH]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW x AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "CREATE TRIGGER x AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
        "UPDATE trial_params SET param_value = 1e300",
        "UPDATE trials SET state = 'NOPE'",
        "DELETE FROM trial_values",
        "INSERT INTO trials(number, study_id, state) VALUES (3, 1, 'RUNNING'), (4, 1, 'RUNNING')",
    ],
)
def test_a_study_that_no_search_writes_is_refused_and_can_be_rebuilt(change: str, fake_sweep, tmp_path: Path) -> None:
    assert fake_sweep(*FEW).returncode == 0
    (tmp_path / "sweep" / "1_model_4_digits" / "result.json").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "sweep" / "study.db")) as study, study:
        study.execute(change)
    done = fake_sweep("resume", "sweep")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "study.db must hold the study, got: " in done.stderr
    (tmp_path / "sweep" / "study.db").unlink()
    assert fake_sweep("resume", "sweep").returncode == 0


def space(*words: str) -> Space:
    args = parse_words(["-m", "data=digits", *words])
    composed, _ = compose_typed(Words.of(args), args)
    return Space(Planner(Words.of(args), composed).task)


def trials() -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="era_cnn", storage="sqlite:///sweep/study.db").trials


def choices() -> list[dict[str, Any]]:
    return [trial.params for trial in trials()]


def test_what_is_swept_is_what_is_searched() -> None:
    found = space(
        "seed=3", "model.dropout=interval(0,0.3)", "optimizer.lr=tag(log,interval(0.001,0.3))",
        "trainer.batch_size=range(16,65,16)", "trainer.epochs=tag(log,range(1,9))", "optimizer.momentum=range(0.5,1,0.1)", "model.activation=relu,gelu",
    )  # fmt: skip
    assert found.fixed == ["data=digits", "seed=3"]
    distributions = optuna.distributions
    assert found.distributions == {
        "model.dropout": distributions.FloatDistribution(0, 0.3),
        "optimizer.lr": distributions.FloatDistribution(0.001, 0.3, log=True),
        "trainer.batch_size": distributions.IntDistribution(16, 64, step=16),
        "trainer.epochs": distributions.IntDistribution(1, 8, log=True),
        "optimizer.momentum": distributions.FloatDistribution(0.5, 0.9, step=0.1),
        "model.activation": distributions.CategoricalDistribution(["relu", "gelu"]),
    }
    values = {"model.dropout": 0.123456789, "trainer.batch_size": 16, "model.activation": "gelu"}
    assert found.overrides(values)[2:] == ("model.dropout=0.123457", "trainer.batch_size=16", "model.activation=gelu")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1"], "hydra/sweeper=optuna must search over at least one key, got 'none'."),
        (["seed=range(5,5)"], "seed must have values to choose from (an ascending range), got 'range(5,5)'."),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr must have values to choose from ("),
    ],
)
def test_a_space_that_is_none(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space("hydra/sweeper=optuna", *words)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.dropout=0,0.1"], "data.val_size must be greater than 0 for a search, got 0."),
        (
            ["model.dropout=0,0.1", "hydra.sweeper.metric=test_accuracy"],
            "hydra.sweeper.optimise_on_test_set must be true with hydra.sweeper.metric=test_accuracy, got false.",
        ),
        (
            ["model.dropout=0,0.1", "data.val_size=300", "hydra.sweeper.optimise_on_test_set=true"],
            "hydra.sweeper.optimise_on_test_set must be false with hydra.sweeper.metric=val_accuracy, got true.",
        ),
        (
            ["model.dropout=interval(0,1)", "data.val_size=300"],
            "In job 1 (data=digits, data.val_size=300, model.dropout=1): model.dropout must be less",
        ),
        (["model.dropout=0,0.1", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1, got 0."),
        (
            ["model.dropout=0,0.1", "hydra.sweeper.sampler=grid"],
            "hydra.sweeper.sampler must be one of tpe, random, got",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(words: list[str], said: str, command, tmp_path: Path) -> None:
    code, _, err = command("-m", "data=digits", "hydra/sweeper=optuna", *words)
    assert code == 2
    assert err.startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_search_may_use_the_test_set_if_told_to_in_so_many_words(fake_sweep) -> None:
    words = [word for word in SEARCH if "val_size" not in word]
    done = fake_sweep(*words, "hydra.sweeper.metric=test_accuracy", "hydra.sweeper.optimise_on_test_set=true")
    assert done.returncode == 0, done.stderr
    assert [trial.value for trial in trials()] == [outcome.result["final_test_accuracy"] for outcome in outcomes_of()]


@pytest.mark.slow
def test_a_search_goes_on_as_it_would_have(sweep, tmp_path: Path) -> None:
    """Killed once while a trial is under way, and once between a proposal and its folder."""
    done = sweep(*FEW)
    assert done.returncode == 0, done.stdout
    undisturbed, expected = choices(), [outcome.result for outcome in outcomes_of()]
    assert [trial.value for trial in trials()] == [result["final_val_accuracy"] for result in expected]
    shutil.rmtree("sweep")

    process = Command(*FEW)
    wait_until(lambda: any(tmp_path.glob("sweep/1_*/checkpoints/*.pt")), process)
    process.kill()
    process.communicate()
    study = optuna.load_study(study_name="era_cnn", storage="sqlite:///sweep/study.db")
    if study.trials[1].state == optuna.trial.TrialState.RUNNING:
        assert len(study.trials) == 2
    done = sweep("resume", "sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert choices() == undisturbed
    assert [outcome.result["weights_sha256"] for outcome in outcomes_of()] == [
        each["weights_sha256"] for each in expected
    ]


@pytest.mark.slow
def test_a_search_may_get_more_trials_and_outlives_its_study(fake_sweep, tmp_path: Path) -> None:
    assert fake_sweep(*SEARCH).returncode == 0
    undisturbed = choices()
    done = fake_sweep("resume", "sweep", "hydra.sweeper.n_trials=6", "hydra/launcher=local")
    assert done.returncode == 0
    assert choices()[:5] == undisturbed
    assert len(outcomes_of()) == 6
    before = [(trial.params, trial.value) for trial in trials()]
    (tmp_path / "sweep" / "ledger.jsonl").unlink()
    (tmp_path / "sweep" / "study.db").write_bytes(b"no study")
    done = fake_sweep("resume", "sweep")
    assert done.returncode == 4
    assert "study.db must hold the study, got: " in done.stderr
    (tmp_path / "sweep" / "study.db").unlink()
    assert fake_sweep("resume", "sweep", "hydra.sweeper.n_trials=6").returncode == 0
    assert len(outcomes_of()) == 6
    for (params, value), trial in zip(before, trials(), strict=True):
        assert trial.value == value
        assert trial.params == {
            name: each if isinstance(each, str) else pytest.approx(each, rel=1e-5) for name, each in params.items()
        }


@pytest.mark.slow
def test_a_trial_that_failed_counts_once_it_has_succeeded(fake_sweep) -> None:
    done = fake_sweep(*FEW, "seed=1", sabotage={1: "once raise"})
    assert done.returncode == 1
    assert [trial.state.name for trial in trials()] == ["FAIL", "COMPLETE", "COMPLETE"]
    before = choices()
    assert fake_sweep("resume", "sweep").returncode == 0
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * 3
    assert choices() == before
    assert [trial.value for trial in trials()] == [outcome.result["final_val_accuracy"] for outcome in outcomes_of()]
    assert trials()[0].intermediate_values.keys() == {1, 2}
    (outcomes_of()[1].folder / "result.json").unlink()  # so that it is done once more
    assert fake_sweep("resume", "sweep").returncode == 0
    assert [trial.value for trial in trials()] == [outcome.result["final_val_accuracy"] for outcome in outcomes_of()]


@pytest.mark.slow
@pytest.mark.parametrize(("look", "sampler"), [(1, "tpe"), (2, "random"), (3, "random"), (4, "tpe")])
def test_a_search_that_is_stopped_chooses_what_it_would_have(
    look: int, sampler: str, fake_sweep, script: Script
) -> None:
    words = [*FEW, f"hydra.sweeper.sampler={sampler}"]
    assert fake_sweep(*words).returncode == 0
    undisturbed = choices()
    shutil.rmtree("sweep")
    script.looks, script.at_look = 0, {look: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    assert fake_sweep(*words).returncode == 143
    assert len(trials()) < 3
    assert fake_sweep("resume", "sweep").returncode == 0
    assert choices() == undisturbed
    assert [trial.value for trial in trials()] == [outcome.result["final_val_accuracy"] for outcome in outcomes_of()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2])
def test_a_proposal_that_has_no_folder_yet_is_taken_up(
    number: int, fake_sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the driver ends between the two."""
    assert fake_sweep(*FEW).returncode == 0
    undisturbed = choices()
    shutil.rmtree("sweep")
    add = SweepFolder.add

    def fail(self: SweepFolder, planned: PlannedJob) -> Job:
        if planned.number == number:
            raise StorageError("The folder must be written, got: No space left on device.")
        return add(self, planned)

    with monkeypatch.context() as patch:
        patch.setattr(SweepFolder, "add", fail)
        assert "No space left" in fake_sweep(*FEW).stderr
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * number + ["RUNNING"]
    assert fake_sweep("resume", "sweep").returncode == 0
    assert choices() == undisturbed
    assert [outcome.number for outcome in outcomes_of()] == list(range(3))


class KilledError(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "stored"), [(0, 0), (0, 1), (1, 2), (2, 1)])
def test_a_proposal_that_was_torn_is_made_again(
    number: int, stored: int, fake_sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the driver is killed while Optuna stores the values of a trial, each by itself."""
    assert fake_sweep(*FEW).returncode == 0
    undisturbed = choices()
    shutil.rmtree("sweep")
    store, left = _CachedStorage.set_trial_param, iter(range(3 * number + stored))

    def die(*args: Any) -> None:
        if next(left, None) is None:
            raise KilledError
        store(*args)

    with monkeypatch.context() as patch:
        patch.setattr(_CachedStorage, "set_trial_param", die)
        with pytest.raises(KilledError):
            fake_sweep(*FEW)
    assert [len(trial.params) for trial in trials()] == [3] * number + [stored]
    assert fake_sweep("resume", "sweep").returncode == 0
    assert choices() == undisturbed
    assert [trial.value for trial in trials()] == [outcome.result["final_val_accuracy"] for outcome in outcomes_of()]


@pytest.mark.slow
def test_a_kill_while_the_study_is_rebuilt_loses_nothing(fake_sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fake_sweep(*FEW).returncode == 0
    undisturbed = choices()
    (outcomes_of()[1].folder / "result.json").unlink()
    replace = os.replace

    def die(source: str | Path, target: str | Path) -> None:
        if str(target).endswith("study.db"):
            raise KilledError
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KilledError):
            fake_sweep("resume", "sweep")
    assert choices() == undisturbed
    assert fake_sweep("resume", "sweep").returncode == 0
    assert choices() == undisturbed
    assert [trial.value for trial in trials()] == [outcome.result["final_val_accuracy"] for outcome in outcomes_of()]
    assert not Path("sweep/study.db.new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["raise", "SIGKILL", "silent"])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_trial_is_told_to_the_study_once_it_has_ended_for_good(
    retries: int, way: str, fake_sweep, script: Script
) -> None:
    words = [word.replace("n_trials=5", "n_trials=1") for word in SEARCH] + ["seed=1", f"sweep.retries={retries}"]
    done = fake_sweep(*words, sabotage={1: f"once {way}"})
    assert done.returncode == (0 if retries else 1)
    assert trials()[0].state.name == ("COMPLETE" if retries else "FAIL")
    assert trials()[0].intermediate_values.keys() == ({1, 2} if retries else {1})


@pytest.mark.slow
@pytest.mark.parametrize(("pruner", "prunes"), [("median", True), ("successive_halving", True), ("none", False)])
def test_hopeless_trials_are_stopped_and_failed_ones_are_known(
    pruner: str, prunes: bool, fake_sweep, script: Script
) -> None:
    """After five good trials, one that learns nothing is behind the median from its first epoch on."""
    words = [
        word for word in SEARCH if not word.startswith(("optimizer.lr", "model.", "trainer.limit", "hydra.sweeper"))
    ]
    words += [
        "trainer.limit_epochs=4",
        "hydra.sweeper.n_trials=10",
        "hydra.sweeper.sampler=random",
        f"hydra.sweeper.pruner={pruner}",
    ]
    script.accuracy = lambda config, epoch: learned(config, epoch) if config.optimizer.lr > 1e-3 else 0.1
    done = fake_sweep(*words, "optimizer.lr=0.03,1e-6")
    assert done.returncode == 0, done.stdout
    by_lr: dict[str, set[str]] = {}
    for outcome in outcomes_of():
        by_lr.setdefault(outcome.overrides["optimizer.lr"], set()).add(outcome.state)
    assert by_lr["0.03"] == {"completed"}
    assert ("pruned" in by_lr["1e-06"]) == prunes
    states = {trial.state.name for trial in trials()}
    assert states == ({"COMPLETE", "PRUNED"} if prunes else {"COMPLETE"})
    assert fake_sweep("resume", "sweep").returncode == 0
    assert len(script.started) == 10  # none of them once more
