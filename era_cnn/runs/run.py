"""The story of one run, top to bottom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from era_cnn.config import DigitsData, RunConfig
from era_cnn.data.augment import make_augmentation
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches, split_off_val
from era_cnn.data.sources import Dataset, read_digits, read_idx_data
from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.models.build import build_from_config, check_network, count_params
from era_cnn.models.summary import summarise
from era_cnn.runs import provenance
from era_cnn.runs.console import Console, describe_result, describe_start
from era_cnn.runs.folder import RunFolder
from era_cnn.runs.result import Result, make_result
from era_cnn.runs.saver import Saver
from era_cnn.runs.stopping import Interrupted, Interruptible, StopRequest
from era_cnn.training.checkpoint import Checkpoint, restore
from era_cnn.training.loop import EpochRecord, Position, Step, fit
from era_cnn.training.optim import make_optimizer, make_schedule


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
    train, val, test = make_splits(dataset, config, device)
    model = build_from_config(config).to(device)
    batches = make_training_batches(train, config)
    trainer = config.trainer
    optimizer = make_optimizer(config.optimizer.name, model.parameters(), **config.optimizer.options())
    schedule = make_schedule(
        config.scheduler.name,
        epochs=trainer.epochs,
        steps_per_epoch=len(batches),
        **config.scheduler.options(),
    )

    checkpoint = load_checkpoint(folder, config, dataset.sha256, console)
    folder.write_config(config)
    folder.write_text("summary.txt", summarise(model).table())
    origin = provenance.collect(config, device=device, data_sha256=dataset.sha256, command=list(command))
    if checkpoint is not None:  # the record of how it began stays, with how it went on beside it
        before = folder.read_json("provenance.json")
        origin = {**before, "resumed": [*before.get("resumed", []), origin]}
    folder.write_json("provenance.json", origin)
    sizes = {"training": len(train), "validation": len(val) if val else 0, "test": len(test)}
    console.say(describe_start(config, count_params(model), sizes))

    records: list[EpochRecord] = []
    start = Position()
    if checkpoint is not None:
        restore(checkpoint, model, optimizer)
        records, start = checkpoint.records, checkpoint.position
        console.say(f"Going on in epoch {start.epoch} after {start.steps_done} of {len(batches)} steps")
    folder.rewrite_metrics(records, with_val=val is not None)
    saver = Saver(folder.checkpoints, model, optimizer, records, every_seconds=trainer.checkpoint_every_seconds)

    def on_step(step: Step) -> None:
        console.on_step(step)
        saver.after_step(step)
        stop.check()

    epochs = fit(
        model,
        optimizer,
        schedule,
        batches,
        epochs=trainer.epochs_to_run,
        seed=config.seed,
        label_smoothing=trainer.label_smoothing,
        val=Interruptible(make_evaluation_batches(val, config), stop) if val else None,
        test=Interruptible(make_evaluation_batches(test, config), stop),
        start=start,
        on_step=on_step,
    )
    try:
        stop.check()
        for record in epochs:
            records.append(record)
            saver.after_epoch(record)
            folder.append_metrics(record, with_val=val is not None)
            console.on_epoch(record)
    except Interrupted:
        saver.save()
        raise

    result = make_result(config, records, model, num_train_images=len(train), data_sha256=dataset.sha256)
    console.say(describe_result(result, config))
    folder.write_json("result.json", result.to_json())
    return result


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


def pick_device(name: str) -> torch.device:
    """The device called `name`; for `auto`, the first of cuda, mps and cpu that is there.

    Raises:
        ConfigError: If it is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name != "auto" and name not in available:
        rule = f"be there: this machine has {', '.join(available)}"
        raise ConfigError([problem("device", rule, name, "Use device=auto for the fastest one.")])
    return torch.device(available[0] if name == "auto" else name)


def make_deterministic(threads: int) -> None:
    """Sets all of PyTorch's switches that the bits of a result depend on."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may differ from call to call
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Filling fresh memory shows reads of it, at a price in each step; the tests of equal bits show them too.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def read_dataset(config: RunConfig) -> Dataset:
    """The data set of a run, verified."""
    if isinstance(config.data, DigitsData):
        return read_digits(config.data.train_size)
    return read_idx_data(config.data.name, Path(config.data.root))


def make_splits(dataset: Dataset, config: RunConfig, device: torch.device) -> tuple[Split, Split | None, Split]:
    """Training, validation and test images on the device, within the trainer's limits."""
    train = Split.on(device, dataset.train_images, dataset.train_labels)
    test = Split.on(device, dataset.test_images, dataset.test_labels).first(config.trainer.limit_test_images)
    val = None
    if config.data.val_size:
        train, val = split_off_val(train, config.data.val_size, seed=config.seed)
    return train.first(config.trainer.limit_train_images), val, test


def make_training_batches(train: Split, config: RunConfig) -> TrainingBatches:
    """The batches that a run trains on."""
    return TrainingBatches(
        train,
        batch_size=config.trainer.batch_size,
        augment=make_augmentation(config.augmentation.name, **config.augmentation.options()),
        normalise=Normalise(config.data.mean, config.data.std),
        seed=config.seed,
    )


def make_evaluation_batches(split: Split, config: RunConfig) -> EvaluationBatches:
    """The batches that a run is evaluated on."""
    normalise = Normalise(config.data.mean, config.data.std)
    return EvaluationBatches(split, batch_size=config.trainer.eval_batch_size, normalise=normalise)


def check(config: RunConfig) -> None:
    """Raises what `run` would before it reads any data."""
    pick_device(config.device)
    check_network(config)
