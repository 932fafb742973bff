"""Finds settings that are valid but never act in a training of this length: each gets one notice.

What is stated as a point or a phase of the training (a warm-up, a milestone, a cycle) must lie within it, and is
refused otherwise: part of the schedule would be cut off. A period or a patience fits any training, which may be short
on purpose.
"""

from __future__ import annotations

from era_cnn.config.recipe import described_values
from era_cnn.config.schema import RunConfig, make_schedule
from era_cnn.errors import amount, problem

MAX_STEPS = 20_000
"""The most steps of a training at which its learning rate is looked at."""


def notices(config: RunConfig) -> list[str]:
    """A line for each setting that never acts, whatever the limits of a trial run."""
    trainer, scheduler, found = config.trainer, config.scheduler, []
    length = f"{amount(trainer.epochs, 'epoch')} to have an effect"
    if scheduler.name == "plateau":
        patience = getattr(scheduler, "patience", 0)
        if patience >= _worse_evaluations(config):
            advice = "The learning rate is never reduced: lower it, or train longer."
            found.append(problem("scheduler.patience", f"fit into {length}", patience, advice))
    elif scheduler.name != "constant" and _is_constant(config):
        got, advice = (
            described_values(scheduler) or "a constant one",
            "The learning rate never changes: change a key, or train longer.",
        )
        found.append(f"scheduler={scheduler.name} must change within {length}, got {got}. {advice}")
    if (unaugmented := trainer.unaugmented_epochs) and not config.augmentation.chosen():
        advice = "Choose an augmentation, or leave this key out."
        found.append(problem("trainer.unaugmented_epochs", "be 0 without an augmentation", unaugmented, advice))
    elif unaugmented == trainer.epochs:
        rule, advice = f"be less than {trainer.epochs}, the number of epochs", "No epoch is augmented: lower it."
        found.append(problem("trainer.unaugmented_epochs", rule, unaugmented, advice))
    stopping = trainer.early_stopping
    for key, value, most in (
        ("patience", stopping.patience, _worse_evaluations(config)),
        ("min_epochs", stopping.min_epochs if stopping.patience else None, trainer.epochs - 1),
    ):
        if value is not None and value > most:
            advice = "The training never ends early: lower it, or train longer."
            found.append(problem(f"trainer.early_stopping.{key}", f"fit into {length}", value, advice))
    return found


def _worse_evaluations(config: RunConfig) -> int:
    """How many evaluations can be worse than the first one and be followed by another epoch."""
    return max(0, (config.trainer.epochs - 1) // config.trainer.eval_every_epochs - 1)


def _is_constant(config: RunConfig) -> bool:
    """Whether a schedule that watches nothing leaves learning rate and momentum as they are."""
    trainer = config.trainer
    schedule = make_schedule(config.scheduler, epochs=trainer.epochs, steps_per_epoch=config.steps_per_epoch)
    num_steps = trainer.epochs * config.steps_per_epoch
    if schedule.after is not None or schedule.momentum is not None:
        return False
    return all(schedule.lr(step) == schedule.lr(0) for step in range(0, num_steps, max(1, num_steps // MAX_STEPS)))
