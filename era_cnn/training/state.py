"""Everything that changes while a network trains, as one object: it can be listed, saved and loaded."""

from __future__ import annotations

import copy
import itertools
import re
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
        self._is_training = False

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def add(self, name: str, member: Member) -> None:
        """Adds a member to the state before the training begins: its tensors are saved, restored and compared.

        Args:
            name: The prefix of the names of its tensors: letters, digits and underscores.
            member: The member; anything it depends on must be part of the state as well.

        Raises:
            ValueError: If the name is taken or no word, the member holds what can't be stored, or the training has
                begun: a run could then not be resumed.
        """
        if self._is_training:
            raise ValueError(f"A member must be added before the training begins, got {name!r}. Add it in on_start.")
        if not re.fullmatch(r"\w+", name):
            rule = "be made of letters, digits and underscores"
            raise ValueError(f"The name of a member must {rule}, got {name!r}. Choose another name.")
        if name in ("network", "weights", "optimizer", "order", *self._members):
            raise ValueError(f"The name of a member must be free, got {name!r}. Choose another name.")
        _check_storable(name, member.state_dict())
        self._members[name] = member

    def begin(self) -> None:
        """Ends the time in which members may be added."""
        self._is_training = True

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
        """Restores the state that `state_dict` returned, after checking it against the network and the optimizer.

        The optimizer keeps the options of the config. Every tensor is copied into memory that is laid out as PyTorch
        would: its kernels trust the shapes and strides that they are given.

        Raises:
            RunFolderError: If the members differ, or a tensor does not fit; then nothing was changed.
        """
        wanted = {"network", "optimizer", *self._members}
        if _entries("the state", state).keys() != wanted:
            got = ", ".join(sorted(map(str, state.keys() ^ wanted)))[:200]
            raise RunFolderError(
                f"A checkpoint must hold {', '.join(sorted(wanted))}, got a difference in {got}. "
                "Resume with the listeners that the run was started with."
            )
        moments = _moments_like(self.optimizer, state["optimizer"])
        members = {name: _like(name, member.state_dict(), state[name]) for name, member in self._members.items()}
        load_weights(self.network, state["network"])
        own_options = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": own_options})
        for name, member in self._members.items():
            member.load_state_dict(members[name])


def load_weights(network: nn.Module, weights: Any) -> None:
    """Copies weights and buffers into a network.

    Raises:
        RunFolderError: If a name, a shape or a type differs from the network's; then nothing was changed.
    """
    own = network.state_dict()
    _check_names("weights", own, weights)
    for name, tensor in own.items():
        _check_fits(f"weights.{name}", tensor, weights[name])
    network.load_state_dict(weights)


def _moments_like(optimizer: torch.optim.Optimizer, stored: Any) -> dict[int, dict[str, Any]]:
    """The moments that a checkpoint holds for each parameter, checked against those that a first step creates.

    A parameter that never had a gradient has none.
    """
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    own, moments = twin.state_dict()["state"], _entries("optimizer", stored).get("state")
    if unknown := [str(number) for number in _entries("optimizer.state", moments) if number not in own]:
        raise _unfit("optimizer.state", "the parameters of the network", f"others ({', '.join(unknown)[:80]})")
    assert isinstance(moments, Mapping), "checked a moment ago"
    for number, values in moments.items():
        _check_names(f"optimizer.{number}", own[number], values)
    return {number: _like(f"optimizer.{number}", own[number], values) for number, values in moments.items()}


def _like(name: str, own: Any, stored: Any) -> Any:
    """The stored values; each tensor that `own` has in the same place is checked, and copied into the same layout."""
    if isinstance(own, Tensor):
        _check_fits(name, own, stored)
        return torch.empty_like(own).copy_(stored.detach())
    if isinstance(own, Mapping):
        entries = _entries(name, stored)
        return {key: _like(f"{name}.{key}", own.get(key), value) for key, value in entries.items()}
    if isinstance(own, list | tuple):
        if not isinstance(stored, list | tuple):
            raise _unfit(name, "a list", type(stored).__name__)
        pairs = enumerate(itertools.zip_longest(own[: len(stored)], stored))
        return [_like(f"{name}.{number}", mine, theirs) for number, (mine, theirs) in pairs]
    if own is not None and type(stored) is not type(own):
        raise _unfit(name, f"a value of type {type(own).__name__}", type(stored).__name__)
    return stored.clone(memory_format=torch.contiguous_format) if isinstance(stored, Tensor) else stored


def _check_names(what: str, own: Mapping[Any, Any], stored: Any) -> None:
    entries = _entries(what, stored)
    if differing := sorted(map(str, own.keys() ^ entries.keys())):
        raise _unfit(what, "the names that the config gives", f"a difference in {', '.join(differing)[:200]}")


def _entries(what: str, stored: Any) -> Mapping[Any, Any]:
    if not isinstance(stored, Mapping):
        raise _unfit(what, "a mapping", type(stored).__name__)
    return stored


def _check_fits(name: str, own: Tensor, stored: Any) -> None:
    if not isinstance(stored, Tensor):
        raise _unfit(name, "a tensor", type(stored).__name__)
    expected, got = (f"{each.dtype} {tuple(each.shape)}" for each in (own, stored))
    if expected != got or stored.layout != torch.strided:
        raise _unfit(name, expected, got if stored.layout == torch.strided else str(stored.layout))
    if stored.is_meta or not stored.isfinite().all():  # a run saves neither
        raise _unfit(name, "finite values", "none" if stored.is_meta else "others")


def _unfit(name: str, expected: str, got: str) -> RunFolderError:
    return RunFolderError(f"The checkpoint must hold {expected} as {name}, got {got}. Start a new run.")


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
