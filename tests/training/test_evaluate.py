from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from era_cnn.data.batches import EvaluationBatches, Normalise, Split
from era_cnn.models.build import Network, build_from_config
from era_cnn.training.evaluate import Tally, evaluate
from era_cnn.training.precision import autocast
from tests.conftest import config_of

CPU = torch.device("cpu")
NORMALISE = Normalise([0.3], [0.3])


def evaluation(split: Split, batch_size: int = 100) -> EvaluationBatches:
    return EvaluationBatches(split, batch_size=batch_size, normalise=NORMALISE)


def small_network() -> Network:
    return build_from_config(config_of("experiment=model_3", "model.dropout=0.2"))


def test_evaluation_is_exact_whatever_the_batches(split: Split) -> None:
    network = small_network()
    evaluated = evaluate(network, evaluation(split, 200))
    whole, uneven = evaluated.scores(), evaluate(network, evaluation(split, 33)).scores()
    logits = network(NORMALISE(split.images))
    assert whole.loss == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-6)
    assert uneven.loss == pytest.approx(whole.loss, rel=1e-6)
    assert whole.num_correct == uneven.num_correct == int((logits.argmax(1) == split.labels).sum())
    assert whole.accuracy == whole.num_correct / 200
    assert torch.equal(evaluated.predictions(), logits.argmax(1))


def test_the_training_loss_weighs_the_smaller_last_batch_as_it_should() -> None:
    tally = Tally(CPU)
    tally.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 2]))
    tally.add(torch.tensor(5.0), torch.eye(3)[:1], torch.tensor([2]))
    assert tally.loss == (1.0 * 3 + 5.0) / 4
    assert tally.accuracy == 3 / 4


def test_evaluation_changes_nothing(split: Split) -> None:
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, evaluation(split))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 33, 100, 200, 500])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_scores_of_an_evaluation_are_those_taken_batch_by_batch_to_the_bit(
    batch_size: int, precision: str, split: Split
) -> None:
    network = small_network()
    evaluated = evaluate(network, evaluation(split, batch_size), precision=precision)
    tally = Tally(CPU)
    with torch.no_grad():
        for batch in evaluation(split, batch_size):
            with autocast(CPU, precision):
                logits = network(batch.images).float()
            tally.add(F.cross_entropy(logits, batch.labels), logits, batch.labels)
    scores = evaluated.scores()
    assert (scores.loss, scores.accuracy) == (tally.loss, tally.accuracy)
    assert (scores.num_correct, scores.num_images) == (int(tally.num_correct), 200)
    assert evaluated.scores() == scores


def test_an_evaluation_has_the_logits_of_every_image_in_order(split: Split) -> None:
    network = small_network()
    evaluated = evaluate(network, evaluation(split, 33))
    assert evaluated.batch_sizes == (33,) * 6 + (2,)
    assert (evaluated.logits.shape, evaluated.logits.dtype) == ((200, 10), torch.float32)
    assert torch.equal(evaluated.labels, split.labels)
    assert not evaluated.logits.requires_grad
    with torch.no_grad():
        expected = torch.cat([network(batch.images) for batch in evaluation(split, 33)])
    assert torch.equal(evaluated.logits, expected)
    assert not network.training


def test_a_tally_goes_on_from_its_state() -> None:
    tally = Tally(CPU)
    tally.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 2]))
    other = Tally.from_state(tally.state(), CPU)
    assert (other.loss, other.accuracy, other.num_images) == (tally.loss, tally.accuracy, 3)
    assert torch.equal(other.last_loss, torch.tensor(1.0))
