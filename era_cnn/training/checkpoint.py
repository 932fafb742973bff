"""What a training needs to go on exactly, as tensors and plain values.

No generator state: every random number is a function of seed, purpose and position.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.training.evaluate import Tally
from era_cnn.training.history import EpochMetrics, History, Scores
from era_cnn.training.loop import Position
from era_cnn.training.state import TrainingState

SCHEMA = 3


@dataclass(frozen=True)
class Checkpoint:
    """A training at a position: its state, and the history of the epochs before.

    `origin` holds the digests of what it is a training of, `config_sha256` and `data_sha256`: with others, it is none.
    """

    origin: dict[str, str]
    position: Position
    state: dict[str, Any]
    history: History

    def to_bytes(self) -> bytes:
        """As PyTorch saves it; `torch.load(..., weights_only=True)` reads it."""
        position = self.position
        values = {
            "schema": SCHEMA,
            "origin": self.origin,
            "epoch": position.epoch,
            "steps_done": position.steps_done,
            "tally": position.tally.state() if position.tally else None,
            "seconds": position.seconds,
            "state": self.state,
            "history": [asdict(metrics) for metrics in self.history],
        }
        buffer = io.BytesIO()
        torch.save(values, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, device: torch.device) -> Checkpoint:
        """What `to_bytes` gave, on a device; also what earlier versions wrote.

        Raises:
            RunFolderError: If a later version gave it.
        """
        values = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        if values.get("schema") == 2:
            values = _from_schema_2(values)
        if values.get("schema") != SCHEMA:
            raise RunFolderError(
                f"A checkpoint must have a schema up to {SCHEMA}, got {values.get('schema')}: another version wrote "
                "it. Go on with that version."
            )
        tally = Tally.from_state(values["tally"], device) if values["tally"] else None
        return cls(
            values["origin"],
            Position(values["epoch"], values["steps_done"], tally, values["seconds"]),
            values["state"],
            History(map(_metrics, values["history"])),
        )


def _from_schema_2(values: dict[str, Any]) -> dict[str, Any]:
    """Before there was a state with members."""
    state = {"network": values["weights"], "optimizer": values["optimizer"]}
    return {**values, "schema": SCHEMA, "state": state, "history": values["records"]}


def _metrics(values: dict[str, Any]) -> EpochMetrics:
    scores = {name: Scores(**values[name]) if values[name] else None for name in ("val", "test")}
    return EpochMetrics(**{**values, **scores})


def capture(origin: dict[str, str], position: Position, state: TrainingState, history: History) -> Checkpoint:
    """A training as it is now; to be written before it goes on, since nothing is copied.

    Raises:
        TrainingError: If a tensor is not finite, so that no such checkpoint takes a finite one's place.
    """
    for name, tensor in state.tensors().items():
        if not math.isfinite(tensor.sum()) and not tensor.isfinite().all():  # the sum costs less, and may overflow
            raise TrainingError(
                f"The tensor {name} must stay finite, got another value in epoch {position.epoch} after "
                f"{position.steps_done} steps. Lower optimizer.lr."
            )
    return Checkpoint(origin, position, state.state_dict(), history)
