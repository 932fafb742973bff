"""Checks what a config requires of the trained network."""

from __future__ import annotations

from era_cnn.config.schema import RunConfig
from era_cnn.errors import TrainingError, problem
from era_cnn.runs.parts import Parts, make_evaluation_batches
from era_cnn.training.evaluate import evaluate


def check_train_accuracy(config: RunConfig, parts: Parts) -> str:
    """Evaluates the network on its training images, without augmentation and dropout; returns a line about it.

    Raises:
        TrainingError: If it is right less often than `trainer.required_train_accuracy`.
    """
    required = config.trainer.required_train_accuracy
    assert required is not None, "the caller knows"
    batches = make_evaluation_batches(parts.train.split, config)
    accuracy = evaluate(parts.state.network, batches, precision=config.precision).scores().accuracy
    if accuracy < required:
        rule = f"be reached on the training images as they are, {required}"
        advice = "Try augmentation=none, model.dropout=0 and another optimizer.lr, and look at the labels."
        raise TrainingError(problem("trainer.required_train_accuracy", rule, accuracy, advice))
    return f"Train accuracy without augmentation and dropout: {100 * accuracy:.2f}%, as required"
