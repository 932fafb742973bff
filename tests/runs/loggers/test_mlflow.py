"""MLflow: what its store holds after runs that are resumed, fail, or share it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import era_cnn
from era_cnn.folders.claims import locked
from era_cnn.runs.loggers import mlflow as module
from era_cnn.runs.loggers.mlflow import FILE, MLflow
from era_cnn.runs.loggers.sink import LoggedRun
from tests.helpers import needs
from tests.process import Command
from tests.runs.listeners.test_logging import DIVERGING, SMALL, Failing, log_of

pytestmark = needs("mlflow", "mlflow")

LOGGED = [*SMALL, "logger=mlflow"]
ID = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, which takes seconds to create."""
    file = tmp_path_factory.mktemp("store") / FILE
    with module._silent():
        module._create(file)
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of the current folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return Path(shutil.copy(empty_store, tmp_path / FILE))


def client_of(file: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{file}")


def runs_in(file: Path) -> list[Any]:
    client = client_of(file)
    return list(client.search_runs([client.get_experiment_by_name("era_cnn").experiment_id]))


def points(file: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client_of(file).get_metric_history(run_id, name)]


@pytest.mark.slow
def test_mlflow_holds_each_point_once_also_after_a_resume(store: Path) -> None:
    with pytest.raises(RuntimeError, match="the power is off"):
        era_cnn.train(LOGGED, folder="run", quiet=True, listeners=[Failing()])
    (failed,) = runs_in(store)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["era_cnn.failure"] == "the power is off"
    Path("run").rename("moved")
    run = era_cnn.resume("moved", quiet=True)
    (logged,) = runs_in(store)
    assert logged.info.run_id == failed.info.run_id
    assert logged.info.status == "FINISHED"
    assert "era_cnn.failure" not in logged.data.tags
    for name in ("lr", "train_loss", "test_accuracy"):
        expected = [(row["epoch"], row[name]) for row in run.metrics]
        assert points(store, logged.info.run_id, name) == expected
    assert logged.data.metrics["final_test_accuracy"] == run.result["final_test_accuracy"]
    assert logged.data.params["optimizer.lr"] == "0.01"
    artifacts = sorted(each.path for each in client_of(store).list_artifacts(logged.info.run_id))
    assert artifacts == ["config.yaml", "confusion_matrix.png", "misclassified.png"]
    assert "logger=mlflow must" not in log_of(run)


@pytest.mark.slow
def test_the_tag_of_a_run_that_diverged_says_where(store: Path) -> None:
    with pytest.raises(era_cnn.TrainingError, match="must stay finite"):
        era_cnn.train([*LOGGED, *DIVERGING], folder="run", quiet=True)
    (logged,) = runs_in(store)
    assert re.match(r"The .* must stay finite, got nan .* epoch 1\b", logged.data.tags["era_cnn.failure"])


def sink_of(tmp_path: Path, **settings: str) -> MLflow:
    (tmp_path / "config.yaml").touch()
    return MLflow(LoggedRun(tmp_path, ID, settings))


@pytest.mark.slow
def test_more_parameters_than_a_call_takes_and_the_longest_values(store: Path, tmp_path: Path) -> None:
    settings = {f"model.layers.conv{number}.out_channels": "é" * 250 for number in range(2 * module.MOST_PARAMS + 1)}
    sink_of(tmp_path, **settings).close()
    (logged,) = runs_in(store)
    assert logged.data.params == settings


@pytest.mark.slow
def test_a_setting_that_differs_after_a_resume_becomes_a_tag(store: Path, tmp_path: Path) -> None:
    sink_of(tmp_path, threads="1", device="cpu").close()
    assert runs_in(store)[0].info.status == "KILLED"
    sink = sink_of(tmp_path, threads="2", device="cpu", added="1")
    (logged,) = runs_in(store)
    assert logged.info.status == "RUNNING"
    assert logged.data.params == {"threads": "1", "device": "cpu", "added": "1"}
    assert {key: value for key, value in logged.data.tags.items() if key.startswith("resumed.")} == {
        "resumed.threads": "2"
    }
    sink.close()


@pytest.mark.slow
def test_a_result_that_is_sent_again_has_no_second_point(store: Path, tmp_path: Path) -> None:
    result = {
        "epochs": 3,
        "schema": 2,
        "seed": 1,
        "final_test_accuracy": 0.5,
        "best_val_accuracy": None,
        "weights": "x",
    }
    for _ in range(2):
        sink = sink_of(tmp_path)
        sink.finish(result, {})
        sink.close()
    (logged,) = runs_in(store)
    assert logged.data.metrics == {"epochs": 3, "final_test_accuracy": 0.5}
    assert points(store, logged.info.run_id, "final_test_accuracy") == [(3, 0.5)]


@pytest.mark.slow
def test_the_environment_names_another_store_and_experiment(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.db"
    store.rename(other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    sink_of(tmp_path).close()
    assert not store.exists()
    assert client_of(other).get_experiment_by_name("mine") is not None
    assert client_of(other).get_experiment_by_name("era_cnn") is None


@pytest.mark.slow
def test_a_store_in_use_is_waited_for_but_not_for_ever(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.01)
    sink = sink_of(tmp_path)
    with locked(tmp_path, f"{FILE}.lock"), pytest.raises(era_cnn.RunFolderError, match="in use by another process"):
        sink.log(1, {"lr": 1.0})
    sink.close()


@pytest.mark.slow
def test_a_store_that_a_killed_process_left_half_done_is_created_anew(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (f"{FILE}.partial", f"{FILE}.partial-journal"):
        (tmp_path / name).write_bytes(b"half")
    module._create(tmp_path / FILE)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(FILE)) == [FILE]


@pytest.mark.slow
def test_mlflow_sends_no_statistics_of_its_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "false"):
        if before is None:
            monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
        else:
            monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", before)
        with module._silent():
            from mlflow.telemetry.utils import is_telemetry_disabled

            monkeypatch.setattr("mlflow.telemetry.utils._IS_IN_CI_ENV_OR_TESTING", False)
            assert is_telemetry_disabled()
        assert os.environ.get("MLFLOW_DISABLE_TELEMETRY") == before
    assert not is_telemetry_disabled()


@pytest.mark.slow
def test_three_runs_that_begin_at_once_share_an_empty_store(tmp_path: Path) -> None:
    commands = [Command(*LOGGED, f"seed={seed}", f"hydra.run.dir=run_{seed}") for seed in range(3)]
    for command in commands:
        out, err = command.communicate()
        assert command.returncode == 0, err
        assert "logger=mlflow" not in out + err
    logged = runs_in(tmp_path / FILE)
    assert sorted(run.data.params["seed"] for run in logged) == ["0", "1", "2"]
    for run in logged:
        assert run.info.status == "FINISHED"
        assert [step for step, _ in points(tmp_path / FILE, run.info.run_id, "lr")] == [1, 2, 3]
