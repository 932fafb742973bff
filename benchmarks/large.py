"""An epoch over a folder of many images, mapped from the cache or held in memory: `--model` is `mapped` or `memory`.

The images are drawn by `draw`: 64×64 pixels in colour, a JPEG file each. The network is so small that reading counts.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from era_cnn.machine import keep_memory, spin_briefly

spin_briefly()  # as the command does, before torch is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

import era_cnn  # noqa: E402
from benchmarks.contender import options, serve  # noqa: E402
from era_cnn.runs.parts import make_parts, read_data  # noqa: E402
from era_cnn.runs.process import set_up  # noqa: E402
from era_cnn.training.history import History  # noqa: E402
from era_cnn.training.loop import fit  # noqa: E402

SIZE, CLASSES = 64, 10
MODEL = """
name: strided
dropout: 0.0
norm: batch
activation: relu
bias: false
order: [conv, norm, activation, dropout]
layers:
  conv1: {block: conv, out_channels: 8, stride: 4}
  conv2: {block: conv, out_channels: 16, stride: 2}
  gap: {block: gap_head, projection: conv}
"""


def draw(folder: Path, count: int) -> None:
    """Writes `count` images for training and 50 of each class for testing, and the network's config."""
    (folder / "model").mkdir()
    (folder / "model" / "strided.yaml").write_text(MODEL, encoding="utf-8")
    classes = [folder / "images" / split / f"class{k}" for split in ("train", "test") for k in range(CLASSES)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_draw_class, classes, [count // CLASSES] * CLASSES + [50] * CLASSES))


def _draw_class(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(list(str(folder.relative_to(folder.parents[2])).encode()))
    for number in range(count):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = coarse.repeat(SIZE // 8, axis=0).repeat(SIZE // 8, axis=1)
        Image.fromarray(pixels).save(folder / f"{number:06}.jpg", quality=75)


def anonymous_bytes(pid: int) -> int:
    """The memory of a process that belongs to no file."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def main() -> None:
    args = options()
    words = [
        "experiment=own_images", f"data.root={Path(args.data) / 'images'}", "data.size=null", "model=strided",
        "device=cpu", f"threads={args.threads}", f"trainer.batch_size={args.batch_size}",
    ]  # fmt: skip
    config = era_cnn.compose(words, config_dir=args.data)
    keep_memory()
    with set_up(config.threads):
        arrays = read_data(config)
        assert isinstance(arrays.train_images, np.memmap)
        assert len(arrays.train_images) == args.images
        if args.model == "memory":
            arrays = replace(arrays, train_images=np.array(arrays.train_images))
        parts = make_parts(config, arrays, torch.device("cpu"))

        def round_() -> float:
            (metrics,) = fit(parts.state, parts.schedule, parts.train, epochs=1, seed=1, history=History())
            return metrics.seconds

        serve(round_)


if __name__ == "__main__":
    main()
