"""Resuming from every single step, for whatever can be configured."""

from __future__ import annotations

import itertools
from typing import Any

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


def every_step(limit: int | None = None) -> Report:
    """Resumes a short training from each of its positions, in a network of its own, and compares bit by bit.

    For every experiment's network (those that share one: once) with the most common optimizers, schedules and
    augmentations in every combination, and with each stateful recipe, whose learning rates are compared as well. For the
    smallest network with each of the others.
    """
    torch.set_num_threads(1)
    report = Report(figures={"combinations": 0, "networks": []})
    dataset = read_digits(1437)
    split = Split.on(CPU, dataset.train_images, dataset.train_labels).first(NUM_IMAGES)
    networks: dict[str, str] = {}
    for name in GREY_EXPERIMENTS:
        networks.setdefault(repr(_network(name)), name)
    report.figures["networks"] = sorted(networks.values())
    combinations = list(itertools.product(sorted(networks.values()), OPTIMIZERS, SCHEDULERS, AUGMENTATIONS))
    for name, optimizer, scheduler, augmentation in combinations[:limit]:
        words = (
            f"experiment={name}", f"optimizer={optimizer}", f"scheduler={scheduler}", f"augmentation={augmentation}",
            "optimizer.lr=0.001",
        )  # fmt: skip
        _resume_everywhere(report, split, words, EPOCHS)
    for group, known in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS), ("augmentation", AUGMENTATIONS)):
        for name in sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml") if path.stem not in known)[:limit]:
            if name not in IN_COLOUR:
                words = (f"experiment={SMALLEST}", *option(group, name), "optimizer.lr=0.001")
                _resume_everywhere(report, split, words, EPOCHS)
    recipes = list(itertools.product(sorted(networks.values()), STATEFUL.values()))
    for name, (recipe, _) in recipes[:limit]:
        _resume_everywhere(report, split, (f"experiment={name}", "optimizer.lr=0.001", *recipe), LONGER)
    return report


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


def _network(experiment: str) -> dict[str, Any]:
    values = config_of(f"experiment={experiment}").model.model_dump()
    return {key: value for key, value in values.items() if key != "name"}
