"""Suggests a learning rate for a recipe, by range tests in a folder of their own.

The tests train on the images as the recipe sees them, from its initial weights. All of it is made anew for each seed
and thrown away, so that it affects no run, and a seed gives the same numbers each time.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from era_cnn.config.schema import RunConfig, make_schedule
from era_cnn.config.versions import digest
from era_cnn.data.arrays import Arrays
from era_cnn.errors import ConfigError, TrainingError, problem
from era_cnn.folders.claims import claim
from era_cnn.folders.run import LR_TEST, RunFolder
from era_cnn.output import shown
from era_cnn.reports.lr_chart import lr_chart
from era_cnn.runs import provenance
from era_cnn.runs.compiler import compile_training, silent
from era_cnn.runs.initial import initial_weights
from era_cnn.runs.parts import check, make_parts, read_data, settled
from era_cnn.runs.process import device_of, set_up
from era_cnn.training.history import History
from era_cnn.training.loop import fit
from era_cnn.training.lr_range import Curve, Ended, RangeTest

FEWEST_STEPS, MOST_STEPS, MOST_SEEDS, MOST_LR = 40, 100_000, 100, 1e6

SAFETY = 10.0
"""The suggestion is the rate of the lowest smoothed loss divided by this: there, the loss still falls fast."""


@dataclass(frozen=True)
class LrTest:
    """The outcome. `suggestion` is for the highest rate of the schedule, and `override` sets it.

    If nothing can be suggested, both are None, and `problem` says why.
    """

    path: Path
    curves: dict[int, Curve]
    """By seed."""

    suggestion: float | None
    override: str | None
    problem: str

    def lines(self) -> list[str]:
        """The outcome as text, without the problem."""
        lines = []
        for seed, curve in self.curves.items():
            lowest = "" if curve.lowest_lr is None else f"; lowest smoothed loss at {curve.lowest_lr:.2g}"
            lines.append(f"Seed {seed}: {curve.ended}{lowest}")
        if self.suggestion is not None:
            lines += [f"Suggested highest learning rate: {self.suggestion:g}", f"To use it: {self.override}"]
        return [*lines, f"Folder: {shown(self.path)}"]


def find_lr(
    config: RunConfig,
    command: Sequence[str],
    *,
    start: float = 1e-5,
    end: float = 10.0,
    steps: int = 200,
    seeds: int = 1,
    say: Callable[[str], None] = silent,
) -> LrTest:
    """Makes the tests in a new folder, `outputs/<date>/<time>_find_lr_<experiment>`.

    Args:
        config: The recipe.
        command: The command that asked for it, for the record.
        start: The first learning rate.
        end: The last one.
        steps: The updates of a test.
        seeds: The number of tests, with the seed of the config and those after it.
        say: Told when the training step is compiled, and how long that took.

    Raises:
        EraCnnError: If the config or the range is wrong, the data is missing, or a file can't be written; then the
            folder is removed.
    """
    _check_range(config, start=start, end=end, steps=steps, seeds=seeds)
    check(config)
    device = device_of(config)
    config = settled(config, device)
    arrays = read_data(config)
    now = datetime.now()
    claimed = claim(Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}_find_lr_{config.name}"))
    try:
        with set_up(config.threads):
            curves = {
                seed: _curve(
                    config.model_copy(update={"seed": seed}),
                    arrays,
                    RangeTest(start=start, end=end, steps=steps),
                    say if seed == config.seed else silent,
                )
                for seed in range(config.seed, config.seed + seeds)
            }
            origin = {
                "config_sha256": digest(config),
                "data_sha256": arrays.sha256,
                **provenance.collect(config, device),
            }
        test = _outcome(claimed.path, curves, config)
        asked = {"command": list(command), "start": start, "end": end, "steps": steps}
        _write(test, config, {**asked, "provenance": origin})
    except BaseException:
        claimed.give_back()
        raise
    return test


def _check_range(config: RunConfig, *, start: float, end: float, steps: int, seeds: int) -> None:
    problems = []
    if not 0 < start < MOST_LR:
        problems.append(
            problem("--start", f"be greater than 0 and less than {MOST_LR:g}", start, "Give 1e-5, for example.")
        )
    elif not start < end <= MOST_LR:
        rule = f"be greater than --start, {start:g}, and at most {MOST_LR:g}"
        problems.append(problem("--end", rule, end, "Give 10, for example."))
    for option, got, least, most in (("--steps", steps, FEWEST_STEPS, MOST_STEPS), ("--seeds", seeds, 1, MOST_SEEDS)):
        if not least <= got <= most:
            problems.append(problem(option, f"be from {least} to {most:,}", got, "Choose another number."))
    if not hasattr(config.optimizer, "lr"):
        problems.append(problem("optimizer", "have a learning rate, lr", config.optimizer.name, "Choose another one."))
    if problems:
        raise ConfigError(problems)


def _curve(config: RunConfig, arrays: Arrays, test: RangeTest, say: Callable[[str], None]) -> Curve:
    """Makes the test with one seed; all of it is augmented, however many epochs it lasts."""
    config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"unaugmented_epochs": 0})})
    parts = make_parts(config, arrays, torch.device(config.device), initial_weights(config))
    if config.trainer.compile:
        compile_training(parts.objective, parts.train, say)
    training = fit(
        parts.state,
        test.schedule(_lr(config), _peak(config)[1]),
        parts.train,
        epochs=MOST_STEPS,  # the test ends it
        seed=config.seed,
        history=History(),
        objective=parts.objective,
        cuda_graphs=config.trainer.cuda_graphs,
        on_step=test.on_step,
    )
    try:
        for _ in training:
            pass
    except Ended as ended:
        return test.curve(str(ended))
    except TrainingError:
        return test.curve("the loss or a weight was no longer finite")
    raise AssertionError("the test ends before the epochs do")


def _lr(config: RunConfig) -> float:
    lr: float = config.optimizer.lr  # type: ignore[attr-defined]
    return lr


def _peak(config: RunConfig) -> tuple[float, float | None]:
    """The highest factor of the recipe's schedule on `optimizer.lr`, and the momentum there if the schedule sets it."""
    trainer, steps = config.trainer, config.steps_per_epoch
    schedule = make_schedule(config.scheduler, epochs=trainer.epochs, steps_per_epoch=steps, watch=trainer.watch)
    peak = max(range(trainer.epochs * steps), key=schedule.lr)
    return schedule.lr(peak), None if schedule.momentum is None else schedule.momentum(peak)


def _outcome(path: Path, curves: dict[int, Curve], config: RunConfig) -> LrTest:
    lowest = [curve.lowest_lr for curve in curves.values() if curve.lowest_lr is not None]
    if len(lowest) < len(curves):
        problems = [f"with seed {seed}, {curve.problem}" for seed, curve in curves.items() if curve.problem]
        return LrTest(path, curves, None, None, f"No learning rate can be suggested: {'; '.join(problems)}.")
    suggestion = statistics.geometric_mean(lowest) / SAFETY
    override = f"optimizer.lr={suggestion / _peak(config)[0]:.2g}"
    return LrTest(path, curves, float(f"{suggestion:.2g}"), override, "")


def _write(test: LrTest, config: RunConfig, asked: Mapping[str, Any]) -> None:
    """Writes the files of a test; none has a name that would make the folder that of a run."""
    folder = RunFolder(test.path)
    folder.write_config(config)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("seed", "step", "lr", "loss", "smoothed_loss"))
    for seed, curve in test.curves.items():
        writer.writerows((seed, point.step + 1, point.lr, point.loss, point.smoothed) for point in curve.points)
    folder.write_text("find_lr.csv", text.getvalue())
    chart = lr_chart(
        {f"seed {seed}": [(p.lr, p.loss, p.smoothed) for p in curve.points] for seed, curve in test.curves.items()},
        test.suggestion,
    )
    folder.write_bytes("find_lr.svg", chart.svg())
    folder.write_bytes("find_lr.png", chart.png())
    seeds = {
        str(seed): {"ended": curve.ended, "lowest_lr": curve.lowest_lr, "problem": curve.problem}
        for seed, curve in test.curves.items()
    }
    outcome = {"suggestion": test.suggestion, "override": test.override, "problem": test.problem, "seeds": seeds}
    folder.write_json(LR_TEST, {"schema": 1, **outcome, **asked})
