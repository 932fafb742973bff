"""The folder of a sweep: its jobs' folders, made before the first one starts, and the ledger."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from era_cnn.compose.planner import PlannedJob
from era_cnn.compose.yamlfiles import parse_yaml
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.claims import locked
from era_cnn.folders.ledger import Entry, Job, Ledger
from era_cnn.folders.outcome import Outcome, read_outcome
from era_cnn.folders.run import RunFolder
from era_cnn.folders.storage import as_yaml, write_atomically
from era_cnn.folders.stored import read_config

RECORD = "multirun.yaml"
"""The composed config of the sweep, as Hydra writes it; it is there once all jobs are planned."""

LEDGER, STUDY = "ledger.jsonl", "study.db"

HALT = "halted"
"""A file that keeps jobs from beginning which wait in a queue."""


class SweepFolder:
    """The files of one sweep. A job is a run's folder like any other, with its config from the beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path / LEDGER)
        self.study = path / STUDY

    def create(self, composed: DictConfig, planned: Iterable[PlannedJob]) -> list[Job]:
        """Makes the folders of all jobs, and then multirun.yaml and the ledger: with those, the sweep can be resumed.

        Raises:
            StorageError: If something can't be written.
        """
        jobs = [self._make(job) for job in planned]
        write_atomically(self.path / RECORD, OmegaConf.to_yaml(composed).encode())
        self.ledger.create(jobs)
        return jobs

    def add(self, planned: PlannedJob) -> Job:
        """Makes the folder of one more job.

        Raises:
            StorageError: If something can't be written.
        """
        job = self._make(planned)
        self.ledger.add(Entry.now(job, "planned"))
        return job

    def jobs(self) -> list[Job]:
        """All jobs, by number: those of the ledger and, since it may be lost, damaged or cut short, of the folders.

        Raises:
            RunFolderError: If there is no sweep, or it was not planned to the end.
        """
        if not (self.path / RECORD).is_file():
            raise RunFolderError(
                f"{self.path} must hold a sweep, got none, or one that ended before its first job. Start it anew."
            )
        jobs = {entry.job.number: entry.job for entry in self.ledger.latest() or ()}
        known = {job.folder for job in jobs.values()}
        for job in self._jobs_on_disk(known):
            jobs.setdefault(job.number, job)
        return [jobs[number] for number in sorted(jobs)]

    def restore_ledger(self, jobs: Sequence[Job]) -> None:
        """Writes the ledger anew, as the folders of the jobs stand, if it does not have all of them.

        Raises:
            StorageError: If it can't be written.
        """
        if len(self.ledger.latest() or ()) != len(jobs):
            self.ledger.create(jobs, {job.number: self.outcome(job).state for job in jobs})

    def make_again(self, planned: PlannedJob, job: Job) -> None:
        """Makes the folder of a job that is gone.

        Raises:
            RunFolderError: If its config would be another one.
            StorageError: If something can't be written.
        """
        if digest(planned.config) != job.config_sha256:
            path = self.path / job.folder
            raise RunFolderError(
                f"{path} must be there, got nothing, and conf/ no longer says what it held. Undo the change of conf/."
            )
        self._make(replace(planned, subdir=job.folder))

    def run(self, job: Job) -> RunFolder:
        """The folder of a job."""
        return RunFolder(self.path / job.folder)

    def outcome(self, job: Job) -> Outcome:
        """What became of a job."""
        return read_outcome(self.path / job.folder, job.number, job.overrides)

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """What became of each."""
        return [self.outcome(job) for job in jobs]

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other drivers from the sweep.

        Raises:
            RunFolderError: If another process drives it, or the folder can't be written to.
        """
        return locked(self.path)

    def _make(self, planned: PlannedJob) -> Job:
        path = self.path / planned.subdir
        hydra_dir = path / ".hydra"
        try:
            hydra_dir.mkdir(parents=True, exist_ok=True)  # a kill may have left a part of it
            for name, text in _hydra_files(planned, self.path).items():
                (hydra_dir / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError.of(path, error) from error
        RunFolder(path).write_config(planned.config.anchored())
        return _job(planned.number, planned.overrides, planned.subdir, planned.config)

    def _jobs_on_disk(self, known: Collection[str]) -> Iterator[Job]:
        """The jobs whose folders are there and whole, but for those that are known."""
        for name, subfolders, files in os.walk(self.path):
            if ".hydra" not in subfolders:
                continue
            subfolders.clear()
            path = Path(name)
            if path.relative_to(self.path).as_posix() in known or "config.yaml" not in files:
                continue
            folder = RunFolder(path)
            hydra = folder.read(".hydra/hydra.yaml", lambda text: parse_yaml("hydra.yaml", text))["hydra"]
            overrides = tuple(hydra["overrides"]["task"])
            yield _job(
                hydra["job"]["num"], overrides, path.relative_to(self.path).as_posix(), read_config(folder).config
            )


def _job(number: int, overrides: tuple[str, ...], folder: str, config: RunConfig) -> Job:
    return Job(number, overrides, folder, digest(config), config.trainer.epochs_to_run, config.threads)


def _hydra_files(planned: PlannedJob, sweep_dir: Path) -> dict[str, str]:
    """What Hydra writes into the .hydra of a job, text by name of the file."""
    values: Any = OmegaConf.to_container(planned.composed(), resolve=False, enum_to_str=True)
    hydra = values.pop("hydra")
    hydra["sweep"]["dir"] = str(sweep_dir)
    hydra["runtime"]["output_dir"] = str(sweep_dir / planned.subdir)
    values.pop("sweep")  # it says how many runs are done, not how one is
    contents = {"config.yaml": values, "hydra.yaml": {"hydra": hydra}, "overrides.yaml": hydra["overrides"]["task"]}
    return {name: as_yaml(content) for name, content in contents.items()}
