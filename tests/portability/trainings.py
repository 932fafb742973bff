"""The trainings whose digests are compared: each reference network, transform, optimizer, schedule and block.

They train on the embedded digits, and on coloured images made of whole numbers, so no data has to be fetched.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from era_cnn.config.choices import OPTIMIZERS, SCHEDULERS, TRANSFORMS

HEADLINE = "model_4_digits"
"""The training whose digest is published by itself: a whole run."""

REFERENCES = ("model_1", "model_2", "model_3", "model_3_plain", "model_4", "model_4_dropout25")
FOLLOW_UPS = ("cifar10_dilated", "cifar10_small", "cifar10_small_group", "cifar10_small_layer", "cifar10_resnet9")

SHORT = ("trainer.limit_train_images=128", "trainer.limit_test_images=64", "trainer.batch_size=32")
RECIPE = ("model=model_4", "model.dropout=0.05", "optimizer.lr=0.01", "optimizer.weight_decay=1e-4")

NOT_PORTABLE = {"muon"}
"""The optimizers that refuse portable=true."""

EVERY_BLOCK: dict[str, dict[str, Any]] = {
    "conv1": {"block": "conv", "out_channels": 8, "dropout": 0.1, "padding": 1},
    "ghost": {"block": "conv", "out_channels": 8, "norm": "ghost_batch", "activation": "leaky_relu", "pool": "max"},
    "group": {"block": "conv", "out_channels": 8, "norm": "group", "activation": "prelu", "padding": 1},
    "layer": {"block": "conv", "out_channels": 8, "norm": "layer", "activation": "gelu", "padding": 1},
    "sum": {"block": "add", "inputs": ["group", "layer"]},
    "both": {"block": "concat", "inputs": ["group", "sum"]},
    "norm": {"block": "norm"},
    "act": {"block": "activation", "activation": "silu"},
    "drop": {"block": "dropout", "dropout": 0.1},
    "separable": {"block": "depthwise_separable", "out_channels": 12, "activation": "hardswish"},
    "squeeze": {"block": "squeeze_excite", "ratio": 4},
    "residual": {"block": "residual", "out_channels": 12, "dropout": 0.05},
    "blur": {"block": "blur_pool"},
    "shrink": {"block": "transition", "out_channels": 8, "pool": "none"},
    "mean": {"block": "avg_pool"},
    "largest": {"block": "max_pool", "kernel_size": 1},
    "flat": {"block": "flatten"},
    "logits": {"block": "linear", "out_features": 10},
}
"""A network with every block, and most norms and activations."""


def trainings(colours: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """Each training: its name and its overrides.

    Args:
        colours: The file of coloured images.
    """
    yield HEADLINE, ["experiment=model_4_digits"]
    yield "model_4_digits, 2 epochs", ["experiment=model_4_digits", "trainer.epochs=2"]
    for name in REFERENCES:
        yield name, [f"experiment={name}", "data=digits", *SHORT, "trainer.epochs=1"]
    on_colours = ["data=npz", f"data.root={colours}", "data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]"]
    for name in FOLLOW_UPS:
        yield name, [f"experiment={name}", *on_colours, *SHORT, "trainer.epochs=2"]
    small, once = ["~experiment", *RECIPE, *SHORT], "trainer.epochs=1"
    for name in sorted(TRANSFORMS):
        yield f"transform {name}", [*small, *on_colours, f"augmentation={name}", once]
    plain = [text for text in small if not text.startswith("optimizer.")]
    for name in sorted(set(OPTIMIZERS) - NOT_PORTABLE):
        yield f"optimizer {name}", [*plain, "data=digits", f"optimizer={name}", "trainer.ema_decay=0.2", once]
    for name in sorted(SCHEDULERS):
        watch = ["trainer.watch=train_loss"] if name == "plateau" else []
        yield f"scheduler {name}", [*small, "data=digits", f"scheduler={name}", "trainer.epochs=16", *watch]
    yield "every block", ["~experiment", "model=blocks", "data=digits", *SHORT, once]


def write_network(path: Path) -> None:
    """Writes the network with every block as an option of the group `model`."""
    path.parent.mkdir()
    path.write_text(json.dumps({"name": "blocks", "layers": EVERY_BLOCK}), encoding="utf-8")  # JSON is YAML


def write_colours(path: Path) -> None:
    """Writes 160 images of 3 × 32 × 32 in 10 classes: waves of whole numbers, so that every machine makes the same."""
    import numpy as np

    number, channel, row, column = np.ogrid[:160, :3, :32, :32]
    wave = (row * (number % 10 + 1) + column * (channel + 2) + 37 * number) % 64
    images = np.asarray(2 * wave + (number * 89 + row * 7 + column * 13 + channel * 31) % 64, dtype=np.uint8)
    labels = np.arange(160) % 10
    np.savez(path, x_train=images[:128], y_train=labels[:128], x_test=images[128:], y_test=labels[128:])


def train_all(portable: bool, only: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """The digests of each training: of the weights at the end, and of the logits of the test images.

    Args:
        portable: Whether to train portably.
        only: The names of the trainings; empty for all.
    """
    import era_cnn

    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        colours, own = folder / "colours.npz", folder / "conf"
        own.mkdir()
        write_colours(colours)
        write_network(own / "model" / "blocks.yaml")
        for name, overrides in trainings(colours):
            if only and name not in only:
                continue
            settings = [f"portable={str(portable).lower()}", "threads=1", "device=cpu", "report=false", "seed=1"]
            run = era_cnn.train([*overrides, *settings], folder=folder / "run", config_dir=own, quiet=True)
            found[name] = _digests(run.path)
    return found


def _digests(run: Path) -> dict[str, str]:
    import numpy as np

    weights = json.loads((run / "result.json").read_text(encoding="utf-8"))["weights_sha256"]
    with np.load(run / "predictions.npz") as predictions:
        logits = np.ascontiguousarray(predictions["logits"]).tobytes()
    return {"weights": weights, "logits": hashlib.sha256(logits).hexdigest()}


if __name__ == "__main__":
    print(json.dumps(train_all(sys.argv[1] == "portable", sys.argv[2:])))
