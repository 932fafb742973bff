"""Checkpoints: all that a training needs to continue exactly, as tensors and plain values.

They hold no generator state, since each random number depends only on the seed, what it is for and the step.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from era_cnn.errors import RunFolderError, TrainingError
from era_cnn.training.ending import EndsAfter, never
from era_cnn.training.evaluate import Tally
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.loop import Position
from era_cnn.training.state import TrainingState
from era_cnn.training.windows import Windows

SCHEMA = 4


@dataclass(frozen=True)
class Checkpoint:
    """A training at a position: its state, and the history of the epochs before.

    `origin` holds the digests of the config and the data, `config_sha256` and `data_sha256`. A checkpoint is valid only
    for these.
    """

    origin: dict[str, str]
    position: Position
    state: dict[str, Any]
    history: History

    def to_bytes(self) -> bytes:
        """The checkpoint in PyTorch's file format; `torch.load(..., weights_only=True)` reads it."""
        position = self.position
        values = {
            "schema": SCHEMA,
            "origin": self.origin,
            "epoch": position.epoch,
            "steps_done": position.steps_done,
            "tally": position.tally.state() if position.tally else None,
            "seconds": position.seconds,
            "state": self.state,
            "history": list(map(_plain, self.history)),
        }
        buffer = io.BytesIO()
        torch.save(values, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, device: torch.device) -> Checkpoint:
        """The checkpoint that `to_bytes` returned, in this or an earlier version, with its tensors on `device`.

        Raises:
            RunFolderError: If a newer version wrote it, or it is no checkpoint.
        """
        try:
            return cls._from_bytes(content, device)
        except RunFolderError:
            raise
        except Exception as error:  # torch.load raises anything for bytes that torch.save did not write
            got = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise RunFolderError(f"A checkpoint must hold a training, got {got}. Start a new run.") from error

    @classmethod
    def _from_bytes(cls, content: bytes, device: torch.device) -> Checkpoint:
        _check_size(content)
        values = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        for schema, upgrade in _UPGRADES.items():
            if values.get("schema") == schema:
                values = upgrade(values)
        if values.get("schema") != SCHEMA:
            raise RunFolderError(
                f"A checkpoint must have a schema up to {SCHEMA}, got {values.get('schema')}: another version wrote "
                "it. Resume with that version."
            )
        whole = _VALUES.validate_python(values)
        tally = None if whole["tally"] is None else Tally.from_state(whole["tally"], device)
        return cls(
            whole["origin"],
            Position(whole["epoch"], whole["steps_done"], tally, whole["seconds"]),
            values["state"],
            History(whole["history"]),
        )

    def check_position(
        self,
        *,
        epochs: int,
        num_steps: int,
        ends_after: EndsAfter = never,
    ) -> None:
        """Raises a `RunFolderError` if no training of `epochs` epochs of `num_steps` updates can be where this one is.

        Such a checkpoint would complete without training, or train on other images than the run did. `ends_after` is
        that of `fit`: an epoch is the last one only if the training ends with it.
        """
        position, recorded = self.position, [metrics.epoch for metrics in self.history]
        ends = [epoch for epoch in recorded if epoch == epochs or ends_after(self.history[:epoch])]
        is_possible = (
            position.epoch <= epochs + 1
            and recorded == list(range(1, position.epoch))
            and ends in ([], recorded[-1:])
            and all(metrics.test if metrics.epoch in ends else not metrics.is_last for metrics in self.history)
            and position.steps_done <= (num_steps if position.epoch <= epochs else 0)
            and (position.tally is None) == (position.steps_done == 0)
        )
        if not is_possible:
            raise RunFolderError(
                f"A checkpoint must be within {epochs} epochs of {num_steps} steps, got epoch {position.epoch} after "
                f"{position.steps_done} steps, with {len(recorded)} recorded epochs. Start a new run."
            )


def _from_schema_2(values: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a checkpoint from before the state had members."""
    state = {"network": values["weights"], "optimizer": values["optimizer"]}
    return {**values, "schema": 3, "state": state, "history": values["records"]}


def _from_schema_3(values: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a checkpoint from before the loss within epochs was recorded."""
    tally = values["tally"] and {**values["tally"], "windows": Windows().state()}
    return {**values, "schema": 4, "tally": tally}


_UPGRADES = {2: _from_schema_2, 3: _from_schema_3}
"""Maps each former schema to the step that upgrades to the next one, in order."""


def _plain(metrics: EpochMetrics) -> dict[str, Any]:
    """The metrics as plain values; `dataclasses.asdict` would also copy each number of the lists."""
    return {name: vars(value) if is_dataclass(value) else value for name, value in vars(metrics).items()}


class _Values(TypedDict):
    """What a checkpoint holds besides the state, which is checked against the network and the optimizer."""

    origin: dict[str, str]
    epoch: Annotated[int, Field(ge=1)]
    steps_done: Annotated[int, Field(ge=0)]
    tally: dict[str, Any] | None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    history: list[EpochMetrics]


_VALUES = TypeAdapter(_Values)


def _check_size(content: bytes) -> None:
    """Raises a `ValueError` unless the file is an archive, as PyTorch writes, that unpacks to no more than it holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > len(content):
        raise ValueError(f"an archive of {len(content):,} bytes that unpacks to {unpacked:,}")


def capture(origin: dict[str, str], position: Position, state: TrainingState, history: History) -> Checkpoint:
    """The current checkpoint of a training. Nothing is copied, so it must be written before the training continues.

    Raises:
        TrainingError: If a tensor is not finite, so that such a checkpoint never replaces a finite one.
    """
    for name, tensor in state.tensors().items():
        if not math.isfinite(tensor.sum()) and not tensor.isfinite().all():  # the sum costs less, and may overflow
            raise TrainingError(
                f"The tensor {name} must stay finite, got another value in epoch {position.epoch} after "
                f"{position.steps_done} steps. Lower optimizer.lr."
            )
    return Checkpoint(origin, position, state.state_dict(), history)
