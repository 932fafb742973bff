"""An exponential moving average of the weights, as a member of the training state."""

from typing import Any

import torch
from torch import Tensor, nn

import era_cnn


class Average(era_cnn.Listener):
    """Averages the network's parameters after each step: average += (1 - decay) · (weight - average)."""

    is_essential = True

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay

    def on_start(self, training: Any) -> None:
        self.network: nn.Module = training.state.network
        self.tensors = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        training.state.add("average", self)

    @torch.no_grad()
    def on_step(self, step: Any) -> None:
        for name, weight in self.network.named_parameters():
            self.tensors[name].lerp_(weight, 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.tensors

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in state.items():
            self.tensors[name].copy_(tensor)


class StopIn(era_cnn.Listener):
    """Interrupts the training at a step, as a signal would."""

    is_essential = True

    def __init__(self, epoch: int, step: int) -> None:
        self.place = (epoch, step)

    def on_step(self, step: Any) -> None:
        if (step.epoch, step.step) == self.place:
            raise KeyboardInterrupt
