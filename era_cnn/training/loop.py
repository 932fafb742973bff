"""The training loop. It trains and yields; it neither logs nor writes.

Shapes: B images in a batch, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from era_cnn.config.schedule import Schedule
from era_cnn.data.batches import Batch, TrainingBatches
from era_cnn.errors import TrainingError
from era_cnn.models.layers import hand_out
from era_cnn.randomness import Stream, key, seed_torch
from era_cnn.training.ending import EndsAfter, never
from era_cnn.training.evaluate import Tally, evaluate
from era_cnn.training.fingerprint import fingerprint
from era_cnn.training.graphs import RecordedSteps
from era_cnn.training.history import EpochMetrics, History, watched
from era_cnn.training.objective import Objective
from era_cnn.training.rates import Rates
from era_cnn.training.state import TrainingState
from era_cnn.training.windows import ends_window, num_windows


@dataclass(frozen=True)
class Step:
    """A finished parameter update: epoch from 1, step from 0 within the epoch, `seconds` since the epoch began."""

    epoch: int
    step: int
    num_steps: int
    lr: float
    tally: Tally
    seconds: float


@dataclass(frozen=True)
class Position:
    """Where a training is: `steps_done` updates of `epoch` are done, with their tally and training time in `seconds`.

    If all updates of the epoch are done, only the evaluations after it are missing.
    """

    epoch: int = 1
    steps_done: int = 0
    tally: Tally | None = None
    seconds: float = 0.0


def fit(
    state: TrainingState,
    schedule: Schedule,
    train: TrainingBatches,
    *,
    epochs: int,
    seed: int,
    history: History,
    objective: Objective | None = None,
    cuda_graphs: bool = False,
    val: Iterable[Batch] | None = None,
    test: Iterable[Batch] | None = None,
    average: nn.Module | None = None,
    eval_every_epochs: int = 1,
    watch: str = "val_loss",
    start: Position = Position(),
    ends_after: EndsAfter = never,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[EpochMetrics]:
    """Trains the network in place; after each epoch, appends its metrics to the history and yields them.

    What it does from a position on depends only on the position, the state and the history, so that an interrupted
    training continues exactly. With validation images, the test set is evaluated only once, after the last epoch,
    unless it is watched.

    Args:
        state: The state, on the device of the batches; the schedule scales the optimizer's learning rate.
        schedule: Gives each step, counted over the whole training, its learning rate and momentum.
        train: Shuffled and augmented batches.
        epochs: The most epochs to train.
        seed: The seed of dropout, together with epoch and step.
        history: The epochs before `start`.
        objective: The loss of the network, and its gradients; by default the plain cross-entropy.
        cuda_graphs: Whether a CUDA device replays recorded steps.
        val: Images for every choice, or None.
        test: Images that were not trained on.
        average: A network that is part of the state and is evaluated whenever the trained one is, or None.
        eval_every_epochs: Epochs from one evaluation to the next; there is always one after the last epoch.
        watch: The figure that the schedule may watch, such as val_loss; if it is one of the test set, that is evaluated
            whenever an evaluation is due.
        start: Where to begin; must be the position of the state.
        ends_after: Why to stop after these epochs, or None; a pure function of them, so that it decides the same after
            an interruption and in a replay.
        on_step: Called after each parameter update.

    Raises:
        TrainingError: At the first step whose loss, or a weight after it, is not finite; on a device other than the
            CPU, where each check would wait for it, at the end of that epoch. Also if an evaluation's loss is not.
    """
    rates, is_tested = Rates(state.optimizer, schedule), val is None or watch.startswith("test_")
    due = {"val": val, "test": test if is_tested else None}
    networks = {"": state.network, "ema_": average}
    objective = objective or Objective(state.network)
    backward = RecordedSteps(objective).backward if cuda_graphs else objective.backward
    weights, device = [_flat(parameter) for parameter in state.network.parameters()], state.device
    stream, windows = Stream(), num_windows(epochs)
    state.begin()
    hand_out(stream, state.network)
    for epoch in range(start.epoch, epochs + 1):
        if history and history[-1].is_last:
            return
        position, first_step = start if epoch == start.epoch else Position(epoch), (epoch - 1) * len(train)
        tally = position.tally or Tally(device)
        started = time.perf_counter() - position.seconds
        if schedule.after is not None:
            rates.reduced = schedule.after(watched(history, watch))

        # Train: one update a batch.
        state.network.train()
        for step, batch in enumerate(train.epoch(epoch, position.steps_done), start=position.steps_done):
            rates.set(first_step + step)
            step_seed = key(seed, "dropout", epoch, step)
            seed_torch(device, step_seed)
            stream.begin(step_seed)
            loss, logits = backward(batch)
            state.optimizer.step()
            state.after_step()
            if device.type == "cpu":
                _check_update(loss, weights, epoch, step)
            tally.add(loss, logits, batch.labels, objective.class_weights)
            lr, seconds = rates.lr(first_step + step), time.perf_counter() - started
            if ends_window(step, len(train), windows):
                tally.end_window(step + 1, lr)
            on_step(Step(epoch, step, len(train), lr, tally, seconds))
        train_loss = tally.loss  # waits for the device, so that the time includes all of its work
        seconds = time.perf_counter() - started
        _check_update(train_loss, weights, epoch, len(train) - 1)
        metrics = EpochMetrics(
            epoch=epoch,
            lr=rates.lr(epoch * len(train) - 1),
            train_loss=train_loss,
            train_accuracy=tally.accuracy,
            seconds=seconds,
            val=None,
            test=None,
            fingerprint=fingerprint(state, train.order(epoch)),
            steps=tally.windows.steps(),
        )

        # Evaluate: the choosing split when it is due, and every split after the last epoch.
        if epoch % eval_every_epochs == 0:
            metrics = _evaluated(metrics, networks, due, objective.precision)
        end_reason = None if epoch == epochs else ends_after([*history, metrics])
        if epoch == epochs or end_reason:
            metrics = replace(metrics, is_last=True, end_reason=end_reason)  # decided once, before further scores
            metrics = _evaluated(metrics, networks, {"val": val, "test": test}, objective.precision)
        history.append(metrics)
        yield metrics


def _evaluated(
    metrics: EpochMetrics,
    networks: Mapping[str, nn.Module | None],
    splits: Mapping[str, Iterable[Batch] | None],
    precision: str,
) -> EpochMetrics:
    """The metrics with the scores of each network, by prefix, on those splits that have none yet."""
    for (name, batches), (prefix, network) in itertools.product(splits.items(), networks.items()):
        field = f"{prefix}{name}"
        if batches is not None and network is not None and getattr(metrics, field) is None:
            scores = evaluate(network, batches, precision=precision).scores()
            if not math.isfinite(scores.loss):
                got = f"{scores.loss} after epoch {metrics.epoch}"
                raise TrainingError(f"The {field} loss must stay finite, got {got}. Lower optimizer.lr.")
            metrics = replace(metrics, **{field: scores})  # type: ignore[arg-type]
    return metrics


def _check_update(loss: float | Tensor, weights: Sequence[Tensor], epoch: int, step: int) -> None:
    _check_finite("training loss", loss, epoch, step)
    _check_finite("largest weight", _largest(weights), epoch, step)


def _check_finite(what: str, value: float | Tensor, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"The {what} must stay finite, got {float(value)} in epoch {epoch}, step {step}. Lower optimizer.lr."
        )


def _flat(parameter: Tensor) -> Tensor:
    """A view of a parameter's values in memory order; not a copy, so it changes with the parameter."""
    return parameter.detach().as_strided((parameter.numel(),), (1,))


def _largest(weights: Sequence[Tensor]) -> Tensor:
    """The largest magnitude of all weights; not finite if one of them is not."""
    magnitude: Tensor = torch.linalg.vector_norm(torch.cat(list(weights)), math.inf)
    return magnitude
