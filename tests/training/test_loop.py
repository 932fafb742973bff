from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Condition, Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from era_cnn.config.schedule import Schedule
from era_cnn.data.batches import Batch, EvaluationBatches, Normalise, Split, TrainingBatches
from era_cnn.errors import TrainingError
from era_cnn.models.build import Network, build_from_config
from era_cnn.training.evaluate import Tally
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.loop import Position, Step, fit
from era_cnn.training.objective import Objective, batch_loss
from era_cnn.training.state import TrainingState
from tests.conftest import GREY_EXPERIMENTS, config_of
from tests.helpers import pipeline_of, schedule_of

CPU = torch.device("cpu")
NORMALISE = Normalise([0.3], [0.3])
CONSTANT = Schedule(lambda step: 1.0)


@pytest.fixture
def split(split: Split) -> Split:
    """Seven steps an epoch, the last one smaller."""
    return split.first(50)


def training(split: Split, **options) -> TrainingBatches:
    augment = pipeline_of({"rotate": {"degrees": 7.0, "fill": 1}})
    return TrainingBatches(split, batch_size=8, augment=augment, normalise=NORMALISE, seed=1, **options)


def evaluation(split: Split, batch_size: int = 25) -> EvaluationBatches:
    return EvaluationBatches(split, batch_size=batch_size, normalise=NORMALISE)


def small_model() -> Network:
    return build_from_config(config_of("experiment=model_3", "model.dropout=0.2"))


def run_fit(split: Split, model: nn.Module, *, epochs: int = 2, schedule=None, **options) -> list[EpochMetrics]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    options = {"history": History(), **options}
    state = TrainingState(model, optimizer)
    return list(fit(state, schedule or CONSTANT, training(split), epochs=epochs, seed=1, **options))


@pytest.mark.parametrize("experiment", GREY_EXPERIMENTS)
def test_every_experiment_makes_a_step_that_changes_every_parameter(experiment: str, split: Split) -> None:
    config = config_of(f"experiment={experiment}")
    model = build_from_config(config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = Batch(NORMALISE(split.images[:8]), split.labels[:8])
    loss, logits = Objective(model).backward(batch)
    optimizer.step()
    assert torch.isfinite(loss)
    assert logits.shape == (8, 10)
    assert not any(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("experiment", ["model_2", "model_3", "model_4"])
def test_a_model_can_learn_one_batch_by_heart(experiment: str, split: Split) -> None:
    model = build_from_config(config_of(f"experiment={experiment}", "model.dropout=0"))
    batch = Batch(NORMALISE(split.images[:8]), split.labels[:8])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        losses.append(Objective(model).backward(batch)[0].item())
        optimizer.step()
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
    run_fit(split.first(16), model, epochs=2)
    again: list[torch.Tensor] = []
    other = small_model()
    other.get_submodule("conv1.dropout").register_forward_hook(lambda m, i, output: again.append(output == 0))
    run_fit(split.first(16), other, epochs=2)
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
    history = run_fit(split, small_model(), epochs=3, val=evaluation(split.first(20)), test=evaluation(split))
    assert [metrics.test is None for metrics in history] == [True, True, False]
    assert all(metrics.val is not None for metrics in history)


def test_the_learning_rate_follows_the_schedule_step_by_step(split: Split) -> None:
    lrs: list[float] = []
    schedule = schedule_of("cosine", epochs=2, steps_per_epoch=7, warmup_epochs=1.0, final_factor=0.0)
    run_fit(split, small_model(), schedule=schedule, on_step=lambda step: lrs.append(step.lr))
    assert lrs == [0.01 * schedule.lr(step) for step in range(14)]
    schedule = schedule_of("step", epochs=2, steps_per_epoch=7, every_epochs=1.0, gamma=0.1)
    history = run_fit(split, small_model(), schedule=schedule)
    assert [metrics.lr for metrics in history] == [0.01, pytest.approx(0.001)]


def test_the_schedule_reaches_the_optimizer(split: Split) -> None:
    moved, still = small_model(), small_model()
    before = still.state_dict()["conv1.conv.weight"].clone()
    run_fit(split, moved, epochs=1)
    run_fit(split, still, epochs=1, schedule=Schedule(lambda step: 0.0))
    assert torch.equal(still.state_dict()["conv1.conv.weight"], before)
    assert not torch.equal(moved.state_dict()["conv1.conv.weight"], before)


def test_label_smoothing_is_cross_entropys_own(split: Split) -> None:
    model = small_model().eval()
    batch = Batch(NORMALISE(split.images[:8]), split.labels[:8])
    expected = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.2).item()
    assert Objective(model, label_smoothing=0.2).backward(batch)[0].item() == expected


def test_a_weighted_loss_is_pytorchs_by_hand() -> None:
    """Divided by the sum of the weights; smoothing spreads the mass by the weights of the classes."""
    logits, labels = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1])
    weights = torch.tensor([1.0, 3.0, 2.0])
    losses = -logits.log_softmax(1)
    by_hand = (1 * losses[0, 0] + 3 * losses[1, 1]) / (1 + 3)
    torch.testing.assert_close(batch_loss(logits, Batch(logits, labels), class_weights=weights), by_hand)
    spread = (losses * weights).sum() / 3 / (1 + 3)
    smoothed = batch_loss(logits, Batch(logits, labels), class_weights=weights, label_smoothing=0.3)
    torch.testing.assert_close(smoothed, 0.7 * by_hand + 0.3 * spread)


def test_the_loss_of_an_epoch_is_the_weighted_mean_over_its_images() -> None:
    """Not the mean over batches, whose weights differ."""
    weights, tally = torch.tensor([1.0, 10.0]), Tally(CPU)
    logits, labels = torch.randn(5, 2), torch.tensor([0, 0, 0, 1, 1])
    for part in (slice(3), slice(3, 5)):
        loss = batch_loss(logits[part], Batch(logits[part], labels[part]), class_weights=weights)
        tally.add(loss, logits[part], labels[part], weights)
    assert tally.loss == pytest.approx(batch_loss(logits, Batch(logits, labels), class_weights=weights).item())
    restored = Tally.from_state(tally.state(), CPU)
    assert (restored.loss, restored.accuracy) == (tally.loss, tally.accuracy)
    plain = Tally(CPU)
    plain.add(loss, logits, labels)
    assert "weight" not in plain.state()  # as before there were class weights


def test_a_watched_test_set_is_evaluated_whenever_the_validation_images_are(split: Split) -> None:
    splits = {"val": evaluation(split.first(20)), "test": evaluation(split)}
    watching = run_fit(split, small_model(), epochs=3, watch="test_loss", eval_every_epochs=2, **splits)
    assert [(each.val is not None, each.test is not None) for each in watching] == [
        (False, False), (True, True), (True, True),
    ]  # fmt: skip
    plain = run_fit(split, small_model(), epochs=3, watch="val_loss", **splits)
    assert [metrics.fingerprint for metrics in watching] == [metrics.fingerprint for metrics in plain]


def test_a_loss_that_is_not_finite_ends_the_training(split: Split) -> None:
    model = build_from_config(config_of("model.norm=none"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e20)
    with pytest.raises(
        TrainingError, match="The training loss must stay finite, got .* in epoch 1, step [0-9]. Lower optimizer"
    ):
        list(fit(TrainingState(model, optimizer), CONSTANT, training(split), epochs=2, seed=1, history=History()))


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
        TrainingState(model, optimizer), CONSTANT, training(split), epochs=1, seed=1, history=History(),
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
    def of_training(label_smoothing: float) -> dict[str, str]:
        model = small_model()
        objective = Objective(model, label_smoothing=label_smoothing)
        return run_fit(split, model, epochs=1, objective=objective)[0].fingerprint

    first, again, other = map(of_training, (0, 0, 0.1))
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


def three_epochs_of_any_kind(history: Sequence[EpochMetrics]) -> str | None:
    return "three epochs" if len(history) >= 3 else None


class Run:
    """A training that can be gone on with from what another one left."""

    def __init__(self, split: Split, **options: Any) -> None:
        model = small_model()
        self.state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        self.split, self.options, self.history = split, options, History()
        self.steps: list[tuple[int, int]] = []

    def epochs(self, start: Position | None = None, epochs: int = 5) -> Iterator[EpochMetrics]:
        return fit(
            self.state, CONSTANT, training(self.split), epochs=epochs, seed=1, history=self.history,
            start=start or Position(), on_step=lambda step: self.steps.append((step.epoch, step.step)), **self.options,
        )  # fmt: skip

    def go_on_from(self, other: Run, position: Position) -> None:
        self.state.load_state_dict(copy.deepcopy(other.state.state_dict()))
        self.history = History(other.history)
        list(self.epochs(position))

    def outcome(self) -> tuple[list[EpochMetrics], list[torch.Tensor]]:
        return [replace(metrics, seconds=0.0) for metrics in self.history], list(self.state.tensors().values())


def assert_equal(one: Run, other: Run) -> None:
    (history, tensors), (other_history, other_tensors) = one.outcome(), other.outcome()
    assert history == other_history
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(tensors, other_tensors, strict=True))


def test_a_training_ends_when_its_history_is_enough(split: Split) -> None:
    run = Run(split, test=evaluation(split), ends_after=three_epochs_of_any_kind)
    assert [metrics.epoch for metrics in run.epochs()] == [1, 2, 3]
    assert run.steps[-1] == (3, 6)
    assert run.history[-1].end_reason == "three epochs"
    shorter = Run(split, test=evaluation(split))
    list(shorter.epochs(epochs=3))
    shorter.history = History([*shorter.history[:2], replace(shorter.history[2], end_reason="three epochs")])
    assert_equal(run, shorter)


def test_a_training_that_ends_early_is_evaluated_though_no_evaluation_is_due(split: Split) -> None:
    run = Run(split, test=evaluation(split), eval_every_epochs=2, ends_after=three_epochs_of_any_kind)
    assert [metrics.test is not None for metrics in run.epochs()] == [False, True, True]
    chosen = Run(
        split, val=evaluation(split.first(20)), test=evaluation(split), eval_every_epochs=2,
        ends_after=three_epochs_of_any_kind,
    )  # fmt: skip
    list(chosen.epochs())
    assert [(each.val is not None, each.test is not None) for each in chosen.history] == [
        (False, False), (True, False), (True, True),
    ]  # fmt: skip


def test_what_ends_a_training_sees_the_scores_that_are_due_and_the_whole_history(split: Split) -> None:
    seen: list[list[tuple[int, bool, bool]]] = []

    def look(history: Sequence[EpochMetrics]) -> None:
        seen.append([(each.epoch, each.val is not None, each.test is not None) for each in history])

    run = Run(split, val=evaluation(split.first(20)), test=evaluation(split), ends_after=look)
    list(run.epochs(epochs=2))
    assert seen == [[(1, True, False)]]  # once an epoch, and not of the last: that one ends the training anyway


def test_a_history_that_is_enough_trains_no_further(split: Split) -> None:
    run = Run(split, test=evaluation(split), ends_after=three_epochs_of_any_kind)
    list(run.epochs())
    again = Run(split, test=evaluation(split), ends_after=three_epochs_of_any_kind)
    again.go_on_from(run, Position(4))
    assert again.steps == []
    assert_equal(run, again)


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_training_that_ends_early_resumes_to_the_same(epoch: int, split: Split) -> None:
    options = {"test": evaluation(split), "eval_every_epochs": 5, "ends_after": three_epochs_of_any_kind}
    unbroken, begun, resumed = (Run(split, **options) for _ in range(3))
    list(unbroken.epochs())
    epochs = begun.epochs()
    for _ in range(epoch - 1):
        next(epochs)
    resumed.go_on_from(begun, Position(epoch))
    assert resumed.steps[0] == (epoch, 0)
    assert_equal(unbroken, resumed)


def test_what_ends_a_training_that_was_interrupted_before_an_evaluation_decides_the_same(split: Split) -> None:
    """The last update was made; the evaluation after it is missing."""
    options = {"test": evaluation(split), "eval_every_epochs": 5, "ends_after": three_epochs_of_any_kind}
    unbroken, begun, resumed = (Run(split, **options) for _ in range(3))
    list(unbroken.epochs())
    kept: list[Position] = []

    class Stopped(BaseException):
        pass

    def stop(step: Step) -> None:
        if (step.epoch, step.step) == (3, 6):
            kept.append(Position(3, 7, step.tally, step.seconds))
            raise Stopped

    epochs = fit(
        begun.state, CONSTANT, training(split), epochs=5, seed=1, history=begun.history, on_step=stop, **options
    )
    with pytest.raises(Stopped):
        list(epochs)
    resumed.go_on_from(begun, kept[0])
    assert resumed.steps == []
    assert_equal(unbroken, resumed)


def interleaved(*iterators: Iterator[Any]) -> None:
    """Each in turn, one item at a time, to the end of all."""
    waiting = list(iterators)
    while waiting:
        waiting = [each for each in waiting if next(each, None) is not None]


class InTurns(Run):
    """Trains in a thread that stands still in the middle of each forward pass, and after it, for another training."""

    def parts_of_steps(self) -> Iterator[bool]:
        turn, is_mine, has_ended = Condition(), [False], [False]

        def pause(*_: object) -> None:
            with turn:
                is_mine[0] = False
                turn.notify_all()
                turn.wait_for(lambda: is_mine[0])

        def train() -> None:
            with turn:
                turn.wait_for(lambda: is_mine[0])
            list(fit(self.state, CONSTANT, training(self.split), epochs=2, seed=1, history=self.history, on_step=pause))
            with turn:
                has_ended[0], is_mine[0] = True, False
                turn.notify_all()

        self.state.network.get_submodule("pool").register_forward_hook(pause)  # dropout stands before and behind it
        thread = Thread(target=train, daemon=True)
        thread.start()
        while not has_ended[0]:
            with turn:
                is_mine[0] = True
                turn.notify_all()
                turn.wait_for(lambda: not is_mine[0])
            yield True
        thread.join()


def test_two_trainings_that_take_turns_within_their_steps_come_to_what_each_comes_to_alone(split: Split) -> None:
    alone = [Run(split), Run(split.at(slice(20, 50)))]
    for run in alone:
        list(run.epochs(epochs=2))
    together = [InTurns(split), InTurns(split.at(slice(20, 50)))]
    interleaved(*(run.parts_of_steps() for run in together))
    for one, other in zip(alone, together, strict=True):
        assert len(other.history) == 2
        assert_equal(one, other)


def test_two_trainings_whose_epochs_take_turns_come_to_what_each_comes_to_alone(split: Split) -> None:
    alone, together = [Run(split), Run(split)], [Run(split), Run(split)]
    for run in alone:
        list(run.epochs(epochs=2))
    interleaved(*(run.epochs(epochs=2) for run in together))
    for one, other in zip(alone, together, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("with_val", [False, True])
def test_what_was_decided_before_the_last_evaluation_is_not_asked_again(with_val: bool, split: Split) -> None:
    """A rule that counts evaluations would think otherwise once the last one is made."""

    def odd_number_of_tests_after_three_epochs(history: Sequence[EpochMetrics]) -> str | None:
        tests = sum(each.test is not None for each in history)
        return "odd" if len(history) >= 3 and tests % 2 == (0 if with_val else 1) else None

    options = {"val": evaluation(split.first(20)) if with_val else None, "test": evaluation(split)}
    run = Run(split, ends_after=odd_number_of_tests_after_three_epochs, eval_every_epochs=2, **options)
    list(run.epochs(epochs=9))
    assert [each.epoch for each in run.history] == [1, 2, 3]
    assert [each.is_last for each in run.history] == [False, False, True]
    assert run.history[-1].test is not None
    again = Run(split, ends_after=odd_number_of_tests_after_three_epochs, eval_every_epochs=2, **options)
    again.go_on_from(run, Position(4))
    assert again.steps == []
