from __future__ import annotations

import pytest
import torch

from era_cnn.data.batches import Split
from era_cnn.data.digits import read_digits


@pytest.fixture(scope="session")
def split() -> Split:
    """The first 200 digits."""
    arrays = read_digits(1437)
    return Split.on(torch.device("cpu"), arrays.train_images, arrays.train_labels).first(200)
