"""An epoch as `era-cnn` trains it, timed by itself."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from era_cnn.machine import keep_memory, spin_briefly

spin_briefly()  # as the command does, before torch is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.contender import options, serve  # noqa: E402
from benchmarks.networks import ROTATES, noise  # noqa: E402
from era_cnn.compose.composition import compose, validated  # noqa: E402
from era_cnn.compose.words import Words  # noqa: E402
from era_cnn.config.schema import RunConfig  # noqa: E402
from era_cnn.runs.parts import make_parts, read_data  # noqa: E402
from era_cnn.runs.process import set_up  # noqa: E402
from era_cnn.training.history import History  # noqa: E402
from era_cnn.training.loop import fit  # noqa: E402


def config_of(model: str, *overrides: str, width: int = 1) -> RunConfig:
    """An experiment's config, all channels but those of the logits times `width`."""
    words = [f"experiment={model}", "target.max_params=null", "device=cpu", *overrides]
    layers = validated(compose(Words(words))).model.layers
    wider = [
        f"model.layers.{name}.out_channels={spec['out_channels'] * width}"
        for name, spec in layers.items()
        if "out_channels" in spec and name != "logits" and width > 1
    ]
    return validated(compose(Words([*words, *wider])))


def data_of(model: str, data: str, images: int, scratch: str) -> list[str]:
    """The words that choose the images of a recipe: MNIST, or a file of noise where the others train on noise."""
    if model in ROTATES:
        return [f"data.root={data}"]
    pixels, labels = noise(images)
    path = Path(scratch) / "noise.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:10], y_test=labels[:10])
    return ["data=npz", f"data.root={path}"]


def main() -> None:
    args = options()
    with tempfile.TemporaryDirectory() as scratch:
        train(args, data_of(args.model, args.data, args.images, scratch))


def train(args: argparse.Namespace, data: list[str]) -> None:
    config = config_of(
        args.model, f"threads={args.threads}", *data, f"trainer.batch_size={args.batch_size}",
        f"trainer.limit_train_images={args.images}", f"trainer.compile={args.compile}", width=args.width,
    )  # fmt: skip
    keep_memory()
    with set_up(config.threads):
        parts = make_parts(config, read_data(config), torch.device("cpu"))

        def round_() -> float:
            (metrics,) = fit(
                parts.state, parts.schedule, parts.train, objective=parts.objective, epochs=1, seed=1, history=History()
            )
            return metrics.seconds

        serve(round_)


if __name__ == "__main__":
    main()
