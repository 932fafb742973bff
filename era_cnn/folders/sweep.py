"""The folder of a sweep: the folders of its jobs, created before the first one starts, and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest, digest_as_schema_1
from era_cnn.config.yamltext import parse_yaml
from era_cnn.errors import RunFolderError
from era_cnn.folders.claims import locked
from era_cnn.folders.ledger import Entry, Job, Ledger
from era_cnn.folders.outcome import Outcome, read_outcome
from era_cnn.folders.plain import check_entries, walk
from era_cnn.folders.run import NOTES, NOTES_LOCK, SWEEP_FILES, RunFolder
from era_cnn.folders.schemas import SweepFile, checked
from era_cnn.folders.storage import PARTIAL, write_atomically
from era_cnn.folders.stored import read_config

RECORD, LEDGER = SWEEP_FILES
"""The composed config of the sweep, as Hydra writes it, which exists once all jobs are planned; and the ledger."""

STUDY = "study.db"

SUBMITIT = ".submitit"
"""The folder in which submitit keeps what it hands to Slurm."""

HALT = "halted"
"""A file that keeps queued jobs from starting."""

_FILES = (
    *SWEEP_FILES, *(f"{name}{PARTIAL}" for name in SWEEP_FILES), STUDY, f"{STUDY}-journal", f"{STUDY}-wal",
    f"{STUDY}-shm", "sweep.csv", "sweep.md", "report.html", HALT, ".lock", NOTES, f"{NOTES}{PARTIAL}", NOTES_LOCK,
)  # fmt: skip
"""The files of a sweep that this version reads or writes."""

OWN_NAMES = (*_FILES, SUBMITIT)
"""The names in the folder of a sweep that no job may have."""


AT_ONCE = 4
"""How many folders are created at the same time: most of the time passes until files are on the disk, and file systems
write those of several threads together."""


class PlannedJob(Protocol):
    """The properties of a planned job that its folder is created from."""

    @property
    def number(self) -> int | None:
        """Its number, from 0."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Its overrides, as they were typed."""

    @property
    def config(self) -> RunConfig:
        """Its validated config."""

    @property
    def folder(self) -> str:
        """Its folder, relative to that of the sweep."""

    def hydra_files(self, path: Path, sweep_dir: Path | None = None) -> dict[str, str]:
        """The contents of the files in its .hydra, by name."""


class SweepFolder:
    """The files of one sweep. The folder of a job is like that of any run, with its config from the beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path / LEDGER)
        self.study = path / STUDY

    def check(self) -> None:
        """Raises a `RunFolderError` if something that may be read or written in it is no plain file or folder."""
        check_entries(self.path, _FILES, [SUBMITIT], deep=False)

    def create(self, record: str, planned: Iterable[PlannedJob]) -> list[Job]:
        """Creates the folders of all jobs, then multirun.yaml and the ledger: with those, the sweep can be resumed.

        Args:
            record: The composed config of the sweep, in YAML.
            planned: The jobs of the sweep.

        Raises:
            StorageError: If a file can't be written.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = list(pool.map(lambda job: self._make(job, job.folder), planned))
        write_atomically(self.path / RECORD, record.encode())
        self.ledger.create(jobs)
        return jobs

    def add(self, planned: PlannedJob) -> Job:
        """Creates the folder of one more job.

        Raises:
            StorageError: If a file can't be written.
        """
        job = self._make(planned, planned.folder)
        self.ledger.add(Entry.now(job, "planned"))
        return job

    def read_request(self) -> SweepFile:
        """The content of multirun.yaml: the composed config of the sweep.

        Raises:
            RunFolderError: If the file is missing or damaged.
        """
        self.check()

        def parse(text: str) -> SweepFile:
            values = parse_yaml(RECORD, text)
            found: SweepFile = checked(lambda: SweepFile.model_validate(values))
            return found

        return RunFolder(self.path).read(RECORD, parse)

    def jobs(self, on_damage: Callable[[RunFolderError], object] | None = None) -> list[Job]:
        """All jobs by number, from the ledger and, since that may be lost, damaged or truncated, from the folders.

        Args:
            on_damage: Called for each folder that is damaged and not in the ledger; if None, it is an error.

        Raises:
            RunFolderError: If there is no sweep, or it ended before all jobs were planned.
        """
        self.check()
        if not (self.path / RECORD).is_file():
            raise RunFolderError(
                f"{self.path} must hold a sweep, got none, or one that ended before its first job. Start a new sweep."
            )
        jobs = {job.number: job for job in self._recorded()}
        known = {job.folder for job in jobs.values()}
        for job in self._jobs_on_disk(known, on_damage):
            jobs.setdefault(job.number, job)
        return [jobs[number] for number in sorted(jobs)]

    def restore_ledger(self, jobs: Sequence[Job]) -> None:
        """Rewrites the ledger from the folders of the jobs if it does not list all of them.

        Raises:
            StorageError: If it can't be written.
        """
        if len(self._recorded()) != len(jobs):
            self.ledger.create(jobs, {job.number: self.outcome(job).state for job in jobs})

    def make_again(self, planned: PlannedJob, job: Job) -> None:
        """Creates the missing folder of a job again.

        Raises:
            RunFolderError: If its config would differ from the original one.
            StorageError: If a file can't be written.
        """
        if job.config_sha256 not in (digest(planned.config), digest_as_schema_1(planned.config)):
            path = self.path / job.folder
            raise RunFolderError(
                f"{path} must exist, got nothing, and the config files now describe another job. Undo their change."
            )
        self._make(planned, job.folder)

    def run(self, job: Job) -> RunFolder:
        """The folder of a job."""
        return RunFolder(self.path / job.folder)

    def outcome(self, job: Job) -> Outcome:
        """The outcome of a job."""
        return read_outcome(self.path / job.folder, job.number, job.overrides)

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcome of each job."""
        return [self.outcome(job) for job in jobs]

    def locked(self) -> AbstractContextManager[None]:
        """Locks the sweep against other processes.

        Raises:
            RunFolderError: If another process runs the sweep, or the folder can't be written to.
        """
        self.check()
        return locked(self.path)

    def _make(self, planned: PlannedJob, name: str) -> Job:
        assert planned.number is not None, "a job has a number"
        path = self.path / name
        RunFolder(path).plan(planned.config, planned.hydra_files(path, self.path))
        return _job(planned.number, planned.overrides, name, planned.config)

    def _recorded(self) -> list[Job]:
        """The jobs in the ledger; none if it is damaged, or gives a job the place of a file of the sweep itself."""
        jobs = [entry.job for entry in self.ledger.latest() or ()]
        return [] if any(job.folder.split("/")[0] in OWN_NAMES for job in jobs) else jobs

    def _jobs_on_disk(
        self, known: Collection[str], on_damage: Callable[[RunFolderError], object] | None
    ) -> Iterator[Job]:
        """The jobs whose folders exist and are whole, except those in the folders `known`."""
        for path, subfolders, files in walk(self.path):
            if ".hydra" not in subfolders:
                continue
            subfolders.clear()
            where = path.relative_to(self.path).as_posix()
            if where in known or "config.yaml" not in files:
                continue
            try:
                yield _read_job(RunFolder(path), where)
            except RunFolderError as error:
                if on_damage is None:
                    raise
                on_damage(error)


def _read_job(folder: RunFolder, where: str) -> Job:
    folder.check()
    number, overrides = folder.read_task()
    if number is None:
        path = folder.path / ".hydra" / "hydra.yaml"
        raise RunFolderError(f"{path} must have the number of a job, got none. Move the folder out of the sweep.")
    return _job(number, overrides, where, read_config(folder).config)


def _job(number: int, overrides: tuple[str, ...], folder: str, config: RunConfig) -> Job:
    return Job(number, overrides, folder, digest(config), config.trainer.epochs_to_run, config.threads)
