from __future__ import annotations

import pytest
import torch

from era_cnn.models.build import build_from_config
from era_cnn.training.graphs import record_graphs
from tests.conftest import config_of


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_steps_are_those_that_are_not() -> None:
    usual, recorded = (build_from_config(config_of("experiment=model_3", "model.dropout=0")).cuda() for _ in range(2))
    images = torch.randn(32, 1, 28, 28, device="cuda")
    record_graphs(recorded, images, "fp32")
    for batch in (images, images[:7], images.flip(0)):
        for network in (usual, recorded):
            network.zero_grad()
            network(batch).square().mean().backward()
        for one, other in zip(usual.parameters(), recorded.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    for one, other in zip(usual.buffers(), recorded.buffers(), strict=True):
        torch.testing.assert_close(one, other)
