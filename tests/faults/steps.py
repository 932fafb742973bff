"""Resuming from every single step, for whatever can be configured."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from era_cnn.data.batches import Split
from era_cnn.data.digits import read_digits
from era_cnn.training.checkpoint import Checkpoint
from tests.conftest import CONF_DIR, GREY_EXPERIMENTS, config_of, option
from tests.faults.harness import Report
from tests.training.test_checkpoint import CPU, EPOCHS, NUM_IMAGES, STATEFUL, Training, assert_equal

OPTIMIZERS = ("sgd", "adam")
SCHEDULERS = ("constant", "step", "one_cycle", "cosine")
AUGMENTATIONS = ("none", "rotate", "affine")
IN_COLOUR = ("saturation", "hue", "greyscale", "auto_augment")
"""Transforms that are refused for grey images."""

SMALLEST = "model_4"
"""The network that meets each of the other optimizers, schedules and augmentations."""

LONGER = 4
"""The epochs of a stateful recipe: enough for two reductions, and for an early end."""


def every_step() -> Report:
    """Resumes a short training from each of its positions, in a network of its own, and compares bit by bit.

    For every experiment's network (those that share one: once) with the most common optimizers, schedules and
    augmentations in every combination, and with each stateful recipe, whose learning rates are compared as well. For the
    smallest network with each of the others.
    """
    torch.set_num_threads(1)
    networks = networks_of_experiments()
    report = Report(figures={"combinations": 0, "networks": sorted(networks)})
    dataset = read_digits(1437)
    split = Split.on(CPU, dataset.train_images, dataset.train_labels).first(NUM_IMAGES)
    for words, epochs in trainings(networks):
        _resume_everywhere(report, split, words, epochs)
    return report


def trainings(networks: dict[str, tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The words of each training and its number of epochs."""
    choices = (networks.values(), OPTIMIZERS, SCHEDULERS, AUGMENTATIONS)
    for network, optimizer, scheduler, augmentation in itertools.product(*choices):
        chosen = (f"optimizer={optimizer}", f"scheduler={scheduler}", f"augmentation={augmentation}")
        yield (*network, *chosen, "optimizer.lr=0.001"), EPOCHS
    for group, known in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS), ("augmentation", AUGMENTATIONS)):
        names = {path.stem for path in (CONF_DIR / group).glob("*.yaml")} - {*known, *IN_COLOUR}
        for name in sorted(names):
            yield (*networks[SMALLEST], *option(group, name), "optimizer.lr=0.001"), EPOCHS
    for network, (recipe, _) in itertools.product(networks.values(), STATEFUL.values()):
        yield (*network, "optimizer.lr=0.001", *recipe), LONGER


def networks_of_experiments() -> dict[str, tuple[str, ...]]:
    """The words that choose the network of each experiment, without the recipe that goes with it; equal ones once."""
    found: dict[str, tuple[str, ...]] = {}
    for name in GREY_EXPERIMENTS:
        model = config_of(f"experiment={name}").model
        words = ("~experiment", f"model={model.name}", f"model.dropout={model.dropout}")
        assert config_of(*words).model == model, name
        if words not in found.values():
            found[name] = words
    return found


def _resume_everywhere(report: Report, split: Split, words: tuple[str, ...], epochs: int) -> None:
    unbroken = Training(split, *words, epochs=epochs)
    unbroken.run()
    assert len(unbroken.saved) == len(unbroken.history) * 4
    report.figures["combinations"] += 1
    for number, content in enumerate(unbroken.saved):
        resumed = Training(split, *words, epochs=epochs)
        resumed.run(Checkpoint.from_bytes(content, CPU))
        report.tried += 1
        try:
            assert_equal(unbroken, resumed)
            assert resumed.rates == unbroken.rates[len(unbroken.rates) - len(resumed.rates) :]
        except AssertionError:
            report.failures.append(f"{' '.join(words)}: other bits when resumed from position {number}")
