"""Notes below the layer table: what readers of it, and of the folder of checkpoints, ask first."""

from __future__ import annotations

from era_cnn.models.summary import Summary

NOTES_ON_CHECKPOINTS = (
    "checkpoints/ holds the last two checkpoints and the best one. Their names end in the SHA-256 of their content.",
    "epoch-00003_step-0000000_<sha256>.pt: where training goes on, here at the start of epoch 3.",
    "best_epoch-00002_<sha256>.pt: after epoch 2, the best one. It may be a copy of another file.",
)


def notes_on_fields(summary: Summary) -> list[str]:
    """Explains the receptive fields of global poolings, which are wider than that of the network."""
    wider = [row.name for row in summary.rows if row.receptive_field > summary.receptive_field]
    if not wider:
        return []
    return [
        "field: the pixels of the image, along one axis, that an output depends on.",
        f"{wider[0]} sees all positions at once; the total is the field before it.",
    ]
