"""An exponential moving average of the weights, as a member of the training state."""

from typing import Any

import torch
from torch import Tensor, nn

import era_cnn


class Average(era_cnn.Member):
    """Follows the network's parameters: average += (1 - decay) · (weight - average)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.tensors = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def after_step(self) -> None:
        for name, weight in self.network.named_parameters():
            self.tensors[name].lerp_(weight, 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.tensors

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in state.items():
            self.tensors[name].copy_(tensor)


class Averaging(era_cnn.Listener):
    """Adds an average to the state of a training."""

    is_essential = True

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay

    def on_start(self, training: Any) -> None:
        self.average = Average(training.state.network, self.decay)
        training.state.add("average", self.average)


class StopIn(era_cnn.Listener):
    """Interrupts the training at a step, as a signal would."""

    is_essential = True

    def __init__(self, epoch: int, step: int) -> None:
        self.place = (epoch, step)

    def on_step(self, step: Any) -> None:
        if (step.epoch, step.step) == self.place:
            raise KeyboardInterrupt
