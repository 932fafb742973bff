"""The training loop. It trains and yields; it neither logs nor writes.

Shapes: B images in a batch, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn.data.batches import Batch, TrainingBatches
from era_cnn.errors import TrainingError
from era_cnn.models.layers import hand_out
from era_cnn.randomness import Stream, key, seed_torch
from era_cnn.training.evaluate import Tally, evaluate
from era_cnn.training.fingerprint import fingerprint
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.precision import autocast
from era_cnn.training.schedulers import Schedule
from era_cnn.training.state import TrainingState


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


def _never(history: Sequence[EpochMetrics]) -> bool:
    return False


def fit(
    state: TrainingState,
    schedule: Schedule,
    train: TrainingBatches,
    *,
    epochs: int,
    seed: int,
    history: History,
    label_smoothing: float = 0.0,
    precision: str = "fp32",
    val: Iterable[Batch] | None = None,
    test: Iterable[Batch] | None = None,
    eval_every_epochs: int = 1,
    start: Position = Position(),
    ends_after: Callable[[Sequence[EpochMetrics]], bool] = _never,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[EpochMetrics]:
    """Trains the network in place; after each epoch, appends its metrics to the history and yields them.

    What it does from a position on depends only on the position, the state and the history, so that an interrupted
    training continues exactly. With validation images, the test set is evaluated only once, after the last epoch.

    Args:
        state: The state, on the device of the batches; the schedule scales the optimizer's learning rate.
        schedule: Maps the step, counted over the whole training, to the learning rate's factor.
        train: Shuffled and augmented batches.
        epochs: The most epochs to train.
        seed: The seed of dropout, together with epoch and step.
        history: The epochs before `start`.
        label_smoothing: Probability mass taken from the true class, in [0, 1).
        precision: The network's arithmetic, fp32 or bf16.
        val: Images for every choice, or None.
        test: Images that were not trained on.
        eval_every_epochs: Epochs from one evaluation to the next; there is always one after the last epoch.
        start: Where to begin; must be the position of the state.
        ends_after: Whether to stop after these epochs; a pure function of them, so that it decides the same after an
            interruption and in a replay.
        on_step: Called after each parameter update.

    Raises:
        TrainingError: At the first step whose loss, or a weight after it, is not finite; on a device other than the
            CPU, where each check would wait for it, at the end of that epoch. Also if an evaluation's loss is not.
    """
    network, optimizer, device = state.network, state.optimizer, state.device
    weights = [_flat(parameter) for parameter in network.parameters()]
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    stream = Stream()
    hand_out(stream, network)
    for epoch in range(start.epoch, epochs + 1):
        if history and history[-1].is_last:
            return
        position = start if epoch == start.epoch else Position(epoch)
        tally = position.tally or Tally(device)
        started = time.perf_counter() - position.seconds

        # Train: one update a batch.
        network.train()
        for step, batch in enumerate(train.epoch(epoch, position.steps_done), start=position.steps_done):
            factor = schedule((epoch - 1) * len(train) + step)
            for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base_lr * factor
            step_seed = key(seed, "dropout", epoch, step)
            seed_torch(device, step_seed)
            stream.begin(step_seed)
            loss, logits = train_step(
                network, batch, optimizer=optimizer, label_smoothing=label_smoothing, precision=precision
            )
            state.after_step()
            if device.type == "cpu":
                _check_finite("training loss", loss, epoch, step)
                _check_finite("largest weight", _largest(weights), epoch, step)
            tally.add(loss, logits, batch.labels)
            on_step(Step(epoch, step, len(train), base_lrs[0] * factor, tally, time.perf_counter() - started))
        train_loss = tally.loss  # waits for the device, so that the time includes all of its work
        seconds = time.perf_counter() - started
        _check_finite("training loss", train_loss, epoch, len(train) - 1)
        _check_finite("largest weight", _largest(weights), epoch, len(train) - 1)
        metrics = EpochMetrics(
            epoch=epoch,
            lr=base_lrs[0] * schedule(epoch * len(train) - 1),
            train_loss=train_loss,
            train_accuracy=tally.accuracy,
            seconds=seconds,
            val=None,
            test=None,
            fingerprint=fingerprint(state, train.order(epoch)),
        )

        # Evaluate: the choosing split when it is due, and every split after the last epoch.
        if epoch % eval_every_epochs == 0:
            metrics = _evaluated(metrics, network, {"val": val} if val is not None else {"test": test}, precision)
        if epoch == epochs or ends_after([*history, metrics]):
            metrics = replace(metrics, is_last=True)  # decided once: the scores that follow are not asked about
            metrics = _evaluated(metrics, network, {"val": val, "test": test}, precision)
        history.append(metrics)
        yield metrics


def _evaluated(
    metrics: EpochMetrics, network: nn.Module, splits: Mapping[str, Iterable[Batch] | None], precision: str
) -> EpochMetrics:
    """The metrics with the scores of those splits that have none yet."""
    for name, batches in splits.items():
        if batches is not None and getattr(metrics, name) is None:
            scores = evaluate(network, batches, precision=precision).scores()
            if not math.isfinite(scores.loss):
                got = f"{scores.loss} after epoch {metrics.epoch}"
                raise TrainingError(f"The {name} loss must stay finite, got {got}. Lower optimizer.lr.")
            metrics = replace(metrics, val=scores) if name == "val" else replace(metrics, test=scores)
    return metrics


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


def train_step(
    network: nn.Module,
    batch: Batch,
    *,
    optimizer: torch.optim.Optimizer,
    label_smoothing: float = 0.0,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Makes one parameter update; returns the batch's mean loss and its logits (B, K), both detached."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(batch.images.device, precision):  # ends here: backward uses the same dtypes
        logits = network(batch.images).float()
    loss = loss_of(logits, batch, label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach(), logits.detach()


def loss_of(logits: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of a batch in nats; a mixed image has two labels, weighted by their shares of it."""
    if batch.mixed is None:
        return F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    own, partners = (
        F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
        for labels in (batch.labels, batch.mixed.labels)
    )
    return (batch.mixed.shares * own + (1 - batch.mixed.shares) * partners).mean()
