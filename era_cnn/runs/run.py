"""The story of one run, top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from era_cnn.config.notices import notices
from era_cnn.config.schema import RunConfig
from era_cnn.config.versions import digest
from era_cnn.errors import OutputError, RunFolderError, amount
from era_cnn.folders.checkpoints import Found
from era_cnn.folders.provenance import check_numerics, write_origin
from era_cnn.folders.result import Result
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig
from era_cnn.models.summary import summarise
from era_cnn.output import shown
from era_cnn.runs import provenance
from era_cnn.runs.compiler import compile_training
from era_cnn.runs.initial import fit_of, initial_weights
from era_cnn.runs.listeners.console import Console, announce_average, describe_result, describe_start
from era_cnn.runs.listeners.logging import loggers_of
from era_cnn.runs.listeners.pace import Pace
from era_cnn.runs.listeners.profiler import Profiler
from era_cnn.runs.listeners.saver import Saver
from era_cnn.runs.listeners.stop import StopWhenAsked
from era_cnn.runs.listeners.writer import Writer
from era_cnn.runs.notes import NOTES_ON_CHECKPOINTS, notes_on_fields
from era_cnn.runs.parts import Parts, ends_after, make_parts, read_data, settled
from era_cnn.runs.predictions import predict_test_set
from era_cnn.runs.process import device_of, set_up
from era_cnn.runs.required import check_train_accuracy
from era_cnn.runs.result import make_result
from era_cnn.runs.samples import collect_samples
from era_cnn.runs.stopping import Interrupted, Interruptible, StopRequest
from era_cnn.training.checkpoint import Checkpoint
from era_cnn.training.history import EpochMetrics, History
from era_cnn.training.listeners import Listener, Listeners, Training
from era_cnn.training.loop import Position, fit


def run(
    stored: StoredConfig,
    folder: RunFolder,
    console: Console,
    stop: StopRequest,
    command: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Result:
    """Trains the network of a config, and writes to `folder` all that describes the run and reproduces it.

    If the folder holds a checkpoint, the run continues from there, and ends with exactly the same result.

    Args:
        stored: The config of the folder; its device may still be `auto`.
        folder: The locked folder of the run.
        console: Shows the progress of the run.
        stop: Requests that the run saves and stops after the current step.
        command: The command that started it, for provenance.json.
        listeners: Further listeners; they are called after those that show, save and write the run.

    Raises:
        ConfigError: If the device is not available, or the network can't be built.
        DataError: If the data is missing or damaged.
        TrainingError: If the loss or a weight is no longer finite, or the config requires a better network.
        RunFolderError: If the folder's checkpoints are all damaged, the run began with another config or other data, or
            this version has other numerics.
        StorageError: If a file can't be written.
        OutputError: If standard output can't be written to.
        Interrupted: If it was asked to stop.
    """
    # Settle the device, the config and the data. From `begin` on, the run can be resumed.
    device = device_of(stored.config)
    config = settled(stored.config, device)
    found = folder.saved()
    if not folder.has_begun_before:
        folder.begin(config)
    with stop.at_once():
        arrays = read_data(config)
    config_sha256 = stored.sha256 if folder.has_begun_before else digest(config)
    origin = {"config_sha256": config_sha256, "data_sha256": arrays.sha256}

    # A resumed run must be the same run: everything is verified before anything is changed.
    if folder.has_begun_before:
        check_origin(folder.read_json("provenance.json"), origin)
        check_numerics(folder)
        folder.begin(config)
    checkpoint = take(found, folder, origin, device, console) if found else None

    with set_up(config.threads):
        initial = initial_weights(config) if checkpoint is None else None
        parts = make_parts(config, arrays, device, initial)
        summary = summarise(parts.state.network, config.info.shape)
        notes = [*notes_on_fields(summary), *NOTES_ON_CHECKPOINTS]
        folder.write_text("summary.txt", "\n".join([summary.table(), *notes, ""]))
        folder.write_json("summary.json", summary.to_json(config.info))
        console.say(describe_start(config, parts))
        for notice in () if folder.has_begun_before else notices(config):  # once is enough
            console.warn(notice)
        if config.trainer.ema_decay is not None:
            announce_average(console, config.trainer.ema_decay, config.trainer.epochs_to_run * len(parts.train))
        collected = provenance.collect(config, device)
        if config.trainer.compile:
            with stop.at_once():
                compile_training(parts.objective, parts.train, console.say)
        if initial is not None:
            console.say(f"Weights of {shown(Path(str(config.init_from)))}: {fit_of(parts.state.network, initial)}")
        if missing := [each.rstrip(".") for each in collected["not_collected"]]:
            console.warn(f"Not collected for provenance.json: {'; '.join(missing)}.")
        write_origin(folder, {"command": list(command), **origin, **collected}, console.say)

        # The listeners are called in this order.
        history = checkpoint.history if checkpoint else History()
        saver = Saver(folder.checkpoints, origin=origin, every_seconds=config.trainer.checkpoint_every_seconds)
        writer = Writer(folder)
        ours: tuple[Listener, ...] = (saver, writer, console, Pace(console.warn))
        if config.trainer.profile:
            ours += (Profiler(folder, console.say, console.warn),)
        loggers = loggers_of(config, folder, console.warn)
        everybody = Listeners((*ours, *listeners, *loggers, StopWhenAsked(stop)), warn=console.warn)
        try:
            everybody.on_start(Training(config, parts.state, history, folder.path))
            start = Position()
            if checkpoint is not None:
                epochs, num_steps = config.trainer.epochs_to_run, len(parts.train)
                checkpoint.check_position(epochs=epochs, num_steps=num_steps, ends_after=ends_after(config))
                parts.state.load_state_dict(checkpoint.state)
                start = checkpoint.position
                console.say(
                    f"Resuming in epoch {start.epoch} after {start.steps_done} of {amount(len(parts.train), 'step')}"
                )
            writer.write()  # the files may hold epochs after the last checkpoint, which are trained again
            stop.check()

            # Train.
            for metrics in epochs_of(config, parts, history, start, stop, everybody):
                everybody.on_epoch(metrics)

            # Conclude: write what reports need of the final weights, then the result, which is the last file.
            predictions = predict_test_set(config, parts, history, folder.checkpoints, stop, console.warn)
            folder.write_predictions(predictions)
            folder.write_samples(collect_samples(parts, predictions))
            if config.trainer.required_train_accuracy is not None:
                console.say(check_train_accuracy(config, parts))
            result = make_result(config, history, parts, origin=origin)
            everybody.on_end(result.to_json())
        except (Interrupted, OutputError):
            saver.save()
            raise
        except Exception as error:
            everybody.on_failure(error)
            raise
        finally:
            everybody.close()
    console.say(*describe_result(result, config).split("\n"))
    console.say(f"Run folder: {shown(folder.path)}")
    folder.complete(result.to_json())
    return result


def epochs_of(
    config: RunConfig, parts: Parts, history: History, start: Position, stop: StopRequest, everybody: Listeners
) -> Iterator[EpochMetrics]:
    """The epochs of a run; each is trained when the iterator reaches it."""
    trainer = config.trainer
    return fit(
        parts.state,
        parts.schedule,
        parts.train,
        epochs=trainer.epochs_to_run,
        seed=config.seed,
        history=history,
        objective=parts.objective,
        cuda_graphs=trainer.cuda_graphs,
        val=Interruptible(parts.val, stop) if parts.val else None,
        test=Interruptible(parts.test, stop),
        average=parts.average.network if parts.average else None,
        eval_every_epochs=trainer.eval_every_epochs,
        watch=trainer.watch,
        start=start,
        ends_after=ends_after(config),
        on_step=everybody.on_step,
    )


def take(found: Found, folder: RunFolder, origin: dict[str, str], device: torch.device, console: Console) -> Checkpoint:
    """The checkpoint that was found; damaged ones are reported and set aside.

    Raises:
        RunFolderError: If a newer version wrote it, or it belongs to another config or other data.
        StorageError: If the damaged ones can't be set aside, or the log can't be written.
    """
    checkpoint = Checkpoint.from_bytes(found.content, device)
    check_origin(checkpoint.origin, origin)
    for path, complaint in found.damaged.items():
        console.warn(f"{complaint} It was renamed to {path.name}.damaged.")
    folder.checkpoints.set_aside(found.damaged)
    return checkpoint


def check_origin(before: dict[str, Any], now: dict[str, str]) -> None:
    """Raises a `RunFolderError` if a run began with another config or other data."""
    for name, what, advice in (
        ("config_sha256", "The config", "Undo the change of config.yaml."),
        ("data_sha256", "The data", "Give its folder with --data-root."),
    ):
        if before.get(name) != now[name]:
            raise RunFolderError(
                f"{what} must be what the run began with, SHA-256 {before.get(name)}, got {now[name]}. {advice}"
            )
