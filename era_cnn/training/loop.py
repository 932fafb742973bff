"""The training loop. It trains and yields; it neither logs nor writes.

Shapes: B images in a batch, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn import randomness
from era_cnn.data.batches import Batch, TrainingBatches
from era_cnn.errors import TrainingError
from era_cnn.training.fingerprint import fingerprint
from era_cnn.training.optim import Schedule
from era_cnn.training.precision import autocast


class Tally:
    """Sums over the images seen so far, kept on their device: reading a mean waits for it, adding does not.

    Sums, not means of means: the smaller last batch weighs what it should.
    """

    def __init__(self, device: torch.device) -> None:
        precise = torch.float64 if device.type != "mps" else torch.float32
        self.loss_sum = torch.zeros((), dtype=precise, device=device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.num_images = 0
        self.last_loss = self.loss_sum

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: its mean loss, its logits (B, K) and labels (B,)."""
        self.last_loss = loss
        self.loss_sum += loss * len(labels)
        self.num_correct += (logits.argmax(dim=1) == labels).sum()
        self.num_images += len(labels)

    def state(self) -> dict[str, Tensor | int]:
        """All that a tally of the same images would hold."""
        return {
            "loss_sum": self.loss_sum,
            "num_correct": self.num_correct,
            "num_images": self.num_images,
            "last_loss": self.last_loss,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Tally:
        """The tally that gave `state`, on a device."""
        tally = cls(device)
        for name, value in state.items():
            setattr(tally, name, value.to(device) if isinstance(value, Tensor) else value)
        return tally

    @property
    def loss(self) -> float:
        """Mean over the images, in nats."""
        return self.loss_sum.item() / self.num_images

    @property
    def accuracy(self) -> float:
        """Share of the images whose largest logit is at their label."""
        return self.num_correct.item() / self.num_images


@dataclass(frozen=True)
class Scores:
    """Loss in nats and accuracy in [0, 1] over every image of a split."""

    loss: float
    accuracy: float
    num_correct: int
    num_images: int


@dataclass(frozen=True)
class Step:
    """What can be said after a parameter update; epoch from 1, step from 0 within it, `seconds` since it began."""

    epoch: int
    step: int
    num_steps: int
    lr: float
    tally: Tally
    seconds: float


@dataclass(frozen=True)
class Position:
    """Where a training stands: `steps_done` updates of `epoch` are made, and tallied in so many seconds.

    If all of them are, only the evaluations after the epoch are missing.
    """

    epoch: int = 1
    steps_done: int = 0
    tally: Tally | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class EpochMetrics:
    """One pass over the training set and the evaluations after it.

    Accuracies in [0, 1], losses in nats; those of the training set are the means over the epoch, in training mode, as
    the batches came. `lr` is that of the epoch's last update, `seconds` are those of the training alone. `fingerprint`
    holds the digest of each tensor as the epoch left it.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    seconds: float
    val: Scores | None
    test: Scores | None
    fingerprint: dict[str, str]


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    train: TrainingBatches,
    *,
    epochs: int,
    seed: int,
    label_smoothing: float = 0.0,
    precision: str = "fp32",
    val: Iterable[Batch] | None = None,
    test: Iterable[Batch] | None = None,
    eval_every_epochs: int = 1,
    start: Position = Position(),
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[EpochMetrics]:
    """Trains `model` in place and yields a record after each epoch.

    What it does from a position on depends on that position, the model and the state of the optimizer alone, so that a
    training that was interrupted goes on exactly.

    With validation images, the test set is looked at once, after the last epoch.

    Args:
        model: On the device of the batches.
        optimizer: Over the model's parameters; its learning rate is the one that the schedule scales.
        schedule: From the step over the whole training to the factor on the learning rate.
        train: Shuffled and augmented batches.
        epochs: To train.
        seed: Of dropout, together with epoch and step.
        label_smoothing: Probability mass taken from the true class, in [0, 1).
        precision: Of the network's arithmetic, fp32 or bf16.
        val: Images for every choice, or None.
        test: Images that were not trained on.
        eval_every_epochs: Epochs from one evaluation to the next; after the last epoch there always is one.
        start: Where to begin; the model and the optimizer must be those of that position.
        on_step: Called after each parameter update.

    Raises:
        TrainingError: At the first step whose loss, or a weight after it, is not finite; on a device other than the
            CPU, where looking would wait for it, at the end of that epoch. Also if an evaluation's loss is not.
    """
    weights = [_flat(parameter) for parameter in model.parameters()]
    device = weights[0].device
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    for epoch in range(start.epoch, epochs + 1):
        position = start if epoch == start.epoch else Position(epoch)
        tally = position.tally or Tally(device)
        started = time.perf_counter() - position.seconds
        model.train()
        for step, batch in enumerate(train.epoch(epoch, position.steps_done), start=position.steps_done):
            factor = schedule((epoch - 1) * len(train) + step)
            for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base_lr * factor
            randomness.seed_modules(device, seed, "dropout", epoch, step)
            loss, logits = train_step(
                model, batch, optimizer=optimizer, label_smoothing=label_smoothing, precision=precision
            )
            if device.type == "cpu":
                _check_finite("training loss", loss, epoch, step)
                _check_finite("largest weight", _largest(weights), epoch, step)
            tally.add(loss, logits, batch.labels)
            on_step(Step(epoch, step, len(train), base_lrs[0] * factor, tally, time.perf_counter() - started))
        train_loss = tally.loss  # waits for the device, so that the clock is read after the work
        seconds = time.perf_counter() - started
        last_step = len(train) - 1
        _check_finite("training loss", train_loss, epoch, last_step)
        _check_finite("largest weight", _largest(weights), epoch, last_step)
        tensors = fingerprint(model, optimizer, train.order(epoch))
        is_last, is_due = epoch == epochs, epoch % eval_every_epochs == 0 or epoch == epochs
        scores = {
            name: evaluate(model, batches, precision=precision)[0] if batches and due else None
            for name, batches, due in (("val", val, is_due), ("test", test, is_last if val else is_due))
        }
        for name, score in scores.items():
            if score:
                _check_finite(f"{name} loss", score.loss, epoch, last_step)
        yield EpochMetrics(
            epoch=epoch,
            lr=base_lrs[0] * schedule(epoch * len(train) - 1),
            train_loss=train_loss,
            train_accuracy=tally.accuracy,
            seconds=seconds,
            **scores,
            fingerprint=tensors,
        )


def _check_finite(what: str, value: float | Tensor, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"The {what} must stay finite, got {float(value)} in epoch {epoch}, step {step}. Lower optimizer.lr."
        )


def _flat(parameter: Tensor) -> Tensor:
    """The values of a parameter in the order in which they lie in memory; no copy, so it changes as they do."""
    return parameter.detach().as_strided((parameter.numel(),), (1,))


def _largest(weights: Sequence[Tensor]) -> Tensor:
    """The largest magnitude of all weights; not finite if one of them is not."""
    magnitude: Tensor = torch.linalg.vector_norm(torch.cat(list(weights)), math.inf)
    return magnitude


def train_step(
    model: nn.Module,
    batch: Batch,
    *,
    optimizer: torch.optim.Optimizer,
    label_smoothing: float = 0.0,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Makes one parameter update; returns the batch's mean loss and its logits (B, K), both detached."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(batch.images.device, precision):  # what goes backward has the types of what went forward
        logits = model(batch.images).float()
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach(), logits.detach()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], *, precision: str = "fp32") -> tuple[Scores, Tensor]:
    """Loss and accuracy over every image once, exactly; leaves the model in evaluation mode.

    Returns:
        The scores, and the predicted class of each image, shape (N,), in the order of the batches.
    """
    model.eval()
    tally = Tally(next(model.parameters()).device)
    predictions = []
    for images, labels in batches:
        with autocast(images.device, precision):
            logits = model(images).float()
        tally.add(F.cross_entropy(logits, labels), logits, labels)
        predictions.append(logits.argmax(dim=1))
    scores = Scores(tally.loss, tally.accuracy, int(tally.num_correct), tally.num_images)
    return scores, torch.cat(predictions).cpu()
