"""An epoch as `era-cnn` trains it, timed by itself."""

from __future__ import annotations

from era_cnn.machine import keep_memory, spin_briefly

spin_briefly()  # as the command does, before torch is imported

import torch  # noqa: E402

from benchmarks.contender import options, serve  # noqa: E402
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


def main() -> None:
    args = options()
    config = config_of(
        args.model, f"threads={args.threads}", f"data.root={args.data}", f"trainer.batch_size={args.batch_size}",
        f"trainer.limit_train_images={args.images}", width=args.width,
    )  # fmt: skip
    keep_memory()
    with set_up(config.threads):
        parts = make_parts(config, read_data(config), torch.device("cpu"))

        def round_() -> float:
            (metrics,) = fit(parts.state, parts.schedule, parts.train, epochs=1, seed=1, history=History())
            return metrics.seconds

        serve(round_)


if __name__ == "__main__":
    main()
