"""What a training minimises: the loss of a batch, and its gradients.

Shapes: B images in a batch, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn.data.batches import Batch
from era_cnn.training.gradients import UNCHANGED, Gradients
from era_cnn.training.precision import autocast


@dataclass(frozen=True)
class Objective:
    """What a training minimises: the loss of a network on a batch, and its gradients as the optimizer gets them.

    Attributes:
        network: The network, in training mode.
        forward: Its forward pass, images (B, C, H, W) to logits (B, K), if it is not the network's own.
        label_smoothing: Probability mass taken from the true class, in [0, 1).
        class_weights: The weight of each class in the loss, shape (K,), or None.
        gradients: What happens to the gradients before the update.
        precision: The network's arithmetic, fp32 or bf16.
    """

    network: nn.Module
    forward: Callable[[Tensor], Tensor] | None = None
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    gradients: Gradients = UNCHANGED
    precision: str = "fp32"

    def backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Computes the gradients of a batch, replacing those before; returns its mean loss and its logits, detached."""
        self.network.zero_grad(set_to_none=True)
        with autocast(batch.images.device, self.precision):  # ends here: the backward pass uses the same dtypes
            logits = (self.forward or self.network)(batch.images).float()
        loss = batch_loss(logits, batch, label_smoothing=self.label_smoothing, class_weights=self.class_weights)
        loss.backward()  # type: ignore[no-untyped-call]
        self.gradients.adjust(self.network.parameters())
        return loss.detach(), logits.detach()


def batch_loss(
    logits: Tensor, batch: Batch, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of a batch in nats, from its logits (B, K); a mixed image has two labels, by their shares.

    With class weights (K,) it is PyTorch's: divided by the sum of the weights of the labels instead of B. With label
    smoothing as well, the mass that is spread over the other classes counts with the weights of those classes.
    """
    if batch.mixed is None:
        return F.cross_entropy(logits, batch.labels, weight=class_weights, label_smoothing=label_smoothing)
    shares = batch.mixed.shares
    own, partners = (
        F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing, reduction="none")
        for labels in (batch.labels, batch.mixed.labels)
    )
    losses = shares * own + (1 - shares) * partners
    if class_weights is None:
        return losses.mean()
    weights = shares * class_weights[batch.labels] + (1 - shares) * class_weights[batch.mixed.labels]
    return losses.sum() / weights.sum()


@contextmanager
def kept(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Undoes what passes within the context do to buffers, gradients and PyTorch's random numbers."""
    buffers = [buffer.clone() for buffer in network.buffers()]
    on_cuda = device.type == "cuda"
    state = torch.cuda.get_rng_state(device) if on_cuda else torch.get_rng_state()
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        for buffer, before in zip(network.buffers(), buffers, strict=True):
            buffer.copy_(before)
        if on_cuda:
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
