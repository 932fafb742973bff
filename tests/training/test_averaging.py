from __future__ import annotations

import pytest
import torch
from torch import nn

from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.training.averaging import Average
from era_cnn.training.evaluate import evaluate
from tests.training.test_checkpoint import Training


def test_two_updates_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = Average(network, decay=0.15)
    network.weight.data.fill_(2.0)
    average.after_step()  # decay (1 + 0) / (10 + 0) = 0.1
    assert average.network.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    network.weight.data.fill_(4.0)
    average.after_step()  # decay min(0.15, 2 / 11)
    assert average.network.weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 4)
    assert average.state_dict()["num_updates"] == 2
    assert network.weight.item() == 4.0


def test_moments_are_averaged_and_integers_copied() -> None:
    norm = nn.BatchNorm1d(2)
    average = Average(norm, decay=0.5)
    norm(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    average.after_step()
    own = average.network
    assert own.num_batches_tracked.item() == 1
    torch.testing.assert_close(own.running_mean, 0.9 * norm.running_mean)
    torch.testing.assert_close(own.running_var, 0.1 * torch.ones(2) + 0.9 * norm.running_var)
    assert not own.training
    assert norm.training


def test_the_average_is_evaluated_and_the_weights_are_left_alone(split) -> None:
    """Each accuracy is that of its own weights: they are made to differ."""
    plain, averaged = Training(split), Training(split, "trainer.ema_decay=0.999")
    plain.run()
    averaged.run()
    for one, other in zip(plain.history, averaged.history, strict=True):
        assert one.test == other.test
        assert other.ema_test is not None
        assert other.ema_test != other.test
        assert (one.ema_test, one.ema_val) == (None, None)
    assert all(torch.equal(one, averaged.state.tensors()[name]) for name, one in plain.state.tensors().items())
    assert averaged.average is not None
    assert evaluate(averaged.average.network, averaged.test).scores() == averaged.history[-1].ema_test


@pytest.mark.slow
def test_an_average_does_not_fall_far_behind_the_weights(split) -> None:
    """As it would with the moments of batch norm from before the training."""
    training = Training(split, "trainer.ema_decay=0.9", "optimizer=adam", epochs=12)
    training.saves = False
    training.run()
    last = training.history[-1]
    assert last.ema_test is not None
    assert last.test is not None
    assert last.ema_test.loss < 1.2 * last.test.loss


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_evaluation_that_fails_leaves_weights_and_average_as_they_are(error: type[BaseException], split) -> None:
    training = Training(split, "trainer.ema_decay=0.9")
    before = {name: tensor.clone() for name, tensor in training.state.tensors().items()}
    assert training.average is not None

    def batches():
        yield from list(training.test)[:1]
        raise error

    with pytest.raises(error):
        evaluate(training.average.network, batches())
    assert all(torch.equal(before[name], tensor) for name, tensor in training.state.tensors().items())


def test_an_average_that_is_not_finite_ends_the_training(split) -> None:
    training = Training(split, "trainer.ema_decay=0.9")
    assert training.average is not None
    training.saves = False
    training.save = lambda step: training.average.network.conv1.norm.running_mean.fill_(torch.nan)  # type: ignore
    with pytest.raises(TrainingError, match="The ema_test loss must stay finite, got nan after epoch 1. Lower"):
        training.run()


def test_a_negative_number_of_updates_is_refused() -> None:
    average = Average(nn.Linear(1, 1), 0.9)
    with pytest.raises(RunFolderError, match="The checkpoint must hold a count as ema.num_updates, got -10. Start"):
        average.load_state_dict({**average.state_dict(), "num_updates": -10})
