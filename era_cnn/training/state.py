"""Everything that changes while a network trains, as one object: it can be listed, saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from era_cnn.errors import RunFolderError


class Member(ABC):
    """A part of the state, such as averaged weights: tensors and plain values, by name."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that it needs to continue exactly."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""

    def after_step(self) -> None:  # noqa: B027 - optional to override
        """Called after each parameter update, before listeners are called and the state is saved."""


class TrainingState:
    """Network, optimizer and further members.

    A checkpoint is this state plus a position and the history. Anything that is not part of it is lost in an
    interruption.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self._members: dict[str, Member] = {}

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def add(self, name: str, member: Member) -> None:
        """Adds a member to the state before the training begins: its tensors are saved, restored and compared.

        Args:
            name: The prefix of the names of its tensors.
            member: The member; anything it depends on must be part of the state as well.
        """
        if name in ("network", "weights", "optimizer", "order", *self._members):
            raise ValueError(f"The name of a member must be free, got {name!r}. Choose another name.")
        _check_storable(name, member.state_dict())
        self._members[name] = member

    def after_step(self) -> None:
        """Calls `after_step` of each member."""
        for member in self._members.values():
            member.after_step()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, ordered so that each depends on earlier ones.

        First the network's, from its first layer to its last (`weights.NAME`), then the optimizer's
        (`optimizer.NAME.MOMENT`), then those of each member (`MEMBER.NAME`).
        """
        tensors = {f"weights.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {
                f"optimizer.{name}.{moment}": torch.as_tensor(value)
                for moment, value in sorted(moments.items())
                if value is not None
            }
        for name, member in self._members.items():
            tensors |= dict(_tensors_in(member.state_dict(), name))
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors and plain values; nothing is copied."""
        members = {name: member.state_dict() for name, member in self._members.items()}
        for name, values in members.items():
            _check_storable(name, values)
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), **members}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned; the optimizer keeps the options of the config.

        Raises:
            RunFolderError: If the members differ.
        """
        wanted = {"network", "optimizer", *self._members}
        if state.keys() != wanted:
            got = ", ".join(sorted(state.keys() ^ wanted))
            raise RunFolderError(
                f"A checkpoint must hold {', '.join(sorted(wanted))}, got a difference in {got}. "
                "Resume with the listeners that the run was started with."
            )
        self.network.load_state_dict(state["network"])
        own_options = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": own_options})
        for name, member in self._members.items():
            member.load_state_dict(state[name])


def _check_storable(name: str, value: Any) -> None:
    """Raises a `ValueError` if a checkpoint with this value could not be read back."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            _check_storable(f"{name}.{key}", each)
    elif type(value) in (list, tuple):
        for number, each in enumerate(value):
            _check_storable(f"{name}.{number}", each)
    elif not isinstance(value, Tensor) and type(value) not in (int, float, bool, str, type(None)):
        raise ValueError(f"{name} must be a tensor or a plain value, got {type(value).__name__}. Convert it.")


def _tensors_in(values: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        yield prefix, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _tensors_in(value, f"{prefix}.{key}")
    elif isinstance(values, Sequence) and not isinstance(values, str):
        for number, value in enumerate(values):
            yield from _tensors_in(value, f"{prefix}.{number}")
