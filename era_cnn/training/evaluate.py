"""Evaluation: the logits of every image, once, and the scores that follow from them.

Shapes: B images in a batch, N in a split, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn.data.batches import Batch
from era_cnn.training.history import Scores
from era_cnn.training.precision import autocast
from era_cnn.training.windows import Windows


class Tally:
    """Sums over the images seen so far, kept on their device: only reading a mean waits for the device.

    Sums rather than means of means, so that the smaller last batch has the right weight.
    """

    def __init__(self, device: torch.device) -> None:
        precise = torch.float64 if device.type != "mps" else torch.float32
        self.loss_sum = torch.zeros((), dtype=precise, device=device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.num_images = 0
        self.weight: Tensor | None = None
        self.last_loss = self.loss_sum
        self.windows = Windows()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> None:
        """Adds a batch: its mean loss, its logits (B, K) and labels (B,).

        With class weights (K,), the mean loss of a batch is weighted, so it counts as much as the weights in the batch.
        """
        self.last_loss = loss
        if class_weights is None:
            self.loss_sum += loss * len(labels)
        else:
            weight = class_weights[labels].sum(dtype=self.loss_sum.dtype)
            self.weight = weight if self.weight is None else self.weight + weight
            self.loss_sum += loss * weight
        self.num_correct += (logits.argmax(dim=1) == labels).sum()
        self.num_images += len(labels)

    def end_window(self, step: int, lr: float) -> None:
        """Ends a window of the epoch, see `Windows`, after `step` updates."""
        self.windows.end(step, lr, self.num_images, self.loss_sum, self.weight)

    def state(self) -> dict[str, Any]:
        """The state of the tally, as tensors and numbers."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return {
            **weight,
            "loss_sum": self.loss_sum,
            "num_correct": self.num_correct,
            "num_images": self.num_images,
            "last_loss": self.last_loss,
            "windows": self.windows.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Tally:
        """The tally with this state, on a device.

        Raises:
            ValueError: If it is not the state of a tally.
        """
        tally = cls(device)
        tally.weight = torch.zeros_like(tally.loss_sum) if "weight" in state else None
        own = tally.state()
        if state.keys() != own.keys() or type(state["num_images"]) is not int or state["num_images"] < 1:
            raise ValueError(f"a tally of {', '.join(map(str, state))[:80]}")
        tally.windows = Windows.from_state(state["windows"], tally.loss_sum)
        if tally.windows.num_images > state["num_images"]:
            raise ValueError("a tally of fewer images than its windows")
        del own["windows"]
        for name, zero in own.items():
            value = state[name]
            if isinstance(zero, Tensor) and not (isinstance(value, Tensor) and value.shape == ()):
                raise ValueError(f"a tally whose {name} is no number")
            setattr(
                tally, name, value.to(device, zero.dtype) if isinstance(zero, Tensor) and name != "last_loss" else value
            )
        return tally

    @property
    def loss(self) -> float:
        """Mean loss over the images, in nats; the weighted mean if classes have weights."""
        return self.loss_sum.item() / (self.num_images if self.weight is None else self.weight.item())

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose largest logit is at their label."""
        return self.num_correct.item() / self.num_images


@dataclass(frozen=True)
class Evaluation:
    """The logits (N, K), float32, and labels (N,) of a split, in its order, on the device of the network.

    `batch_sizes` are those of the evaluation, since the sums behind the scores are taken batch by batch.
    """

    logits: Tensor
    labels: Tensor
    batch_sizes: tuple[int, ...]

    def predictions(self) -> Tensor:
        """The predicted class of each image, (N,)."""
        return self.logits.argmax(dim=1)

    def scores(self) -> Scores:
        """Mean cross-entropy in nats and accuracy over all images, exactly."""
        tally = Tally(self.logits.device)
        sizes = list(self.batch_sizes)
        parts = zip(torch.split(self.logits, sizes), torch.split(self.labels, sizes), strict=True)
        for logits, labels in parts:
            tally.add(F.cross_entropy(logits, labels), logits, labels)
        return Scores(tally.loss, tally.accuracy, int(tally.num_correct), tally.num_images)


@torch.no_grad()
def evaluate(network: nn.Module, batches: Iterable[Batch], *, precision: str = "fp32") -> Evaluation:
    """Evaluates every image once; leaves the network in evaluation mode."""
    network.eval()
    logits, labels = [], []
    for batch in batches:
        with autocast(batch.images.device, precision):
            logits.append(network(batch.images).float())
        labels.append(batch.labels)
    return Evaluation(torch.cat(logits), torch.cat(labels), tuple(map(len, labels)))
