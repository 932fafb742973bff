"""The story of one run, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from era_cnn.config.schema import RunConfig
from era_cnn.errors import OutputError, RunFolderError
from era_cnn.folders.checkpoints import Found
from era_cnn.folders.claims import shown
from era_cnn.folders.run import RunFolder
from era_cnn.models.summary import summarise
from era_cnn.runs import provenance
from era_cnn.runs.listeners.console import Console, describe_result, describe_start
from era_cnn.runs.listeners.saver import Saver
from era_cnn.runs.parts import (
    Ingredients,
    make_ingredients,
    read_dataset,
    settled,
)
from era_cnn.runs.process import pick_device, set_up
from era_cnn.runs.result import Result, make_result
from era_cnn.runs.stopping import Interrupted, Interruptible, StopRequest
from era_cnn.training.checkpoint import Checkpoint, restore
from era_cnn.training.loop import EpochMetrics, Position, Step, fit


def run(
    config: RunConfig,
    folder: RunFolder,
    console: Console,
    stop: StopRequest,
    command: Sequence[str] = (),
    witness: Callable[[EpochMetrics], None] = lambda record: None,
) -> Result:
    """Trains the network of `config` and leaves in `folder` what tells, proves and repeats it.

    If the folder holds a checkpoint, it goes on from there, and ends with the very same result.

    Args:
        config: Valid; its device may still be `auto`.
        folder: Claimed for this run.
        console: Shows the run as it goes on.
        stop: Asks the run to end after the present step, saved.
        command: The words that started it, for the record.
        witness: Sees the record of each epoch, and may raise.

    Raises:
        ConfigError: If the device is not there, or the network can't be built.
        DataError: If the data can't be had.
        TrainingError: If the loss or a weight is no longer finite.
        RunFolderError: If the folder's checkpoints are all damaged, or the run began with another config or other data.
        StorageError: If a file can't be written.
        OutputError: If standard output can't be written to.
        Interrupted: If it was asked to stop.
    """
    device = pick_device(config.device)
    config = settled(config, device)
    set_up(config.threads)
    found = folder.saved()
    if not folder.has_record:
        folder.begin(config)  # from here on it can be resumed
    with stop.at_once():
        dataset = read_dataset(config)
    origin = {"config_sha256": config.digest(), "data_sha256": dataset.sha256}
    if folder.has_record:  # then all is verified before anything is touched
        check_origin(folder.read_json("provenance.json"), origin)
        folder.begin(config)
    checkpoint = take(found, folder, origin, device, console) if found else None
    parts = make_ingredients(config, dataset, device)

    folder.write_text("summary.txt", summarise(parts.model).table())
    console.say(describe_start(config, parts))
    provenance.record(folder, {"command": list(command), **origin, **provenance.collect(device)}, console.say)

    records = _train(parts, config, checkpoint, origin, folder, console, stop, witness)

    num_train_images = len(parts.train.split)
    result = make_result(config, records, parts.model, num_train_images=num_train_images, data_sha256=dataset.sha256)
    console.say(describe_result(result, config))
    console.say(f"Run folder: {shown(folder.path)}")
    folder.complete(result.to_json())
    return result


def _train(
    parts: Ingredients,
    config: RunConfig,
    checkpoint: Checkpoint | None,
    origin: dict[str, str],
    folder: RunFolder,
    console: Console,
    stop: StopRequest,
    witness: Callable[[EpochMetrics], None],
) -> list[EpochMetrics]:
    """Trains to the end, from the checkpoint on if there is one; saves, writes and says what happens on the way."""
    records: list[EpochMetrics] = []
    start = Position()
    if checkpoint is not None:
        restore(checkpoint, parts.model, parts.optimizer)
        records, start = checkpoint.records, checkpoint.position
        console.say(f"Going on in epoch {start.epoch} after {start.steps_done} of {len(parts.train)} steps")
    saver = Saver(
        folder.checkpoints,
        parts.model,
        parts.optimizer,
        records,
        origin=origin,
        every_seconds=config.trainer.checkpoint_every_seconds,
    )

    def write_records() -> None:
        folder.write_metrics(records, with_val=parts.val is not None)
        folder.write_fingerprints(records)

    def on_step(step: Step) -> None:
        saver.after_step(step)
        console.on_step(step)
        stop.check()

    epochs = fit(
        parts.model,
        parts.optimizer,
        parts.schedule,
        parts.train,
        epochs=config.trainer.epochs_to_run,
        seed=config.seed,
        label_smoothing=config.trainer.label_smoothing,
        precision=config.precision,
        val=Interruptible(parts.val, stop) if parts.val else None,
        test=Interruptible(parts.test, stop),
        eval_every_epochs=config.trainer.eval_every_epochs,
        start=start,
        on_step=on_step,
    )
    try:
        write_records()  # an interrupted run may have come further than its last checkpoint
        stop.check()
        for record in epochs:
            records.append(record)
            saver.after_epoch(record)
            write_records()
            console.on_epoch(record)
            witness(record)
            stop.check()
    except (Interrupted, OutputError):
        saver.save()
        raise
    return records


def take(found: Found, folder: RunFolder, origin: dict[str, str], device: torch.device, console: Console) -> Checkpoint:
    """The checkpoint that was found; damaged ones are named and set aside.

    Raises:
        RunFolderError: If another version wrote it, or it is that of another config or of other data.
        StorageError: If the damaged ones can't be set aside, or the log can't be written.
    """
    checkpoint = Checkpoint.from_bytes(found.content, device)
    check_origin(checkpoint.origin, origin)
    for path, complaint in found.damaged.items():
        console.warn(f"{complaint} It is set aside as {path.name}.damaged.")
    folder.checkpoints.set_aside(found.damaged)
    return checkpoint


def check_origin(before: dict[str, Any], now: dict[str, str]) -> None:
    """Raises a `RunFolderError` if a run began with another config or other data."""
    for name, what, advice in (
        ("config_sha256", "The config", "Undo the change of config.yaml."),
        ("data_sha256", "The data", "Point to it with --data-root."),
    ):
        if before.get(name) != now[name]:
            raise RunFolderError(
                f"{what} must be what the run began with, SHA-256 {before.get(name)}, got {now[name]}. {advice}"
            )
