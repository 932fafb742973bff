"""What the campaigns are for, switched off: each of these must make its campaign fail."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from era_cnn import output, terminal
from era_cnn.errors import StorageError
from era_cnn.folders import checkpoints, claims, storage, sweep
from era_cnn.folders import run as folder
from era_cnn.folders.ledger import Job
from era_cnn.folders.sweep import SweepFolder
from era_cnn.runs import run
from era_cnn.sweeps import commands
from era_cnn.sweeps.request import Request
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.history import History, Scores
from era_cnn.training.state import TrainingState


def _changed(change: Callable[[Checkpoint], Checkpoint]) -> None:
    take = run.take

    def take_changed(*arguments: Any) -> Checkpoint:
        return change(take(*arguments))

    run.take = take_changed


def momentum() -> None:
    """The optimizer's state is not restored."""

    def load_state_dict(self: TrainingState, values: Mapping[str, Any]) -> None:
        self.network.load_state_dict(values["network"])

    TrainingState.load_state_dict = load_state_dict


def step_counter() -> None:
    """The step within the epoch is one too low, so that a batch is seen twice."""

    def one_back(checkpoint: Checkpoint) -> Checkpoint:
        position = checkpoint.position
        return replace(checkpoint, position=replace(position, steps_done=max(0, position.steps_done - 1)))

    _changed(one_back)


def best_accuracy() -> None:
    """The accuracies of the epochs before are forgotten."""

    def forgetful(checkpoint: Checkpoint) -> Checkpoint:
        nothing = Scores(loss=0.0, accuracy=0.0, num_correct=0, num_images=1)
        return replace(checkpoint, history=History(replace(each, test=nothing) for each in checkpoint.history))

    _changed(forgetful)


def fsync() -> None:
    """Nothing is synchronised with the disk."""
    os.fsync = lambda descriptor: None


def digest_check() -> None:
    """Every checkpoint that can be read counts as whole."""

    def read(path: Path) -> tuple[bytes, str]:
        return path.read_bytes(), ""

    checkpoints._read_whole = read


def swallowed_errors() -> None:
    """A file that can't be written is left out without a word."""

    def write(path: Path, content: bytes) -> None:
        with contextlib.suppress(StorageError):
            storage.prepare(path, content)
            storage.commit(path)

    folder.write_atomically = checkpoints.write_atomically = write


def finished_jobs() -> None:
    """A sweep that goes on begins each of its jobs anew."""
    make_missing = commands._make_missing

    def make_all(sweep: SweepFolder, jobs: Sequence[Job], recorded: Request) -> None:
        for job in jobs:
            shutil.rmtree(sweep.path / job.folder)
        make_missing(sweep, jobs, recorded)

    commands._make_missing = make_all


def followed_links() -> None:
    """Links are followed, the kinds of files are not looked at, and files are read whole."""
    for place in (folder, claims, sweep):
        place.check_entries = lambda *arguments, **options: None  # type: ignore[attr-defined]
    folder.check_way = lambda *arguments: None
    folder.read_plain = checkpoints.read_plain = lambda path, most_bytes=0: Path(path).read_bytes()
    storage._new_file = lambda path: path.open("wb")


def missing_characters() -> None:
    """What the encoding of a stream does not have is not replaced."""
    output._encodable = lambda text, stream: text
    terminal.accept_all_characters = lambda: None


def closed_streams() -> None:
    """A standard stream that the command was started without stays closed."""
    terminal._open_streams = lambda: None


SABOTAGES = {
    each.__name__: each
    for each in (
        momentum,
        step_counter,
        best_accuracy,
        fsync,
        digest_check,
        swallowed_errors,
        finished_jobs,
        followed_links,
        missing_characters,
        closed_streams,
    )
}
SABOTAGES["none"] = lambda: None
