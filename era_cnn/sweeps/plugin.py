"""Runs jobs through Hydra's launcher plugins, such as those for Slurm and Ray.

A plugin takes lists of overrides, blocks until all jobs have returned, and fails with the first one that did not. Here
it runs in a separate thread and gets only the folder of each job; the outcome of a job is read from that folder.
"""

from __future__ import annotations

import functools
import importlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.launchers import LauncherPlugin, launcher_of
from era_cnn.compose.words import Words
from era_cnn.errors import LauncherError, OutputError, RunFolderError, amount
from era_cnn.folders.ledger import Job
from era_cnn.folders.run import RunFolder
from era_cnn.folders.sweep import HALT, SUBMITIT
from era_cnn.output import say
from era_cnn.runs.stopping import stop_requests
from era_cnn.sweeps.executor import Ended, Manner
from era_cnn.sweeps.launchers import SLURM_SECONDS
from era_cnn.sweeps.worker import do_job


class PluginExecutor:
    """Hands jobs to a launcher plugin.

    Args:
        sweep_dir: The folder of the sweep; the machines that run the jobs must have access to it.
        words: The words that the config was composed from.
        composed: The config of the sweep; its `hydra.launcher` names the plugin.
        manner: How all jobs are run.
    """

    first_state, can_stop_one = "queued", False

    def __init__(self, sweep_dir: Path, words: Words, composed: Composed, manner: Manner) -> None:
        self._sweep_dir = sweep_dir
        self._batch: list[Job] = []
        self._launches: list[tuple[threading.Thread, list[Job]]] = []
        self._errors: dict[int, str] = {}
        self._refused: list[Job] = []
        self._name = getattr(launcher_of(composed, is_used=False), "name", "")
        self._launcher = LauncherPlugin(words, composed, sweep_dir, functools.partial(do_remotely, manner))
        (sweep_dir / HALT).unlink(missing_ok=True)
        self._patience = ExitStack()
        self._patience.enter_context(_patient(self._launcher.module))

    def is_full(self) -> bool:
        """Always False: the plugin queues jobs itself."""
        return False

    def has_room(self, job: Job) -> bool:
        """Always True: the plugin queues jobs itself."""
        return True

    def start(self, job: Job) -> None:
        """Adds a job to those that are handed over next."""
        RunFolder(self._sweep_dir / job.folder).set_state("queued")  # replaces the state of an earlier attempt
        self._batch.append(job)

    def ended(self, seconds: float) -> list[Ended]:
        """The jobs that ended according to their folders, and those that were left when the plugin returned.

        Raises:
            LauncherError: If the plugin took none of the jobs that it was given last: it would take no others.
        """
        if self._batch:
            self._launch(self._batch)
            self._batch = []
        time.sleep(seconds)
        found = []
        for thread, jobs in self._launches:
            returned = not thread.is_alive()
            if returned and jobs and all(map(self._was_not_taken, jobs)):
                self._refused += jobs
                got = self._errors[jobs[0].number]
                raise LauncherError(f"hydra/launcher={self._name} must take the jobs of the sweep, got: {got}.")
            for job in list(jobs):
                has_ended = self._state(job) in ("completed", "failed", "damaged")
                if returned or has_ended:
                    jobs.remove(job)
                    found.append(Ended(job, "" if has_ended else self._death(job)))
        self._launches = [(thread, jobs) for thread, jobs in self._launches if thread.is_alive() or jobs]
        return found

    def _state(self, job: Job) -> str:
        try:
            return str(RunFolder(self._sweep_dir / job.folder).state()["state"])
        except RunFolderError:
            return "damaged"

    def _was_not_taken(self, job: Job) -> bool:
        """Whether a job has not begun, and the plugin raised an error."""
        folder = RunFolder(self._sweep_dir / job.folder)
        return job.number in self._errors and self._state(job) == "queued" and not folder.is_in_use()

    def _death(self, job: Job) -> str:
        """Why a job that the plugin returned has no outcome; empty if it was saved, or is still running elsewhere."""
        if self._state(job) == "interrupted" or RunFolder(self._sweep_dir / job.folder).is_in_use():
            return ""
        return self._errors.get(job.number, "its process was killed, or never started")

    def stop(self, job: Job | None = None) -> list[Job]:
        """Leaves all jobs to the plugin, where they continue or wait; a single job can't be stopped."""
        if job is not None:
            return []
        left = [*self._batch, *(job for _, jobs in self._launches for job in jobs)]
        self._batch, self._launches = [], []
        if taken := [job for job in left if job not in self._refused]:
            with suppress(OutputError):  # or the driver would not learn which jobs are left
                say(f"Left to the launcher: {amount(len(taken), 'job')}. Those that are running continue.")
        return left

    def halt(self) -> None:
        """Keeps queued jobs from starting."""
        (self._sweep_dir / HALT).touch()

    def close(self) -> None:
        """Restores the plugin."""
        self._patience.close()

    def _launch(self, jobs: Sequence[Job]) -> None:
        thread = threading.Thread(target=self._launch_and_wait, args=(list(jobs),), daemon=True)
        self._launches.append((thread, list(jobs)))
        thread.start()

    def _launch_and_wait(self, jobs: Sequence[Job]) -> None:
        try:
            self._launcher.launch([job.folder for job in jobs], first=jobs[0].number)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; the folders hold the outcomes
            reason = " ".join(f"{type(error).__name__}: {error}".split()).removeprefix("FailedJobError: ").rstrip(".")
            for job in jobs:
                self._errors.setdefault(job.number, reason)


def do_remotely(manner: Manner, sweep_dir: Path, path: Path) -> int:
    """Runs a job in the process that a plugin started for it; returns its exit code.

    A signal that stopped the job is raised again for the plugin's own handler: submitit's puts the job back into the
    queue, from where it continues with its checkpoint.
    """
    if (sweep_dir / HALT).exists():
        return 0
    with stop_requests() as stop:
        code = do_job(path, manner, quiet=False)
    if stop.number is not None and callable(signal.getsignal(stop.number)):
        signal.raise_signal(stop.number)
    return code


@contextmanager
def _patient(module: str) -> Iterator[None]:
    """Makes submitit and Ray wait for all jobs; otherwise they raise when the first job dies, and leave the others.

    Other plugins are left as they are.
    """
    place: Any
    if "submitit" in module:
        place, name = importlib.import_module("submitit").Job, "results"
    elif "ray" in module:
        place, name = importlib.import_module("ray"), "get"
    else:
        yield
        return
    original = getattr(place, name)

    def wait(job: Any) -> Any:
        if type(job).__name__ == "SlurmJob":
            return _wait_for_slurm(job)
        try:
            return original(job)
        except Exception as error:  # noqa: BLE001 - a job may die of anything; its folder holds the outcome
            return [error]

    setattr(place, name, wait)
    try:
        yield
    finally:
        setattr(place, name, original)


def withdraw(sweep_dir: Path) -> None:
    """Removes the jobs of an earlier driver from Slurm's queue, since the current one submits them again.

    The jobs are recognised by the script that submitit wrote for them into the sweep's folder.
    """
    if shutil.which("squeue") is None:
        return
    command = ["squeue", "--me", "--noheader", "--states=PENDING", "--format=%F %o"]
    with suppress(subprocess.TimeoutExpired):  # if they start after all, they find their jobs locked or done
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SLURM_SECONDS)
        waiting = (line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)
        arrays = {array for array, script in waiting if Path(script).is_relative_to(sweep_dir / SUBMITIT)}
        if arrays:
            command = ["scancel", "--state=PENDING", *sorted(arrays)]
            subprocess.run(command, capture_output=True, check=False, timeout=SLURM_SECONDS)
            say("The waiting jobs were removed from Slurm's queue, and will be submitted again.")


SQUEUE_SECONDS = 2.0
"""The time between two calls of squeue."""

MAX_UNANSWERED = 900
"""How often in a row Slurm may not answer: half an hour at least."""


def _wait_for_slurm(job: Any) -> list[None]:
    """Waits until a job of submitit has a result, or is no longer in Slurm's queue.

    Submitit asks Slurm's accounting, which not every cluster has, and would wait forever for a killed job.
    """
    missed = unanswered = 0
    while not job.paths.result_pickle.exists() and missed < 2:  # the file may appear after the job's end
        time.sleep(SQUEUE_SECONDS)
        is_queued = _is_queued(job.job_id)
        missed = missed + 1 if is_queued is False else 0
        unanswered = unanswered + 1 if is_queued is None else 0
        if unanswered == 1:
            say(f"Slurm does not answer. Asking up to {MAX_UNANSWERED:,} times for job {job.job_id}.")
        if unanswered == MAX_UNANSWERED:
            raise TimeoutError(f"Slurm did not answer {MAX_UNANSWERED:,} times")
    return [None]


def _is_queued(job_id: str) -> bool | None:
    """Whether a job is in Slurm's queue; None if Slurm does not answer, as during a restart."""
    command = ["squeue", "--noheader", "--format=%i", f"--jobs={job_id}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SLURM_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode and "invalid job id" not in answer.stderr.lower():
        return None
    return bool(answer.stdout.strip())
