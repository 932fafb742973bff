from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from era_cnn.data.batches import Batch, EvaluationBatches, Normalise, Split, TrainingBatches
from era_cnn.data.digits import read_digits
from era_cnn.errors import TrainingError
from era_cnn.models.build import Network, build_from_config
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.loop import Step, fit, train_step
from era_cnn.training.schedulers import constant, step_decay
from era_cnn.training.state import TrainingState
from tests.conftest import EXPERIMENTS, config_of
from tests.helpers import pipeline_of, schedule_of

CPU = torch.device("cpu")
NORMALISE = Normalise([0.3], [0.3])


@pytest.fixture(scope="module")
def split() -> Split:
    arrays = read_digits(1437)
    return Split.on(CPU, arrays.train_images, arrays.train_labels).first(200)


def training(split: Split, **options) -> TrainingBatches:
    augment = pipeline_of({"rotate": {"degrees": 7.0, "fill": 1}})
    return TrainingBatches(split, batch_size=32, augment=augment, normalise=NORMALISE, seed=1, **options)


def evaluation(split: Split, batch_size: int = 100) -> EvaluationBatches:
    return EvaluationBatches(split, batch_size=batch_size, normalise=NORMALISE)


def small_model() -> Network:
    return build_from_config(config_of("experiment=model_3", "model.dropout=0.2"))


def run_fit(split: Split, model: nn.Module, *, epochs: int = 2, schedule=None, **options) -> list[EpochMetrics]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    options = {"history": History(), **options}
    state = TrainingState(model, optimizer)
    return list(fit(state, schedule or constant(), training(split), epochs=epochs, seed=1, **options))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_makes_a_step_that_changes_every_parameter(experiment: str, split: Split) -> None:
    config = config_of(f"experiment={experiment}")
    model = build_from_config(config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss, logits = train_step(model, Batch(NORMALISE(split.images[:8]), split.labels[:8]), optimizer=optimizer)
    assert torch.isfinite(loss)
    assert logits.shape == (8, 10)
    assert not any(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("experiment", ["model_2", "model_3", "model_4"])
def test_a_model_can_learn_one_batch_by_heart(experiment: str, split: Split) -> None:
    model = build_from_config(config_of(f"experiment={experiment}", "model.dropout=0"))
    batch = Batch(NORMALISE(split.images[:16]), split.labels[:16])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = [train_step(model, batch, optimizer=optimizer)[0].item() for _ in range(60)]
    assert losses[-1] < 0.1 < losses[0]


def test_the_same_seed_gives_the_same_bits(split: Split) -> None:
    models = [small_model(), small_model()]
    history = [run_fit(split, model) for model in models]
    assert [metrics.train_loss for metrics in history[0]] == [metrics.train_loss for metrics in history[1]]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_neither_evaluation_nor_the_global_generator_changes_a_training(split: Split) -> None:
    plain, watched = small_model(), small_model()
    run_fit(split, plain)

    def disturb(step: Step) -> None:
        torch.rand(step.step + 1)

    run_fit(split, watched, test=evaluation(split), on_step=disturb)
    assert all(torch.equal(plain.state_dict()[name], tensor) for name, tensor in watched.state_dict().items())


def test_dropout_is_a_function_of_seed_epoch_and_step(split: Split) -> None:
    masks: list[torch.Tensor] = []
    model = small_model()
    dropout = model.get_submodule("conv1.dropout")
    dropout.register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    run_fit(split.first(64), model, epochs=2)
    again: list[torch.Tensor] = []
    other = small_model()
    other.get_submodule("conv1.dropout").register_forward_hook(lambda m, i, output: again.append(output == 0))
    run_fit(split.first(64), other, epochs=2)
    assert len(masks) == 4
    assert all(torch.equal(one, same) for one, same in zip(masks, again, strict=True))
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_each_epoch_has_metrics_and_each_update_a_step(split: Split) -> None:
    steps: list[tuple[int, int, int]] = []
    history = run_fit(
        split,
        small_model(),
        epochs=3,
        test=evaluation(split),
        on_step=lambda step: steps.append((step.epoch, step.step, step.num_steps)),
    )
    assert [metrics.epoch for metrics in history] == [1, 2, 3]
    assert steps == [(epoch, step, 7) for epoch in (1, 2, 3) for step in range(7)]
    assert all(metrics.test is not None and metrics.val is None for metrics in history)
    assert history[-1].train_loss < history[0].train_loss


def test_with_validation_images_the_test_set_is_looked_at_once(split: Split) -> None:
    history = run_fit(split, small_model(), epochs=3, val=evaluation(split.first(50)), test=evaluation(split))
    assert [metrics.test is None for metrics in history] == [True, True, False]
    assert all(metrics.val is not None for metrics in history)


def test_the_learning_rate_follows_the_schedule_step_by_step(split: Split) -> None:
    lrs: list[float] = []
    schedule = schedule_of("cosine", epochs=2, steps_per_epoch=7, warmup_epochs=1.0, final_factor=0.0)
    run_fit(split, small_model(), schedule=schedule, on_step=lambda step: lrs.append(step.lr))
    assert lrs == [0.01 * schedule(step) for step in range(14)]
    history = run_fit(split, small_model(), schedule=step_decay(7, every_epochs=1, gamma=0.1))
    assert [metrics.lr for metrics in history] == [0.01, pytest.approx(0.001)]


def test_the_schedule_reaches_the_optimizer(split: Split) -> None:
    moved, still = small_model(), small_model()
    before = still.state_dict()["conv1.conv.weight"].clone()
    run_fit(split, moved, epochs=1)
    run_fit(split, still, epochs=1, schedule=lambda step: 0.0)
    assert torch.equal(still.state_dict()["conv1.conv.weight"], before)
    assert not torch.equal(moved.state_dict()["conv1.conv.weight"], before)


def test_label_smoothing_is_cross_entropys_own(split: Split) -> None:
    model = small_model().eval()
    batch = Batch(NORMALISE(split.images[:8]), split.labels[:8])
    expected = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.2).item()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    assert train_step(model, batch, optimizer=optimizer, label_smoothing=0.2)[0].item() == expected


def test_a_loss_that_is_not_finite_ends_the_training(split: Split) -> None:
    model = build_from_config(config_of("model.norm=none"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e20)
    with pytest.raises(
        TrainingError, match="The training loss must stay finite, got .* in epoch 1, step [0-9]. Lower optimizer"
    ):
        list(fit(TrainingState(model, optimizer), constant(), training(split), epochs=2, seed=1, history=History()))


def test_a_weight_that_is_not_finite_ends_the_training_at_once(split: Split) -> None:
    """Also one that no loss shows."""
    model = small_model()

    class Spoiler(torch.optim.SGD):
        count = 0

        @torch.no_grad()
        def step(self, closure=None) -> None:
            self.count += 1
            if self.count == 3:
                model.conv1.conv.weight[0, 0, 0, 0] = math.inf

    optimizer = Spoiler(model.parameters(), lr=0.01)
    steps: list[int] = []
    epochs = fit(
        TrainingState(model, optimizer), constant(), training(split), epochs=1, seed=1, history=History(),
        on_step=lambda step: steps.append(step.step),
    )  # fmt: skip
    with pytest.raises(TrainingError, match="The largest weight must stay finite, got inf in epoch 1, step 2. Lower"):
        list(epochs)
    assert steps == [0, 1]


def test_an_evaluation_that_is_not_finite_ends_the_training(split: Split) -> None:
    model = small_model()

    def spoil(step: Step) -> None:
        model.conv1.norm.running_mean[0] = math.nan

    with pytest.raises(TrainingError, match="The test loss must stay finite, got nan after epoch 1. Lower"):
        run_fit(split, model, epochs=1, test=evaluation(split), on_step=spoil)


def test_how_often_it_is_evaluated_changes_nothing_else(split: Split) -> None:
    often = run_fit(split, small_model(), epochs=5, test=evaluation(split))
    rarely = run_fit(split, small_model(), epochs=5, test=evaluation(split), eval_every_epochs=2)
    assert [metrics.test is not None for metrics in rarely] == [False, True, False, True, True]
    assert [metrics.fingerprint for metrics in rarely] == [metrics.fingerprint for metrics in often]
    assert rarely[-1].test == often[-1].test


def test_a_fingerprint_has_every_tensor_in_the_order_of_causes(split: Split) -> None:
    first, again, other = (
        run_fit(split, small_model(), epochs=1, label_smoothing=s)[0].fingerprint for s in (0, 0, 0.1)
    )
    model = small_model()
    assert list(first) == [
        "order",
        *(f"weights.{name}" for name in model.state_dict()),
        *(f"optimizer.{name}.momentum_buffer" for name, _ in model.named_parameters()),
    ]
    assert again == first
    differing = [name for name in first if first[name] != other[name]]
    assert "order" not in differing
    assert {f"weights.{name}" for name, _ in model.named_parameters()} <= set(differing)
