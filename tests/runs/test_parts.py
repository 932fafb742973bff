from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from era_cnn.runs import parts
from era_cnn.runs.parts import make_splits, read_data
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
