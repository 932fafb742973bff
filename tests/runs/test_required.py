from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from era_cnn.runs.parts import make_parts, read_data
from era_cnn.runs.required import check_train_accuracy
from tests.conftest import config_of

WORDS = ("experiment=model_4_digits", "trainer=overfit", "threads=1", "device=cpu", "hydra.run.dir=run")


@pytest.mark.slow
def test_a_recipe_that_learns_a_batch_by_heart_completes(command) -> None:
    code, out, _ = command(*WORDS, "trainer.limit_epochs=5")
    assert code == 0
    assert "5 epochs on digits (32 × 20 = 640 training + 360 test images)" in out
    assert "Train accuracy without augmentation and dropout: 100.00%, as required" in out
    assert json.loads(Path("run", "result.json").read_text(encoding="utf-8"))["target"]["met"] is False
    assert "not met by a trial run (trainer.limit_epochs=5, trainer.limit_train_images=32)" in out


@pytest.mark.slow
def test_one_that_does_not_fails_and_says_what_to_try(command) -> None:
    code, _, err = command(*WORDS, "trainer.limit_epochs=1", "optimizer.lr=1e-9")
    line, folder, next_ = err.splitlines()[-3:]  # a busy machine is mentioned before
    assert code == 1
    assert line.startswith(
        "trainer.required_train_accuracy must be reached on the training images as they are, 1.0, got "
    )
    assert line.endswith("Try augmentation=none, model.dropout=0 and another optimizer.lr, and look at the labels.")
    assert not Path("run", "result.json").exists()
    assert folder == "Run folder: run"
    assert next_.startswith("To try other learning rates: era-cnn find-lr experiment=model_4_digits trainer=overfit ")
    code, _, again = command("resume", "run")
    assert (code, again.splitlines()[-3]) == (1, line)


def test_the_images_are_those_of_one_batch_as_they_are() -> None:
    config = config_of(*WORDS[:-1], "augmentation=mixup", "model.dropout=0.9")
    parts = make_parts(config, read_data(config), torch.device("cpu"))
    assert len(parts.train) == 20
    assert config.num_train_images == 20 * 32
    assert len(parts.train.split.images.unique(dim=0)) == 32
    accuracy = config.trainer.model_copy(update={"required_train_accuracy": 0.0})
    lines = {check_train_accuracy(config.model_copy(update={"trainer": accuracy}), parts) for _ in range(3)}
    assert len(lines) == 1


@pytest.mark.parametrize("experiment", ["model_4", "cifar10_small"])
def test_the_batch_is_that_of_the_recipe(experiment: str) -> None:
    trainer = config_of(f"experiment={experiment}", "trainer=overfit").trainer
    assert trainer.limit_train_images == trainer.batch_size
