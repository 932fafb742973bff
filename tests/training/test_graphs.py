from __future__ import annotations

import pytest
import torch

from era_cnn.data.batches import Batch, Mixed
from era_cnn.models.build import build_from_config
from era_cnn.randomness import seed_torch
from era_cnn.runs.process import set_up
from era_cnn.training.graphs import RecordedSteps
from era_cnn.training.objective import Objective
from tests.conftest import config_of

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@CUDA
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mixed", ["never", "always", "at first"])
def test_recorded_steps_have_the_bits_of_those_that_are_not(precision: str, mixed: str) -> None:
    with set_up(threads=1):
        check_bits(torch.device("cuda"), precision, mixed)


def check_bits(device: torch.device, precision: str, mixed: str) -> None:
    config = config_of("experiment=model_3")
    usual, recorded = (build_from_config(config).cuda().train() for _ in range(2))
    recorded.load_state_dict(usual.state_dict())
    objective = Objective(usual, precision=precision)
    replayed = RecordedSteps(Objective(recorded, precision=precision))
    images, labels = torch.randn(32, 1, 28, 28, device="cuda"), torch.arange(32, device="cuda") % 10
    for number, size in enumerate((32, 7, 32, 7, 32)):
        shuffled = labels[:size].roll(number)
        is_mixed = mixed == "always" or (mixed == "at first" and number < 2)
        other = Mixed(shuffled.flip(0), torch.rand(size, device="cuda", dtype=torch.float64)) if is_mixed else None
        batch = Batch(images[:size].roll(number, 0), shuffled, other)
        results = []
        for backward in (objective.backward, replayed.backward):
            seed_torch(device, number)
            results.append(backward(batch))
        for one, another in zip(*results, strict=True):
            assert torch.equal(one, another)
        for one, another in zip(usual.parameters(), recorded.parameters(), strict=True):
            assert torch.equal(one.grad, another.grad)
        for one, another in zip(usual.buffers(), recorded.buffers(), strict=True):
            assert torch.equal(one, another)
        with torch.no_grad():
            for network in (usual, recorded):
                for parameter in network.parameters():
                    parameter -= 0.01 * parameter.grad
