"""Trains the first epoch of a record again, from its command alone, and compares it with what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from era_cnn.config.schema import Loggers, RunConfig
from era_cnn.errors import ReplayError
from era_cnn.folders.record import Part, Record, RecordedRun, read_record
from era_cnn.folders.run import RunFolder
from era_cnn.output import complain, say, shown
from era_cnn.reports.collecting import Compose, fingerprint_sha256, why_superseded
from era_cnn.reports.recorded import first_epoch_band, percents
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.process import is_available, pick_device
from era_cnn.runs.provenance import collect
from era_cnn.runs.start import FROM_ELSEWHERE, new_folder
from era_cnn.runs.stopping import Interrupted

NO_BAND = "nothing to compare with: the record has too few seeds to state a band"


def repeat(path: Path, compose: Compose, command: Sequence[str]) -> int:
    """Trains the first epoch of a seed as part of the whole run: the first one that this kind of machine has trained.

    Then all weights, the optimizer and the order of the images must be equal; a portable run demands that on every
    processor. Without such a seed it is the first one of a device that is here, and the training accuracy must lie in
    the band that the record states. Without such a device, the fastest one that is here takes its place.

    Args:
        path: The folder of the record; it is only read.
        compose: Composes the config of the record.
        command: The command that was typed, for provenance.json.

    Returns:
        0, or the exit code of a signal that stopped the training.

    Raises:
        ConfigError: If no device here can train what the record wants.
        DataError: If the data is missing or damaged.
        ReplayError: If the epoch differs.
        RunFolderError: If the record is damaged, or files of one's own that its runs used are not given.
        TrainingError: If the loss is no longer finite.
    """
    record = read_record(path)
    if why := why_superseded(record, compose):
        say(f"{shown(path)}: superseded, so nothing to repeat: {why}.")
        return 0
    config = compose(record)
    run = _most_alike(record, config)
    device = run.device
    if not is_available(device):
        if first_epoch_band(record) is None:
            say(f"{shown(path)}: this machine has no {device}, and elsewhere {NO_BAND}.")
            return 0
        device = pick_device("auto").type
        say(f"{shown(path)}: this machine has no {run.device}, so the epoch is trained on {device}.")
    config = _first_epoch(run, config, device)
    now = datetime.now()
    wanted = Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{config.name}_evidence"
    try:
        with new_folder(wanted, advice=FROM_ELSEWHERE) as attempt:
            folder = attempt.folder
            folder.write_config(config.anchored())
            carry_out(folder, command, quiet=True, raises=True)
    except KeyboardInterrupt as stopped:
        if isinstance(stopped.__cause__, Interrupted):
            complain("Interrupted." + (f" Run folder: {shown(folder.path)}" if folder.path.exists() else ""))
            return stopped.__cause__.exit_code
        raise
    say(f"{shown(path)}: {_compared(record, run, folder)} Run folder: {shown(folder.path)}")
    return 0


def _most_alike(record: Record, config: RunConfig) -> RecordedRun:
    """The first run of this kind of machine; else of a device that is here; else of all."""
    here = [run for run in record.runs if is_available(run.device)]
    kinds = {device: _kind_here(record, config, device) for device in {run.device for run in here}}
    alike = [run for run in here if run.ran_only_on(kinds[run.device], portable=record.portable)]
    return next(iter((*alike, *here, *record.runs)))


def _kind_here(record: Record, config: RunConfig, device: str) -> tuple[object, ...] | None:
    """The kind of this machine, as of those that a record names; None if something of it can't be told."""
    try:
        return Part.of(collect(config, torch.device(device))).kind(portable=record.portable)
    except ValueError:
        return None


def _first_epoch(run: RecordedRun, config: RunConfig, device: str) -> RunConfig:
    """The config of a run, stopped after one epoch; its schedule is that of the whole run."""
    graphs = config.trainer.cuda_graphs and device == "cuda"  # they change no bits
    trainer = config.trainer.model_copy(update={"limit_epochs": 1, "cuda_graphs": graphs})
    alone = {"logger": Loggers(), "report": False, "trainer": trainer}
    return config.model_copy(update={"seed": run.seed, "device": device, **alone})


def _compared(record: Record, run: RecordedRun, folder: RunFolder) -> str:
    """What the comparison says.

    Raises:
        ReplayError: If the epoch differs.
    """
    origin = folder.read_json("provenance.json")
    if origin["data_sha256"] != record.data_sha256:
        rule = "be trained on the recorded data"
        advice = f"Fetch them again: era-cnn data {record.parsed.data.name}."
        raise ReplayError(f"The first epoch must {rule}, got other images. {advice}")
    is_equal = fingerprint_sha256(folder.read_fingerprints()[1]) == run.first_epoch_sha256
    if is_equal:
        return f"seed {run.seed} is equal, bit for bit, after its first epoch."
    here = Part.of(origin).kind(portable=record.portable)
    if run.ran_only_on(here, portable=record.portable):
        raise ReplayError(
            f"The first epoch of seed {run.seed} must be equal to that of {shown(folder.path)}, since this is the same "
            "kind of machine, got other weights. Find what changed with git bisect."
        )
    return _within_band(record, float(folder.read_metrics()[0]["train_accuracy"]))


def _within_band(record: Record, accuracy: float) -> str:
    elsewhere = "another kind of machine or other packages, so not the same bits"
    if (band := first_epoch_band(record)) is None:
        return f"{elsewhere}; and {NO_BAND}."
    text = f"{100 * accuracy:.2f}%, and the record states {percents(band)}"
    if not band[0] <= accuracy <= band[1]:
        rule = "lie in the band of its record"
        raise ReplayError(f"The training accuracy of the first epoch must {rule}, got {text}. Compare the packages.")
    return f"{elsewhere}; its training accuracy after the first epoch lies in the band: {text}."
