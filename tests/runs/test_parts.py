from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from era_cnn.runs import parts
from era_cnn.runs.parts import make_splits, make_training_batches, read_data
from tests.conftest import config_of


def test_the_runs_of_a_process_share_a_data_set() -> None:
    first = read_data(config_of("data=digits"))
    assert read_data(config_of("data=digits", "seed=2")) is first
    assert read_data(config_of("data=digits", "data.train_size=1000")) is not first


def test_a_data_set_is_the_same_however_its_root_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, arrays = [], read_data(config_of("data=digits"))
    monkeypatch.setattr("era_cnn.data.idx.read_idx_data", lambda *place: read.append(place) or arrays)
    monkeypatch.setattr(parts, "check_against", lambda arrays, info, name: None)
    parts._shared.cache_clear()
    for root in ("data", "./data", str(tmp_path / "data")):
        read_data(config_of(f"data.root={root}"))
    assert read == [("mnist", tmp_path / "data")]


def test_images_are_held_once() -> None:
    config = config_of("data=digits")
    dataset = read_data(config)
    train, _, test = make_splits(dataset, config, torch.device("cpu"))
    assert np.shares_memory(train.images.numpy(), dataset.train_images)
    assert np.shares_memory(test.images.numpy(), dataset.test_images)


@pytest.mark.parametrize("limit", ["null", "1"])
def test_the_last_epochs_of_the_recipe_are_not_augmented_however_many_are_trained(limit: str) -> None:
    words = ("experiment=model_4_digits", "trainer.epochs=5", f"trainer.limit_epochs={limit}")
    train, _, _ = make_splits(read_data(config_of(*words)), config_of(*words), torch.device("cpu"))
    plain = make_training_batches(train, config_of(*words))
    for unaugmented in (0, 2):
        changed = ("augmentation=affine", f"trainer.unaugmented_epochs={unaugmented}")
        batches = make_training_batches(train, config_of(*words, *changed))
        for epoch in range(1, 8):
            one, other = (next(each.epoch(epoch)).images for each in (batches, plain))
            assert torch.equal(one, other) == (unaugmented > 0 and epoch > 3)
