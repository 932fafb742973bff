"""What a data set holds: from its class, or else from its files, which are then read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from era_cnn.config.choices import DATASETS, DataSection
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.errors import ConfigError, DataError, EraCnnError

if TYPE_CHECKING:
    from era_cnn.data.arrays import Arrays
    from era_cnn.data.sets import Dataset


def info_of(data: DataSection) -> DataInfo:
    """The description of a section's data set.

    Raises:
        FieldError: If the fields of the section contradict each other.
        ConfigError: If the data set of a plugin describes itself wrongly.
    """
    try:
        info = DATASETS.make(data.name, data).info()
    except (FieldError, EraCnnError):
        raise
    except Exception as error:  # whatever the code of a plugin raises
        got = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        advice = DATASETS.where_to_fix(data.name)
        raise ConfigError([f"dataset.{data.name} must describe itself, got {got}. {advice}"]) from error
    if not isinstance(info, DataInfo):
        raise ConfigError([DATASETS.fault(data.name, "return a DataInfo from info()", info)])
    return info


def is_described(data: DataSection) -> bool:
    """Whether a section holds everything that may have to be found in the files of its data set."""
    return None not in (data.mean, data.std) and getattr(data, "contents", data) is not None


def described(data: DataSection) -> DataSection:
    """The section with what is null and lies in the files of its data set: the contents, the mean and the deviation.

    The first time this may take a minute, since the images are read.

    Raises:
        ValidationError: If what is found is out of range.
        FieldError: If the fields of the section contradict each other, or do not fit the files.
        DataError: If the files are missing or damaged.
    """
    if is_described(data):
        return data
    remembered = _remembered.get({})
    key = data.model_dump_json()
    if key not in remembered:
        arrays = read_from(DATASETS.make(data.name, data), data.name)
        found: dict[str, Any] = dict(zip(("mean", "std"), arrays.statistics, strict=True))
        if "contents" in type(data).model_fields:
            found["contents"] = arrays.contents
        remembered[key] = type(data).model_validate({**found, **data.model_dump(exclude_none=True)})
    return remembered[key]


def read_from(entry: Dataset, name: str) -> Arrays:
    """The images and labels of a data set.

    Raises:
        FieldError: If its fields do not fit its files.
        DataError: If the files are missing or damaged, or what is read are no images and labels.
    """
    try:
        arrays = entry.read()
    except (EraCnnError, FieldError):
        raise
    except (OSError, ValueError) as error:  # of a plugin
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"The data set {name} must be readable, got {reason}. Check its files.") from error
    if isinstance(arrays, type) or not hasattr(arrays, "faults"):
        raise DataError(DATASETS.fault(name, "return Arrays from read()", arrays))
    for fault in arrays.faults():
        raise DataError(f"dataset.{name} must read {fault}. {DATASETS.where_to_fix(name)}")
    return arrays


_remembered: ContextVar[dict[str, DataSection]] = ContextVar("remembered")


@contextmanager
def describing_once() -> Iterator[None]:
    """Within the context, equal sections are described once: the jobs of a sweep share their data."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)
