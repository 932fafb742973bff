"""The story of one run, top to bottom."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from era_cnn.config import RunConfig
from era_cnn.errors import RunFolderError
from era_cnn.models.summary import summarise
from era_cnn.runs import provenance
from era_cnn.runs.console import Console, describe_result, describe_start
from era_cnn.runs.folder import RunFolder
from era_cnn.runs.ingredients import Ingredients, make_deterministic, make_ingredients, pick_device, read_dataset
from era_cnn.runs.result import Result, make_result
from era_cnn.runs.saver import Saver
from era_cnn.runs.stopping import Interrupted, Interruptible, StopRequest
from era_cnn.training.checkpoint import Checkpoint, restore
from era_cnn.training.loop import EpochRecord, Position, Step, fit


def run(
    config: RunConfig, folder: RunFolder, console: Console, stop: StopRequest, command: Sequence[str] = ()
) -> Result:
    """Trains the network of `config` and leaves in `folder` what tells, proves and repeats it.

    If the folder holds a checkpoint, it goes on from there, and ends with the very same result.

    Args:
        config: Valid; its device may still be `auto`.
        folder: Claimed for this run.
        console: Shows the run as it goes on.
        stop: Asks the run to end after the present step, saved.
        command: The words that started it, for the record.

    Raises:
        ConfigError: If the device is not there, or the network can't be built.
        DataError: If the data can't be had.
        TrainingError: If the loss is no longer finite.
        RunFolderError: If the folder's checkpoints are all damaged, or belong to other data.
        Interrupted: If it was asked to stop.
    """
    device = pick_device(config.device)
    config = config.model_copy(update={"device": device.type})
    make_deterministic(config.threads)

    dataset = read_dataset(config)
    parts = make_ingredients(config, dataset, device)
    checkpoint = load_checkpoint(folder, config, dataset.sha256, console)

    folder.write_config(config)
    folder.write_text("summary.txt", summarise(parts.model).table())
    origin = provenance.collect(config, device=device, data_sha256=dataset.sha256, command=list(command))
    folder.write_json("provenance.json", _with_earlier(origin, folder) if checkpoint else origin)
    console.say(describe_start(config, parts))

    records = _train(parts, config, checkpoint, folder, console, stop)

    num_train_images = len(parts.train.split)
    result = make_result(config, records, parts.model, num_train_images=num_train_images, data_sha256=dataset.sha256)
    console.say(describe_result(result, config))
    folder.write_json("result.json", result.to_json())
    return result


def _train(
    parts: Ingredients,
    config: RunConfig,
    checkpoint: Checkpoint | None,
    folder: RunFolder,
    console: Console,
    stop: StopRequest,
) -> list[EpochRecord]:
    """Trains to the end, from the checkpoint on if there is one; saves, writes and says what happens on the way."""
    records: list[EpochRecord] = []
    start = Position()
    if checkpoint is not None:
        restore(checkpoint, parts.model, parts.optimizer)
        records, start = checkpoint.records, checkpoint.position
        console.say(f"Going on in epoch {start.epoch} after {start.steps_done} of {len(parts.train)} steps")
    folder.rewrite_metrics(records, with_val=parts.val is not None)
    every_seconds = config.trainer.checkpoint_every_seconds
    saver = Saver(folder.checkpoints, parts.model, parts.optimizer, records, every_seconds=every_seconds)

    def on_step(step: Step) -> None:
        console.on_step(step)
        saver.after_step(step)
        stop.check()

    epochs = fit(
        parts.model,
        parts.optimizer,
        parts.schedule,
        parts.train,
        epochs=config.trainer.epochs_to_run,
        seed=config.seed,
        label_smoothing=config.trainer.label_smoothing,
        val=Interruptible(parts.val, stop) if parts.val else None,
        test=Interruptible(parts.test, stop),
        start=start,
        on_step=on_step,
    )
    try:
        stop.check()
        for record in epochs:
            records.append(record)
            saver.after_epoch(record)
            folder.append_metrics(record, with_val=parts.val is not None)
            console.on_epoch(record)
    except Interrupted:
        saver.save()
        raise
    return records


def _with_earlier(origin: dict[str, object], folder: RunFolder) -> dict[str, object]:
    """The record of how a run began stays, with how it went on beside it."""
    before = folder.read_json("provenance.json")
    return {**before, "resumed": [*before.get("resumed", []), origin]}


def load_checkpoint(folder: RunFolder, config: RunConfig, data_sha256: str, console: Console) -> Checkpoint | None:
    """The newest whole checkpoint of the folder, or None if there never was one.

    Raises:
        RunFolderError: If none of them is whole, or the data are no longer those that the run began with.
    """
    content = folder.checkpoints.newest(console.complain)
    if content is None:
        return None
    before = folder.read_json("provenance.json")["data_sha256"]
    if before != data_sha256:
        raise RunFolderError(
            f"The data must be what the run began with, SHA-256 {before}, got {data_sha256}. Point data.root to it."
        )
    return Checkpoint.from_bytes(content, torch.device(config.device))
