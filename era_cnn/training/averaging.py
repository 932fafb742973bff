"""An exponential moving average of a network's weights, which is evaluated next to the network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from era_cnn.errors import RunFolderError
from era_cnn.training.state import Member


def decay_at(num_updates: int, decay: float) -> float:
    """The decay after a number of updates: it grows, so that the random weights of the beginning are soon forgotten."""
    return min(decay, (1 + num_updates) / (10 + num_updates))


class Average(Member):
    """A second network whose tensors follow those of the first: average += (1 - decay) · (tensor - average).

    The decay is `decay_at`; the average looks back over about 1 / (1 - decay) updates. The moments of batch norm are
    averaged like weights; integers are copied.

    Attributes:
        network: The averaged network, in evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._followed, self._decay, self._num_updates = network, decay, 0

    @torch.no_grad()
    def after_step(self) -> None:
        """Moves the average towards the weights after an update."""
        decay = decay_at(self._num_updates, self._decay)
        self._num_updates += 1
        followed = self._followed.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(followed[name], 1 - decay)
            else:
                average.copy_(followed[name])

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and the averaged tensors."""
        return {"num_updates": self._num_updates, "weights": dict(self.network.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        if state["num_updates"] < 0:
            got = state["num_updates"]
            raise RunFolderError(f"The checkpoint must hold a count as ema.num_updates, got {got}. Start a new run.")
        self._num_updates = state["num_updates"]
        self.network.load_state_dict(state["weights"])
