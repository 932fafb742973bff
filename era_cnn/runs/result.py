"""What came out of a run, as result.json holds it. Accuracies are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from era_cnn.config.schema import RunConfig
from era_cnn.training.fingerprint import weights_sha256
from era_cnn.training.loop import EpochMetrics

SCHEMA = 1

TIMES = ("seconds", "images_per_second")
"""The keys that two equal runs differ in."""


@dataclass(frozen=True)
class Result:
    """The keys of result.json, in order.

    Without validation images, `best_test_accuracy` is the best of all epochs, chosen on the test set, and stands beside
    the final one. With them, the test set was looked at once, so both are the same, and the `val` keys say how the
    epochs went. `seconds` are those of the training, evaluations excluded.
    """

    schema: int
    experiment: str
    seed: int
    params: int
    epochs: int
    best_test_accuracy: float
    best_test_epoch: int
    final_test_accuracy: float
    best_train_accuracy: float
    final_train_accuracy: float
    final_test_loss: float
    best_val_accuracy: float | None
    best_val_epoch: int | None
    final_val_accuracy: float | None
    target: dict[str, Any]
    weights_sha256: str
    config_sha256: str
    data_sha256: str
    seconds: float
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def make_result(
    config: RunConfig,
    records: Sequence[EpochMetrics],
    model: nn.Module,
    *,
    num_train_images: int,
    data_sha256: str,
) -> Result:
    """Draws the result from the records of a completed run."""
    tested = [(record.test.accuracy, record.epoch) for record in records if record.test]
    validated = [(record.val.accuracy, record.epoch) for record in records if record.val]
    final = records[-1]
    assert final.test is not None, "the last epoch is always tested"
    best_test = max(tested, key=lambda pair: pair[0])  # the first of equals
    best_val = max(validated, key=lambda pair: pair[0]) if validated else (None, None)
    seconds = sum(record.seconds for record in records)
    return Result(
        schema=SCHEMA,
        experiment=config.name,
        seed=config.seed,
        params=sum(parameter.numel() for parameter in model.parameters()),
        epochs=len(records),
        best_test_accuracy=best_test[0],
        best_test_epoch=best_test[1],
        final_test_accuracy=final.test.accuracy,
        best_train_accuracy=max(record.train_accuracy for record in records),
        final_train_accuracy=final.train_accuracy,
        final_test_loss=final.test.loss,
        best_val_accuracy=best_val[0],
        best_val_epoch=best_val[1],
        final_val_accuracy=final.val.accuracy if final.val else None,
        target={**config.target.model_dump(), "met": _is_met(config, best_test[0])},
        weights_sha256=weights_sha256(model),
        config_sha256=config.digest(),
        data_sha256=data_sha256,
        seconds=round(seconds, 3),
        images_per_second=round(num_train_images * len(records) / seconds, 1),
    )


def _is_met(config: RunConfig, best_test_accuracy: float) -> bool | None:
    """Whether the target was reached; its limits are enforced beforehand. None if not all test images were used."""
    wanted = config.target.test_accuracy
    if wanted is not None and config.trainer.limit_test_images is not None:
        return None
    return wanted is None or best_test_accuracy >= wanted
