from __future__ import annotations

import pytest
import torch

from era_cnn.data.batches import Batch
from era_cnn.models.build import build_from_config
from era_cnn.training.evaluate import evaluate
from era_cnn.training.objective import Objective
from era_cnn.training.precision import autocast
from tests.conftest import config_of

CPU = torch.device("cpu")


def test_bf16_computes_convolutions_in_bf16_and_keeps_weights_in_fp32() -> None:
    network = build_from_config(config_of("experiment=model_3"))
    images = torch.randn(4, 1, 28, 28)
    network.train()
    with autocast(CPU, "bf16"):
        logits = network(images)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}
    with autocast(CPU, "fp32"):
        assert network(images).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns_in_either_precision(precision: str, command) -> None:
    words = ("experiment=model_4_digits", "threads=1", "trainer.limit_epochs=2", f"precision={precision}")
    code, out, err = command(*words)
    assert code == 0, err
    assert (", bf16" in out) == (precision == "bf16")
    accuracy = float(out.split("Final test accuracy:")[1].split("%")[0])
    assert accuracy > 60  # a tenth by chance


def test_a_step_and_an_evaluation_forward_in_their_precision_and_nothing_else() -> None:
    network = build_from_config(config_of("experiment=model_3"))
    seen = []
    network.register_forward_hook(lambda module, inputs, logits: seen.append(logits.dtype))
    network.logits.register_full_backward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    batch = Batch(torch.randn(4, 1, 28, 28), torch.arange(4))
    loss, logits = Objective(network, precision="bf16").backward(batch)
    assert seen == [torch.bfloat16, False]
    assert (loss.dtype, logits.dtype) == (torch.float32, torch.float32)
    evaluate(network, [batch], precision="bf16")
    evaluate(network, [batch])
    assert seen[2:] == [torch.bfloat16, torch.float32]
