from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import era_cnn
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.folders.claims import claim
from era_cnn.folders.result import Result
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig, read_config
from era_cnn.runs.listeners.console import Console
from era_cnn.runs.parts import make_parts, read_data
from era_cnn.runs.process import pick_device
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, StopRequest
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.evaluate import Evaluation, evaluate
from era_cnn.training.fingerprint import weights_sha256
from era_cnn.training.history import EpochMetrics
from era_cnn.training.listeners import Listener, Training
from era_cnn.training.loop import Step
from era_cnn.training.state import Member
from tests.conftest import MNIST_ROOT, config_of
from tests.helpers import slow_but_first

SMALL = [
    "data=digits", "experiment=model_4", "trainer=smoke", "threads=1", "trainer.limit_train_images=128", "trainer.limit_test_images=100",
]  # fmt: skip
ALL_EPOCHS = ["experiment=model_4_digits", "threads=1", "trainer.limit_train_images=160"]
RESULT_KEYS = [
    "schema", "experiment", "seed", "params", "epochs", "best_test_accuracy", "best_test_epoch", "final_test_accuracy",
    "best_train_accuracy", "final_train_accuracy", "final_test_loss", "target", "weights_sha256", "config_sha256",
    "data_sha256", "seconds", "images_per_second",
]  # fmt: skip


def run_in(folder: Path, *overrides: str, listeners: Sequence[Listener] = ()) -> Result:
    config = config_of(*overrides)
    return run(
        StoredConfig(config, digest(config)),
        RunFolder(claim(folder).path),
        Console(is_terminal=False),
        StopRequest(),
        ["era-cnn", *overrides],
        listeners,
    )


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A training over all epochs on some of the digits, and its folder."""
    folder = tmp_path_factory.mktemp("complete") / "run"
    return run_in(folder, *ALL_EPOCHS), folder


@pytest.mark.slow
def test_a_complete_training_learns_the_digits(tmp_path: Path) -> None:
    result = run_in(tmp_path / "run", "experiment=model_4_digits", "threads=1")
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
    assert origin["command"] == ["era-cnn", *ALL_EPOCHS]
    assert origin["packages"]["torch"] == torch.__version__.split("+")[0]
    assert origin["machine"]["threads"] == 1
    assert origin["data_sha256"] == result.data_sha256
    assert origin["config_sha256"] == result.config_sha256
    assert re.fullmatch("[0-9a-f]{64}", origin["code"]["sha256"])
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["device"] in ("cpu", "cuda", "mps")  # resolved
    summary = (folder / "summary.txt").read_text(encoding="utf-8")
    assert "Conv2d-1 " in summary
    assert "gap.pool sees all positions at once; the total is the field before it." in summary
    for name in (each.name for each in (folder / "checkpoints").iterdir()):  # each kind is explained
        assert re.sub(r"\d+|_\w{64}", "", name) in re.sub(r"\d+|_<sha256>", "", summary)
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


def test_a_target_is_not_judged_on_part_of_the_test_set(command) -> None:
    code, out, _ = command(*SMALL, "target.test_accuracy=0.0", "report=false", "hydra.run.dir=run")
    assert (code, json.loads(Path("run", "result.json").read_text(encoding="utf-8"))["target"]["met"]) == (0, None)
    assert "0.00% test accuracy: not judged by 100 of 360 test images (trainer.limit_test_images)" in out


def test_a_limit_that_leaves_no_test_image_out_does_not_keep_a_target_from_being_judged(
    tmp_path: Path, command
) -> None:
    words = ["experiment=model_4_digits", "trainer=smoke", "threads=1", "report=false", "hydra.run.dir=run"]
    code, out, _ = command(*words)
    assert (code, json.loads(Path("run", "result.json").read_text(encoding="utf-8"))["target"]["met"]) == (0, False)
    assert (
        "93.00% test accuracy: not met by a trial run (trainer.limit_epochs=1, trainer.limit_train_images=512)" in out
    )
    path = tmp_path / "run" / "result.json"  # earlier versions wrote null
    path.write_text(path.read_text(encoding="utf-8").replace('"met": false', '"met": null'), encoding="utf-8")
    assert command("replay", "run")[0] == 0


def test_a_target_of_zero_is_one(command) -> None:
    words = ["experiment=model_4_digits", "trainer=smoke", "threads=1", "report=false", "~target"]
    code, out, _ = command(*words, "+target={test_accuracy: 0.0}")
    assert (code, "Target: 0.00% test accuracy: met" in out) == (0, True)


@pytest.mark.parametrize(("more", "met"), [((), None), (("target.max_epochs=20",), True)], ids=["none", "limits"])
def test_only_a_target_can_be_met(more: tuple[str, ...], met: bool | None, tmp_path: Path, command) -> None:
    result = run_in(tmp_path / "run", *SMALL, "~experiment", *more)
    assert (result.experiment, result.target["met"]) == ("model_4", met)
    if met is None:  # earlier versions wrote true
        path = tmp_path / "run" / "result.json"
        path.write_text(path.read_text(encoding="utf-8").replace('"met": null', '"met": true'), encoding="utf-8")
        assert command("replay", "run")[0] == 0


class Heard(Listener):
    """Notes what it hears; fails in the second epoch if it is told to."""

    def __init__(self, *, fails: bool = False, is_essential: bool = False) -> None:
        self.events: list[str] = []
        self.fails, self.is_essential = fails, is_essential

    def on_start(self, training: Training) -> None:
        self.training = training
        self.events.append(f"start {training.config.name} {len(training.history)}")

    def on_step(self, step: Step) -> None:
        if not self.events[-1].startswith("step"):
            self.events.append(f"step {step.epoch}")

    def on_epoch(self, metrics: EpochMetrics) -> None:
        assert self.training.history[-1] == metrics
        folder = self.training.folder  # which has been written and saved by then
        assert len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 1 + metrics.epoch
        assert list((folder / "checkpoints").glob(f"epoch-{metrics.epoch + 1:05d}_step-0000000_*.pt"))
        self.events.append(f"epoch {metrics.epoch}")
        if self.fails and metrics.epoch == 2:
            raise RuntimeError("of no use")

    def on_end(self, result: dict[str, object]) -> None:
        assert not (self.training.folder / "result.json").exists()  # the very last
        assert (self.training.folder / "predictions.npz").exists()
        self.events.append(f"end {result['epochs']}")

    def close(self) -> None:
        self.events.append("close")


THREE = [*SMALL, "trainer.limit_epochs=3"]
ALL = ["start model_4 0", *(f"{what} {epoch}" for epoch in (1, 2, 3) for what in ("step", "epoch")), "end 3", "close"]


def test_a_listener_hears_of_the_whole_run_and_changes_nothing(tmp_path: Path) -> None:
    heard = Heard()
    with_it = run_in(tmp_path / "a", *THREE, listeners=[heard])
    without = run_in(tmp_path / "b", *THREE)
    assert heard.events == ALL
    assert heard.training.folder == tmp_path / "a"
    assert with_it.weights_sha256 == without.weights_sha256


def test_a_listener_that_fails_is_left_out_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = Heard(fails=True), Heard()
    result = run_in(tmp_path / "run", *THREE, listeners=[failing, other])
    assert result.epochs == 3
    assert failing.events == [*ALL[: ALL.index("epoch 2") + 1], "close"]
    assert other.events == ALL
    said = "The listener Heard failed in on_epoch and is no longer called, got RuntimeError: of no use."
    assert capsys.readouterr().err.count(said) == 1
    assert (tmp_path / "run" / "result.json").exists()


def test_an_essential_listener_that_fails_ends_the_run_which_can_be_resumed(tmp_path: Path) -> None:
    failing, other = Heard(fails=True, is_essential=True), Heard()
    with pytest.raises(RuntimeError, match="of no use"):
        run_in(tmp_path / "run", *THREE, listeners=[failing, other])
    assert other.events == [*ALL[: ALL.index("epoch 2")], "close"]
    assert not (tmp_path / "run" / "result.json").exists()
    folder = RunFolder(tmp_path / "run")
    resumed = run(read_config(folder), folder, Console(is_terminal=False), StopRequest())
    assert resumed.weights_sha256 == run_in(tmp_path / "unbroken", *THREE).weights_sha256


class Steps(Member):
    """A part of the state that a listener brings."""

    def __init__(self) -> None:
        self.steps = torch.zeros(1)

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.steps.copy_(state["steps"])


class Counting(Listener):
    """Brings a member, and stops the run in its second epoch if it is told to."""

    is_essential = True

    def __init__(self, *, stops: bool = False) -> None:
        self.member, self.stops = Steps(), stops

    def on_start(self, training: Training) -> None:
        training.state.add("count", self.member)

    def on_step(self, step: Step) -> None:
        self.member.steps += 1
        if self.stops and step.epoch == 2:
            raise Interrupted(signal.SIGTERM)


def test_what_a_listener_adds_to_the_state_is_saved_restored_and_fingerprinted(tmp_path: Path) -> None:
    whole, begun, resumed = Counting(), Counting(stops=True), Counting()
    run_in(tmp_path / "unbroken", *THREE, listeners=[whole])
    with pytest.raises(Interrupted):
        run_in(tmp_path / "run", *THREE, listeners=[begun])
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(
        RunFolderError, match="A checkpoint must hold network, optimizer, got a difference in count. Res"
    ):
        run(read_config(folder), folder, Console(is_terminal=False), StopRequest())
    run(read_config(folder), folder, Console(is_terminal=False), StopRequest(), [], [resumed])
    assert torch.equal(whole.member.steps, resumed.member.steps)
    prints = RunFolder(tmp_path / "unbroken").read_fingerprints()
    assert folder.read_fingerprints() == prints
    assert list(prints[1])[-1] == "count.steps"
    assert len({prints[epoch]["count.steps"] for epoch in (1, 2, 3)}) == 3


def evaluated(folder: Path, name: str, config: RunConfig) -> Evaluation:
    """The test set as the newest or the best checkpoint of a run evaluates it."""
    (path,) = [sorted((folder / "checkpoints").glob(name))[-1]]
    parts = make_parts(config, read_data(config), torch.device("cpu"))
    parts.state.load_state_dict(Checkpoint.from_bytes(path.read_bytes(), torch.device("cpu")).state)
    return evaluate(parts.state.network, parts.test, precision=config.precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_predictions_are_those_of_the_final_weights(precision: str, tmp_path: Path) -> None:
    overrides = [*THREE, f"precision={precision}", "device=cpu"]
    result = run_in(tmp_path / "run", *overrides)
    final = evaluated(tmp_path / "run", "epoch-*", config_of(*overrides))
    with np.load(tmp_path / "run" / "predictions.npz") as arrays:
        assert set(arrays) == {"labels", "predicted", "logits"}
        assert np.array_equal(arrays["labels"], read_data(config_of(*overrides)).test_labels[:100])
        assert np.array_equal(arrays["logits"], final.logits.numpy())
        assert np.array_equal(arrays["predicted"], arrays["logits"].argmax(axis=1))
        assert (arrays["logits"].dtype, arrays["labels"].dtype) == (np.float32, np.int64)
        assert (arrays["predicted"] == arrays["labels"]).mean() == result.final_test_accuracy


VAL = [
    "data=digits", "experiment=model_4", "trainer=smoke", "data.val_size=200", "trainer.limit_epochs=4", "device=cpu",
    "threads=1", "trainer.limit_train_images=300", "optimizer.lr=0.3",
]  # fmt: skip


@pytest.mark.parametrize("seed", slow_but_first([1, 2, 3]))
def test_with_validation_images_the_best_weights_predict_as_well(seed: int, tmp_path: Path) -> None:
    overrides = [*VAL, f"seed={seed}"]
    result = run_in(tmp_path / "run", *overrides)
    config = config_of(*overrides)
    best, final = (evaluated(tmp_path / "run", name, config) for name in ("best_*", "epoch-*"))
    with np.load(tmp_path / "run" / "predictions.npz") as arrays:
        assert set(arrays) == {"labels", "predicted", "logits", "best_predicted", "best_logits"}
        assert np.array_equal(arrays["logits"], final.logits.numpy())
        assert np.array_equal(arrays["best_logits"], best.logits.numpy())
        assert np.array_equal(arrays["best_predicted"], best.predictions().numpy())
        is_last = result.best_val_epoch == result.epochs
        assert np.array_equal(arrays["logits"], arrays["best_logits"]) == is_last
    path = next((tmp_path / "run" / "checkpoints").glob("best_*"))
    last = sorted((tmp_path / "run" / "checkpoints").glob("epoch-*"))[-1]
    assert path.name.startswith(f"best_epoch-{result.best_val_epoch:05d}_")
    final_network = make_parts(config, read_data(config), torch.device("cpu")).state.network
    final_network.load_state_dict(Checkpoint.from_bytes(last.read_bytes(), torch.device("cpu")).state["network"])
    assert weights_sha256(final_network) == result.weights_sha256  # of the final weights, though others were loaded


Change = Callable[[bytes, bytes], bytes | None]


class ChangesTheBest(Listener):
    """Someone who replaces the best checkpoint before the end; its name still fits its content."""

    def __init__(self, change: Change) -> None:
        self.change, self.is_best_last = change, True

    def on_start(self, training: Training) -> None:
        self.folder, self.history = training.folder / "checkpoints", training.history

    def on_epoch(self, metrics: EpochMetrics) -> None:
        if metrics.epoch == 4 and not self.history.is_best_so_far:
            self.is_best_last = False
            (path,) = self.folder.glob("best_*")
            last = sorted(self.folder.glob("epoch-*"))[-1]
            content = self.change(path.read_bytes(), last.read_bytes())
            path.unlink()
            if content is not None:
                name = f"{path.stem.rpartition('_')[0]}_{hashlib.sha256(content).hexdigest()}.pt"
                (self.folder / name).write_bytes(content)


def without_a_weight(best: bytes, last: bytes) -> bytes:
    values = torch.load(io.BytesIO(best), weights_only=True)
    values["state"]["network"].popitem()
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda best, last: best, ""),
        (lambda best, last: None, "the best checkpoint is damaged or missing."),
        (lambda best, last: b"damaged", "A checkpoint must hold a training, got BadZipFile"),
        (lambda best, last: last, "the best checkpoint must hold the weights of epoch "),
        (without_a_weight, "The checkpoint must hold the names that the config gives as weights"),
    ],
)
def test_only_the_weights_of_the_best_epoch_predict_as_such(
    change: Change, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2, 3):  # one whose best epoch is not the last
        changes = ChangesTheBest(change)
        run_in(tmp_path / f"{seed}", *VAL, f"seed={seed}", listeners=[changes])
        if not changes.is_best_last:
            break
    assert not changes.is_best_last
    with np.load(tmp_path / f"{seed}" / "predictions.npz") as arrays:
        assert ("best_logits" in arrays) == (not said)
    warned = capsys.readouterr().err
    assert (f"predictions.npz has no predictions of the best weights: {said}" in warned) == bool(said)


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.skipif(MNIST_ROOT is None, reason="ERA_CNN_DATA is not set")
@pytest.mark.parametrize("experiment", ["model_2", "model_3", "model_4"])
def test_a_short_training_on_real_mnist(experiment: str, tmp_path: Path) -> None:
    result = run_in(
        tmp_path / "run",
        f"experiment={experiment}",
        f"data.root={MNIST_ROOT}",
        "threads=1",
        "trainer.limit_epochs=1",
        "trainer.limit_train_images=3200",
        "trainer.batch_size=32",
        "trainer.limit_test_images=500",
    )
    # After 100 steps of 32 images each of them is far beyond chance, 10%.
    assert result.final_test_accuracy > 0.6


def test_the_loss_within_epochs_adds_up_to_that_of_the_epoch(complete: tuple[Result, Path]) -> None:
    run = era_cnn.load(complete[1])
    num_images = run.config.num_train_images
    for metrics in run.metrics:
        rows = [row for row in run.steps if row["epoch"] == metrics["epoch"]]
        assert [row["step"] for row in rows] == list(range(1, -(-num_images // 32) + 1))  # fewer steps than windows
        assert sum(row["images"] for row in rows) == num_images
        mean = sum(row["loss"] * row["images"] for row in rows) / num_images
        assert mean == pytest.approx(metrics["train_loss"])
        assert rows[-1]["lr"] == metrics["lr"]
