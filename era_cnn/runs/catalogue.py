"""What can be run: every experiment with the size of its network and its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from era_cnn.composition import compose, experiments, validated
from era_cnn.config import RunConfig
from era_cnn.models.build import build_from_config
from era_cnn.models.summary import Summary, summarise
from era_cnn.words import Words


@dataclass(frozen=True)
class Entry:
    """An experiment: `receptive_field` in pixels, `mult_adds` for one image, `test_accuracy` as a fraction."""

    experiment: str
    params: int
    max_params: int | None
    epochs: int
    max_epochs: int | None
    test_accuracy: float | None
    receptive_field: int
    mult_adds: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def catalogue(words: Words) -> list[Entry]:
    """Composes and builds every experiment, without weights."""
    entries = []
    for name in experiments(words):
        config = validated(compose(words.with_overrides([*words.overrides, f"experiment={name}"])))
        summary = describe(config)
        entries.append(
            Entry(
                experiment=name,
                params=summary.params,
                max_params=config.target.max_params,
                epochs=config.trainer.epochs,
                max_epochs=config.target.max_epochs,
                test_accuracy=config.target.test_accuracy,
                receptive_field=summary.receptive_field,
                mult_adds=summary.mult_adds,
            )
        )
    return entries


def describe(config: RunConfig) -> Summary:
    """The rows and totals of a config's network, without weights."""
    with torch.device("meta"):
        network = build_from_config(config)
    return summarise(network)


def catalogue_table(entries: Sequence[Entry]) -> str:
    """A row an experiment, for people."""
    head = ("experiment", "params", "max", "epochs", "max", "target", "field", "multiply-adds")
    rows = [
        (
            entry.experiment,
            f"{entry.params:,}",
            f"{entry.max_params:,}" if entry.max_params else "-",
            str(entry.epochs),
            str(entry.max_epochs or "-"),
            f"{100 * entry.test_accuracy:.2f}%" if entry.test_accuracy is not None else "-",
            f"{entry.receptive_field} px",
            f"{entry.mult_adds:,}",
        )
        for entry in entries
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, tuple("-" * width for width in widths), *rows)
    )
