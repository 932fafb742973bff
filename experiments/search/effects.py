"""Prints what each factor of the designs in designs.csv does to the losses, as a Markdown table.

Least squares on the logarithms of the losses of one design, in which each factor has two values: an effect is the
change that the second value makes, ± its standard error, and t is its size in standard errors.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTORS = {
    "1": (
        ("`n2_plain4` instead of `n2_plain3`", "network", {"n2_plain3": -1, "n2_plain4": 1}),
        ("twice the learning rate", "lr", {"0.12": -1, "0.2": -1, "0.24": 1, "0.4": 1}),
        ("weaker augmentation (±4°, 3%, 0.97 to 1.03)", "degrees", {"6": -1, "4": 1}),
        ("batches of 32, with 0.6 times the learning rate", "batch_size", {"64": -1, "32": 1}),
        ("SiLU", "activation", {"relu": -1, "silu": 1}),
        ("average pooling", "pool", {"max": -1, "average": 1}),
    ),
    "2": (
        ("`n2_plain4` instead of `n2_plain3`", "network", {"n2_plain3": -1, "n2_plain4": 1}),
        ("batches of 128, with 1.67 times the learning rate", "batch_size", {"64": -1, "128": 1}),
        ("twice the learning rate", "lr", {"0.3": -1, "0.5": -1, "0.6": 1, "1": 1}),
        ("weight decay of 3e-5", "weight_decay", {"1e-4": -1, "3e-5": 1}),
    ),
    "4": (
        ("`n1_plain4` instead of `n1_plain3`", "network", {"n1_plain3": -1, "n1_plain4": 1}),
        ("twice the learning rate", "lr", {"0.7": -1, "1.4": 1}),
        ("no weight decay", "weight_decay", {"3e-5": -1, "0": 1}),
        ("weaker augmentation (±4°, 3%, 0.97 to 1.03)", "degrees", {"6": -1, "4": 1}),
    ),
}
"""By design: what differs, its column, and which of its values is the second one."""


def main() -> None:
    """Prints a table for each design."""
    with Path(__file__).with_name("designs.csv").open(encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    sys.stdout.write("\n".join(f"Design {design}:\n\n{table(design, runs)}" for design in FACTORS))


def table(design: str, runs: Sequence[Mapping[str, str]]) -> str:
    """The effects in a design, as a Markdown table."""
    rows = [run for run in runs if run["design"] == design]
    factors = FACTORS[design]
    signs = np.array([[1.0, *(values[row[key]] for _, key, values in factors)] for row in rows])
    columns = [_effects(signs, [float(row[loss]) for row in rows]) for loss in ("val_loss", "train_loss")]
    lines = ["| what differs | validation loss | t | training loss | t |", "|---|---|---|---|---|"]
    for (name, _, _), validation, training in zip(factors, *columns, strict=True):
        lines.append(f"| {name} | {validation} | {training} |")
    return "\n".join(lines) + "\n"


def _effects(signs: NDArray[np.float64], losses: Sequence[float]) -> list[str]:
    """The change of the loss with its standard error, and t, by factor."""
    logarithms = np.log(losses)
    slopes, *_ = np.linalg.lstsq(signs, logarithms, rcond=None)
    residuals = logarithms - signs @ slopes
    variance = residuals @ residuals / (len(losses) - len(slopes))
    errors = np.sqrt(variance * np.diag(np.linalg.inv(signs.T @ signs)))
    shown = []
    for slope, error in zip(slopes[1:], errors[1:], strict=True):
        change = math.expm1(2 * slope)  # from the sign -1 to 1 is a step of two
        shown.append(f"{100 * change:+.1f} ± {200 * error * (1 + change):.1f}% | {slope / error:+.1f}")
    return shown


if __name__ == "__main__":
    main()
