from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from era_cnn.runs import parts as ingredients
from era_cnn.runs.parts import make_splits, read_dataset
from tests.conftest import config_of


def test_the_runs_of_a_process_share_a_data_set() -> None:
    first = read_dataset(config_of("data=digits"))
    assert read_dataset(config_of("data=digits", "seed=2")) is first
    assert read_dataset(config_of("data=digits", "data.train_size=1000")) is not first


def test_a_data_set_is_the_same_however_its_root_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(ingredients, "_idx_data", lambda name, root: read.append((name, root)))
    for root in ("data", "./data", str(tmp_path / "data")):
        read_dataset(config_of(f"data.root={root}"))
    assert read == [("mnist", tmp_path / "data")] * 3


def test_images_are_held_once() -> None:
    config = config_of("data=digits")
    dataset = read_dataset(config)
    train, _, test = make_splits(dataset, config, torch.device("cpu"))
    assert np.shares_memory(train.images.numpy(), dataset.train_images)
    assert np.shares_memory(test.images.numpy(), dataset.test_images)
