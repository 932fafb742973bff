"""What the files of a run and of a sweep hold, checked when they are read: they may come from someone else."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from era_cnn.folders.result import Result

T = TypeVar("T")

MAX_JOBS = 10_000
"""The most jobs of a sweep, as `compose.guard` allows them: a search goes through all numbers up to the largest."""

_CONFIG = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

Plain = str | int | float | bool | None
Epoch = Annotated[int, Field(ge=1, le=2**31)]
JobNumber = Annotated[int, Field(ge=0, lt=MAX_JOBS, strict=True)]


class Status(BaseModel):
    """status.json."""

    model_config = _CONFIG

    state: Literal["queued", "running", "completed", "failed", "interrupted", "pruned"]
    started: str | None = None
    since: str = ""
    ended: str = ""
    host: str = ""
    pid: Annotated[int, Field(ge=1, lt=2**31)] = 1
    message: str = ""
    traceback: str = ""
    reused_from: str = ""


class Origin(BaseModel):
    """What provenance.json holds of the first start of a run, and of each resume; other keys are not read."""

    model_config = _CONFIG

    numerics: Annotated[int, Field(ge=1)] = 1
    config_sha256: str = ""
    data_sha256: str = ""
    code: dict[str, Any] = {}
    command: list[str] = []
    python: str = ""
    plugins: dict[str, str] = {}
    packages: dict[str, str | None] = {}
    machine: dict[str, Plain] = {}
    environment: dict[str, str] = {}


class Provenance(Origin):
    """provenance.json."""

    id: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    resumed: list[Origin] = []


class JobLine(BaseModel):
    """A line of ledger.jsonl. The folder of a job lies within that of the sweep."""

    model_config = _CONFIG

    number: JobNumber
    state: str
    time: str
    message: str = ""
    overrides: list[str]
    folder: Annotated[str, Field(pattern=r"^[^/\x00]+(/[^/\x00]+)*$")]
    config_sha256: str
    epochs: Epoch
    threads: Epoch

    def model_post_init(self, context: object) -> None:
        """Refuses a folder outside the sweep, and one with a name that no file system takes."""
        names = self.folder.split("/")
        if {".", ".."} & set(names):
            raise ValueError("folder: one outside the sweep")
        if len(self.folder) > 4_000 or any(len(name.encode()) > 255 for name in names):
            raise ValueError("folder: a name that is too long")


class _HydraJob(BaseModel):
    num: JobNumber | Literal["???"] | None = None  # ??? outside a sweep


class _HydraOverrides(BaseModel):
    task: list[str]


class _Source(BaseModel):
    provider: str
    path: str


class _Runtime(BaseModel):
    config_sources: list[_Source]


class _HydraNode(BaseModel):
    job: _HydraJob
    overrides: _HydraOverrides
    runtime: _Runtime | None = None


class HydraFile(BaseModel):
    """The part of .hydra/hydra.yaml that is read: a run's overrides, config folders and, in a sweep, its number."""

    hydra: _HydraNode

    @property
    def task(self) -> tuple[str, ...]:
        """The overrides as they were typed; those of a job have its swept values."""
        return tuple(self.hydra.overrides.task)

    @property
    def config_dirs(self) -> tuple[str, ...]:
        """The folders of the user's own config files (`--config-dir`)."""
        sources = self.hydra.runtime.config_sources if self.hydra.runtime else []
        return tuple(each.path for each in sources if each.provider == "command-line")


class _SweepJob(BaseModel):
    config_name: str | None


class _SweepOverrides(BaseModel):
    hydra: list[str]
    task: list[str]


class _SweepNode(BaseModel):
    job: _SweepJob
    overrides: _SweepOverrides
    runtime: _Runtime
    launcher: dict[str, Any]
    sweeper: dict[str, Any]


class SweepFile(BaseModel):
    """The part of multirun.yaml that is read: the words that started a sweep, and its options, checked elsewhere."""

    hydra: _SweepNode
    sweep: dict[str, Any]
    report: bool = True


_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
_JSON: dict[str, Callable[[str, dict[str, Any]], object]] = {
    "status.json": lambda text, values: Status.model_validate(values),
    "provenance.json": lambda text, values: Provenance.model_validate(values),  # may hold file names that are not UTF-8
    "result.json": lambda text, values: _RESULT.validate_json(text),
}


def parse_json(name: str, text: str) -> dict[str, Any]:
    """The object in one of the JSON files of a run.

    Raises:
        ValueError: If it is damaged, or does not hold what such a file holds.
    """
    values = json.loads(text, parse_constant=_refuse)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    checked(lambda: _JSON[name](text, values))
    return values


def parse_metrics(text: str) -> list[dict[str, str]]:
    """The rows of metrics.csv: a finite number in each cell, an accuracy in [0, 1], or nothing without an evaluation.

    Raises:
        ValueError: If it is damaged.
    """
    return _listed(_checked_rows(text))


def _listed(rows: Iterator[T]) -> list[T]:
    """The rows of a CSV file; what is wrong with the file itself is a `ValueError` like what is wrong with a row."""
    try:
        return list(rows)
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _checked_rows(text: str) -> Iterator[dict[str, str]]:
    """The rows one by one, so that a long file that holds something else ends at its first line."""
    for epoch, row in enumerate(csv.DictReader(io.StringIO(text), strict=True), start=1):
        missing = [column for column in _COLUMNS if column not in row]
        if missing or None in row or None in row.values():
            raise ValueError(f"line {epoch + 1}: other columns than {', '.join(_COLUMNS)}")
        if row["epoch"] != str(epoch):
            raise ValueError(f"line {epoch + 1}: not epoch {epoch}")
        for column, cell in row.items():
            _check_cell(f"line {epoch + 1}: {column}", column, cell)
        yield row


_COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
"""The columns that every version wrote; those of validation images and averaged weights may be missing."""


def parse_steps(text: str) -> list[dict[str, float]]:
    """The rows of steps.csv: windows of the epochs, one after the other, with a finite number in each cell.

    Raises:
        ValueError: If it is damaged.
    """
    return _listed(_checked_steps(text))


def _checked_steps(text: str) -> Iterator[dict[str, float]]:
    before = (0.0, math.inf)  # no step of an epoch 0
    for number, row in enumerate(csv.DictReader(io.StringIO(text), strict=True), start=2):
        if tuple(row) != STEP_COLUMNS or None in row.values():
            raise ValueError(f"line {number}: other columns than {', '.join(STEP_COLUMNS)}")
        values = {column: float(cell) for column, cell in row.items()}
        if not all(map(math.isfinite, values.values())) or values["step"] < 1:
            raise ValueError(f"line {number}: a value that no training has")
        if (values["epoch"], values["step"]) <= before:
            raise ValueError(f"line {number}: not after the line before")
        before = (values["epoch"], values["step"])
        yield values


STEP_COLUMNS = ("epoch", "step", "images", "loss", "lr")


def parse_fingerprints(text: str) -> dict[int, dict[str, str]]:
    """The digest of each tensor by epoch, from the lines of fingerprints.jsonl.

    Raises:
        ValueError: If it is damaged.
    """
    return dict(enumerate(map(_digests, io.StringIO(text), range(1, 2**31)), start=1))


def checked(validate: Callable[[], Any]) -> Any:
    """What pydantic returns, and its first complaint as a short ValueError."""
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error


def _digests(line: str, epoch: int) -> dict[str, str]:
    values = json.loads(line)
    if not isinstance(values, dict) or values.pop("epoch", None) != epoch:
        raise ValueError(f"a line {epoch} that is not for epoch {epoch}")
    if not values or not all(isinstance(digest, str) for digest in values.values()):
        raise ValueError(f"line {epoch}: something other than digests")
    return values


def _check_cell(place: str, column: str, cell: str) -> None:
    is_optional = column.startswith(("val_", "test_", "ema_"))
    number = math.nan if not cell and not is_optional else float(cell or 0)
    if not math.isfinite(number) or (column.endswith("_accuracy") and not 0 <= number <= 1):
        raise ValueError(f"{place} is {cell[:40]!r}")


def _refuse(name: str) -> None:
    raise ValueError(f"the number {name}")
