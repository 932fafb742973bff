from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from era_cnn.folders.result import Result
from era_cnn.runs.listeners.console import Console, announce_average, describe_result, describe_step
from era_cnn.training.evaluate import Tally
from era_cnn.training.history import EpochMetrics, Scores
from era_cnn.training.loop import Step
from tests.conftest import config_of

CLEARED = "\r\033[K"
"""What removes a line from a terminal."""


def step_of(step: int, num_steps: int = 938) -> Step:
    tally = Tally(torch.device("cpu"))
    tally.add(torch.tensor(0.05036), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    return Step(epoch=1, step=step, num_steps=num_steps, lr=0.01, tally=tally, seconds=1.0)


def metrics_of(accuracy: float = 0.984) -> EpochMetrics:
    test = Scores(0.05311, accuracy, round(accuracy * 10000), 10000)
    return EpochMetrics(1, 0.01, 0.2, 0.9387, 60.0, None, test, {})


def result_of(**changes: object) -> Result:
    values = {
        "schema": 1, "experiment": "model_4", "seed": 1, "params": 7616, "epochs": 15, "best_test_accuracy": 0.9935,
        "best_test_epoch": 8, "final_test_accuracy": 0.9933, "best_train_accuracy": 0.9926,
        "final_train_accuracy": 0.9926, "final_test_loss": 0.02, "best_val_accuracy": None, "best_val_epoch": None,
        "final_val_accuracy": None, "target": {"met": True}, "weights_sha256": "", "config_sha256": "",
        "data_sha256": "", "seconds": 450.0, "images_per_second": 2000.0,
    }  # fmt: skip
    return Result(**{**values, **changes})


def test_averaged_weights_say_how_far_they_look_back(capsys: pytest.CaptureFixture[str]) -> None:
    announce_average(Console(is_terminal=False), 0.999, num_steps=14_070)
    assert capsys.readouterr() == ("Averaged weights look back over about 1,000 of 14,070 steps\n", "")


@pytest.mark.parametrize(("num_steps", "reached", "back"), [(400, "0.978", 45), (1, "0.1", 1)])
def test_a_decay_that_is_not_reached_is_warned_of(
    num_steps: int, reached: str, back: int, capsys: pytest.CaptureFixture[str]
) -> None:
    announce_average(Console(is_terminal=False), 0.999, num_steps=num_steps)
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        f"got 0.999, and at most {reached}: averaged weights look back over about {back} of {num_steps} steps." in err
    )


def test_the_line_of_an_epoch_is_that_of_the_reference_log() -> None:
    assert describe_step(step_of(937)) == "EPOCH:1 Loss=0.0504 Batch_id=937 Accuracy=75.00 LR=0.01"


def test_without_a_terminal_a_line_an_epoch_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(is_terminal=False)
    for step in range(938):
        console.on_step(step_of(step))
    console.on_epoch(metrics_of())
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "EPOCH:1 Loss=0.0504 Batch_id=937 Accuracy=75.00 LR=0.01",
        "Test set: Average loss: 0.0531, Accuracy: 9840/10000 (98.40%)",
    ]
    assert captured.err == ""


def in_terminal(epochs: int = 3) -> Console:
    console = Console(is_terminal=True)
    training: Any = SimpleNamespace(config=SimpleNamespace(trainer=SimpleNamespace(epochs_to_run=epochs)))
    console.on_start(training)
    return console


def test_in_a_terminal_the_same_lines_stand_above_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = in_terminal()
    for step in range(5):
        console.on_step(step_of(step, num_steps=5))
    console.on_epoch(metrics_of())
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "EPOCH:1 Loss=0.0504 Batch_id=4 Accuracy=75.00 LR=0.01",
        "Test set: Average loss: 0.0531, Accuracy: 9840/10000 (98.40%)",
    ]
    assert captured.err.startswith("\repoch 1 of 3 |")
    assert captured.err.endswith(CLEARED)


def test_a_complaint_stands_instead_of_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = in_terminal()
    console.on_step(step_of(0))
    console.complain("Interrupted.")
    assert capsys.readouterr().err.endswith(f"{CLEARED}Interrupted.\n")


def test_a_quiet_run_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(is_terminal=True, quiet=True)
    console.on_step(step_of(0))
    assert capsys.readouterr().err == ""


def test_an_interrupted_bar_is_removed_once(capsys: pytest.CaptureFixture[str]) -> None:
    console = in_terminal()
    console.on_step(step_of(0))
    console.close()
    console.close()
    assert capsys.readouterr().err.count(CLEARED) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "99.00% test accuracy: met"),
        ({"final_test_accuracy": 0.98}, "99.00% test accuracy: met in the best epoch, not in the last one"),
        ({"target": {"met": False}}, "at most 8,000 parameters, at most 15 epochs, 99.00% test accuracy: not met"),
    ],
)
def test_the_end_says_whether_the_target_was_met(changes: dict[str, object], words: str) -> None:
    assert words in describe_result(result_of(**changes), config_of()).splitlines()[3]


def test_the_best_accuracy_never_stands_alone() -> None:
    lines = describe_result(result_of(), config_of()).splitlines()
    assert lines[0] == "Best test accuracy:   99.35% in epoch 8 (chosen on the test set)"
    assert lines[1] == "Final test accuracy:  99.33%"
    assert "2,000 images/s, 30.0 s per training epoch" in lines[4]
    with_val = result_of(best_val_accuracy=0.99, best_val_epoch=3, final_val_accuracy=0.98)
    text = describe_result(with_val, config_of())
    assert "(test set evaluated once)" in text
    assert "Best validation accuracy: 99.00% in epoch 3" in text
