from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from era_cnn.config.versions import digest
from era_cnn.errors import ConfigError
from era_cnn.folders.claims import claim
from era_cnn.folders.result import Result
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig
from era_cnn.runs.listeners.console import Console
from era_cnn.runs.process import pick_device
from era_cnn.runs.run import run
from era_cnn.runs.stopping import StopRequest
from era_cnn.training.fingerprint import weights_sha256
from tests.conftest import MNIST_ROOT, config_of

SMALL = ["data=digits", "experiment=model_4", "trainer=smoke", "threads=1"]
RESULT_KEYS = [
    "schema", "experiment", "seed", "params", "epochs", "best_test_accuracy", "best_test_epoch", "final_test_accuracy",
    "best_train_accuracy", "final_train_accuracy", "final_test_loss", "target", "weights_sha256", "config_sha256",
    "data_sha256", "seconds", "images_per_second",
]  # fmt: skip


def run_in(folder: Path, *overrides: str) -> Result:
    config = config_of(*overrides)
    return run(
        StoredConfig(config, digest(config)),
        RunFolder(claim(folder).path),
        Console(is_terminal=False),
        StopRequest(),
        ["era-cnn", *overrides],
    )


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A complete training on the digits, and its folder."""
    folder = tmp_path_factory.mktemp("complete") / "run"
    return run_in(folder, "experiment=model_4_digits"), folder


def test_a_complete_training_learns_the_digits(complete: tuple[Result, Path]) -> None:
    result, _ = complete
    assert result.epochs == 15
    assert result.params == 7_616
    assert result.best_test_accuracy >= result.final_test_accuracy > 0.9
    assert result.best_train_accuracy >= result.final_train_accuracy > 0.98
    assert result.target == {"max_params": 8000, "max_epochs": 15, "test_accuracy": 0.93, "met": True}


def test_result_json_holds_every_key(complete: tuple[Result, Path]) -> None:
    result, folder = complete
    saved = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert saved == result.to_json()
    assert set(RESULT_KEYS) <= set(saved)
    assert saved["schema"] == 1
    assert all(re.fullmatch("[0-9a-f]{64}", saved[key]) for key in saved if key.endswith("sha256"))
    assert saved["images_per_second"] > 0


def test_the_result_can_be_drawn_again_from_the_metrics(complete: tuple[Result, Path]) -> None:
    result, folder = complete
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["test_accuracy"]) for row in rows]
    assert len(rows) == 15
    assert max(accuracies) == result.best_test_accuracy
    assert accuracies.index(max(accuracies)) + 1 == result.best_test_epoch
    assert accuracies[-1] == result.final_test_accuracy
    assert float(rows[-1]["test_loss"]) == result.final_test_loss
    assert [round(float(row["lr"]), 8) for row in rows] == [0.01] * 6 + [0.001] * 6 + [0.0001] * 3


def test_the_folder_tells_where_the_result_comes_from(complete: tuple[Result, Path]) -> None:
    result, folder = complete
    origin = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert origin["command"] == ["era-cnn", "experiment=model_4_digits"]
    assert origin["packages"]["torch"] == torch.__version__.split("+")[0]
    assert origin["machine"]["threads"] == 2
    assert origin["data_sha256"] == result.data_sha256
    assert origin["config_sha256"] == result.config_sha256
    assert re.fullmatch("[0-9a-f]{64}", origin["code"]["sha256"])
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["device"] in ("cpu", "cuda", "mps")  # resolved
    assert "Conv2d-1 " in (folder / "summary.txt").read_text(encoding="utf-8")
    assert not list(folder.glob("*.partial"))


def test_the_same_seed_gives_the_same_result_in_another_folder(tmp_path: Path) -> None:
    first = run_in(tmp_path / "a", *SMALL).to_json()
    second = run_in(tmp_path / "another place" / "ü", *SMALL).to_json()
    for result in (first, second):
        del result["seconds"], result["images_per_second"]
    assert first == second


@pytest.mark.parametrize("override", ["seed=2", "model.dropout=0.11", "augmentation=none", "trainer.batch_size=63"])
def test_anything_that_matters_gives_another_result(override: str, tmp_path: Path) -> None:
    first, second = run_in(tmp_path / "a", *SMALL), run_in(tmp_path / "b", *SMALL, override)
    assert first.weights_sha256 != second.weights_sha256
    assert first.config_sha256 != second.config_sha256


def test_with_validation_images_every_choice_is_made_on_them(tmp_path: Path) -> None:
    result = run_in(tmp_path / "run", *SMALL, "data.val_size=200", "trainer.limit_epochs=2")
    assert result.best_val_epoch in (1, 2)
    assert result.best_test_accuracy == result.final_test_accuracy
    assert result.best_test_epoch == 2
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["test_accuracy"] == ""
    assert float(rows[1]["test_accuracy"]) == result.final_test_accuracy
    assert max(float(row["val_accuracy"]) for row in rows) == result.best_val_accuracy


def test_the_digest_of_the_weights_is_over_names_types_shapes_and_values() -> None:
    def digest(**tensors: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_sha256(module)

    base = digest(a=torch.ones(2, 3), b=torch.zeros(1))
    assert base == digest(b=torch.zeros(1), a=torch.ones(3, 2).t())  # neither order nor layout
    assert base != digest(a=torch.ones(3, 2), b=torch.zeros(1))
    assert base != digest(a=torch.ones(2, 3).double(), b=torch.zeros(1))
    assert base != digest(a=torch.ones(2, 3), c=torch.zeros(1))
    assert base != digest(a=torch.ones(2, 3), b=-torch.zeros(1))


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"device must be available: this machine has .*cpu, got 'cuda'. Use device=auto"
    ):
        pick_device("cuda")


def test_auto_is_a_device_that_is_there() -> None:
    assert torch.zeros(1, device=pick_device("auto")).item() == 0


def test_a_target_is_not_judged_on_part_of_the_test_set(tmp_path: Path) -> None:
    assert run_in(tmp_path / "run", *SMALL, "target.test_accuracy=0.0").target["met"] is None


@pytest.mark.mnist
@pytest.mark.skipif(MNIST_ROOT is None, reason="ERA_CNN_DATA is not set")
@pytest.mark.parametrize("experiment", ["model_2", "model_3", "model_4"])
def test_a_short_training_on_real_mnist(experiment: str, tmp_path: Path) -> None:
    result = run_in(
        tmp_path / "run",
        f"experiment={experiment}",
        f"data.root={MNIST_ROOT}",
        "trainer.limit_epochs=1",
        "trainer.limit_train_images=6400",
        "trainer.batch_size=64",
        "trainer.limit_test_images=2000",
    )
    # After 100 steps of 64 images each of them is far beyond chance, 10 %.
    assert result.final_test_accuracy > 0.6
