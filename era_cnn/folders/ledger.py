"""The ledger of a sweep: a file with a line for each change of a job's state.

Only the process that drives the sweep writes to it. A kill at any moment can tear only the last line, which is then
ignored, and cut off before the next one is added. The folders of the jobs are authoritative: the ledger records a job's
state as the driver last saw it.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from era_cnn.errors import StorageError
from era_cnn.folders.plain import open_to_append, read_plain
from era_cnn.folders.schemas import JobLine, checked
from era_cnn.folders.storage import write_atomically


@dataclass(frozen=True)
class Job:
    """A job of a sweep: its overrides, and its folder."""

    number: int
    overrides: tuple[str, ...]
    folder: str
    """Relative to the folder of the sweep."""

    config_sha256: str
    """The digest of the config as it was planned: the device may still be `auto`."""

    epochs: int
    threads: int


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a job, and its new state."""

    job: Job
    state: str
    time: str
    message: str = ""

    @classmethod
    def now(cls, job: Job, state: str, message: str = "") -> Entry:
        """An entry with the current time, in UTC."""
        return cls(job, state, datetime.now(timezone.utc).isoformat(timespec="milliseconds"), message)

    def line(self) -> str:
        """The entry as a line of the file."""
        about = {"state": self.state, "time": self.time} | ({"message": self.message} if self.message else {})
        return json.dumps({"number": self.job.number, **about, **asdict(self.job)}) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Entry:
        """The entry that `line` returned.

        Raises:
            ValueError: If it is not a line of a ledger.
        """
        values: JobLine = checked(lambda: JobLine.model_validate_json(line))
        job = Job(
            values.number, tuple(values.overrides), values.folder, values.config_sha256, values.epochs, values.threads
        )
        return cls(job, values.state, values.time, values.message)


class Ledger:
    """The ledger file, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, jobs: Iterable[Job], states: Mapping[int, str] | None = None) -> None:
        """Writes the first line of every job at once: `planned`, or the state given by its number.

        Raises:
            StorageError: If it can't be written; also raised by `add`.
        """
        entries = (Entry.now(job, (states or {}).get(job.number, "planned")) for job in jobs)
        write_atomically(self.path, "".join(entry.line() for entry in entries).encode())

    def add(self, *entries: Entry) -> None:
        """Adds lines, and waits until they are on the disk."""
        try:
            with open_to_append(self.path, "ab+", buffering=0) as file:
                file.truncate(_end_of_lines(file.fileno()))
                file.write("".join(entry.line() for entry in entries).encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError.of(self.path, error) from error

    def entries(self) -> list[Entry]:
        """Every line, in order, except a last one that was torn by a kill.

        Raises:
            ValueError: If another line is damaged.
            OSError: If the file can't be read.
        """
        lines = io.BytesIO(read_plain(self.path))
        return [Entry.of_line(line.decode()) for line in lines if line.endswith(b"\n")]  # the last one may be torn

    def folders_of(self, config_sha256: str) -> list[str]:
        """The folders of the jobs whose planned config has this digest; none if the file can't be read.

        Parses only the lines with that digest, since each job of a large sweep asks.
        """
        wanted = config_sha256.encode()
        try:
            lines = [line for line in io.BytesIO(read_plain(self.path)) if wanted in line and line.endswith(b"\n")]
            jobs = [Entry.of_line(line.decode()).job for line in lines]
        except (OSError, ValueError):
            return []
        return sorted({job.folder for job in jobs if job.config_sha256 == config_sha256})

    def latest(self) -> list[Entry] | None:
        """The last line of each job, by number; None if the file is lost, empty or damaged, or folders overlap."""
        try:
            latest = {entry.job.number: entry for entry in self.entries()}
        except (OSError, ValueError):
            return None
        if _overlap(entry.job.folder for entry in latest.values()):
            return None
        return [latest[number] for number in sorted(latest)] or None


def _overlap(folders: Iterable[str]) -> bool:
    """Whether two folders are the same, or one lies within another."""
    ways = sorted(folder.split("/") for folder in folders)
    return any(inner[: len(outer)] == outer for outer, inner in itertools.pairwise(ways))


def _end_of_lines(descriptor: int) -> int:
    """The offset of the end of the last whole line."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - MAX_LINE)
    tail = os.pread(descriptor, size - start, start)
    return start + tail.rfind(b"\n") + 1 if b"\n" in tail else 0 if start == 0 else size


MAX_LINE = 2**20
"""The most bytes in a line; an override has at most a few thousand characters."""
