"""The result of a run, as it is stored in result.json. Accuracies are fractions in [0, 1]."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

SCHEMA = 1

TIMES = ("seconds", "images_per_second")
"""The keys that differ between equal runs."""


Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Result:
    """The keys of result.json, in order.

    Without validation images, `best_test_accuracy` is the best of all epochs, chosen on the test set. With them, the
    test set is evaluated only once, so the best and final test accuracy are the same, and the `val` keys hold the best
    and final validation accuracy. `seconds` is the training time without evaluations. `config_sha256` follows the rules
    of the config's schema.

    `watched` is what the schedule or an early end depended on, such as val_loss; if it is a figure of the test set, the
    test set was evaluated after each epoch, and the test accuracies are too optimistic. `end_reason` says why the
    training ended before its last epoch. The `ema` keys hold the final figures of the averaged weights; all others are
    those of the weights themselves.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)

    schema: int
    experiment: str
    seed: Count
    params: Count
    epochs: Count
    best_test_accuracy: Fraction
    best_test_epoch: Count
    final_test_accuracy: Fraction
    best_train_accuracy: Fraction
    final_train_accuracy: Fraction
    final_test_loss: float
    best_val_accuracy: Fraction | None
    best_val_epoch: Count | None
    final_val_accuracy: Fraction | None
    target: dict[str, str | int | float | bool | None]
    weights_sha256: Sha256
    config_sha256: Sha256
    data_sha256: Sha256
    seconds: float
    images_per_second: float
    watched: str | None = None
    end_reason: str | None = None
    ema_val_accuracy: Fraction | None = None
    ema_test_accuracy: Fraction | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)


RESULT_KEYS = tuple(field.name for field in fields(Result) if field.default is MISSING)
"""The keys that every version wrote. A new key gets a default, since older results do not have it."""
