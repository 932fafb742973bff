"""What a training needs to go on exactly, as tensors and plain values.

No generator state: every random number is a function of seed, purpose and position.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.training.loop import EpochMetrics, Position, Scores, Tally

SCHEMA = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training at a position: the model, the optimizer, and the records of the epochs before.

    `origin` holds the digests of what it is a training of, `config_sha256` and `data_sha256`: with others, it is none.
    """

    origin: dict[str, str]
    position: Position
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    records: list[EpochMetrics]

    def to_bytes(self) -> bytes:
        """As PyTorch saves it; `torch.load(..., weights_only=True)` reads it."""
        position = self.position
        state = {
            "schema": SCHEMA,
            "origin": self.origin,
            "epoch": position.epoch,
            "steps_done": position.steps_done,
            "tally": position.tally.state() if position.tally else None,
            "seconds": position.seconds,
            "weights": self.weights,
            "optimizer": self.optimizer,
            "records": [asdict(record) for record in self.records],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, device: torch.device) -> Checkpoint:
        """What `to_bytes` gave, on a device.

        Raises:
            RunFolderError: If another version gave it.
        """
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        if state.get("schema") != SCHEMA:
            raise RunFolderError(
                f"A checkpoint must have the schema {SCHEMA}, got {state.get('schema')}: another version wrote it. "
                "Go on with that version."
            )
        tally = Tally.from_state(state["tally"], device) if state["tally"] else None
        return cls(
            state["origin"],
            Position(state["epoch"], state["steps_done"], tally, state["seconds"]),
            state["weights"],
            state["optimizer"],
            [_record(values) for values in state["records"]],
        )


def _record(values: dict[str, Any]) -> EpochMetrics:
    scores = {name: Scores(**values[name]) if values[name] else None for name in ("val", "test")}
    return EpochMetrics(**{**values, **scores})


def capture(
    origin: dict[str, str],
    position: Position,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    records: Sequence[EpochMetrics],
) -> Checkpoint:
    """A training as it is now; to be written before it goes on, since nothing is copied.

    Raises:
        TrainingError: If a tensor is not finite, so that no such checkpoint takes a finite one's place.
    """
    weights = model.state_dict()
    names = [name for name, _ in model.named_parameters()]
    moments = {
        f"{moment} of {names[number]}": value
        for number, state in optimizer.state_dict()["state"].items()
        for moment, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    for name, tensor in {**weights, **moments}.items():
        if not math.isfinite(tensor.sum()) and not tensor.isfinite().all():  # the sum costs less, and may overflow
            raise TrainingError(
                f"The tensor {name} must stay finite, got another value in epoch {position.epoch} after "
                f"{position.steps_done} steps. Lower optimizer.lr."
            )
    return Checkpoint(origin, position, weights, optimizer.state_dict(), list(records))


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts model and optimizer where the checkpoint found them.

    The optimizer keeps its own learning rate: the saved one is what the schedule had made of it.
    """
    model.load_state_dict(checkpoint.weights)
    lrs = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(checkpoint.optimizer)
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        group["lr"] = lr
