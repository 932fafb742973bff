"""The result of a run, as it is stored in result.json. Accuracies are fractions in [0, 1]."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

SCHEMA = 1

TIMES = ("seconds", "images_per_second")
"""The keys that differ between equal runs."""


@dataclass(frozen=True)
class Result:
    """The keys of result.json, in order.

    Without validation images, `best_test_accuracy` is the best of all epochs, chosen on the test set. With them, the
    test set is evaluated only once, so the best and final test accuracy are the same, and the `val` keys hold the best
    and final validation accuracy. `seconds` is the training time without evaluations. `config_sha256` follows the rules
    of the config's schema.
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
        """The result as plain values."""
        return asdict(self)


RESULT_KEYS = tuple(field.name for field in fields(Result) if field.default is MISSING)
"""The keys that every version wrote. A new key gets a default, since older results do not have it."""
