"""What safety costs: the share of an epoch of Model-3 on MNIST that goes into determinism, checks, digests and fsync.

In each round the same steps are trained twice in this process, in turn: as every run does, and with PyTorch's
deterministic algorithms, the seeding of each step and the checks of its numbers switched off. What an epoch is saved,
fingerprinted and recorded for is timed by itself. `python -m benchmarks.safety`; needs MNIST (ERA_CNN_DATA).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.config.schema import RunConfig
from era_cnn.folders.run import RunFolder
from era_cnn.machine import keep_memory
from era_cnn.runs.listeners.saver import Saver
from era_cnn.runs.listeners.writer import Writer
from era_cnn.runs.parts import Parts, make_parts, read_data
from era_cnn.runs.process import set_up
from era_cnn.training import loop
from era_cnn.training.evaluate import Tally
from era_cnn.training.fingerprint import fingerprint
from era_cnn.training.history import EpochMetrics, History, Scores
from era_cnn.training.listeners import Training
from era_cnn.training.loop import Step, fit

STEPS_PER_EPOCH = 938


@contextlib.contextmanager
def unsafe() -> Iterator[None]:
    """Without what makes steps deterministic and checks them."""
    torch.set_deterministic_debug_mode("default")
    with (
        mock.patch.object(loop, "_check_finite"),
        mock.patch.object(loop, "_largest"),
        mock.patch.object(loop, "fingerprint", return_value={}),
        mock.patch.object(loop, "seed_torch"),
    ):
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode("error")


def seconds_per_step(config: RunConfig, parts: Parts, warm_up: int) -> float:
    """The median over the steps of one short epoch."""
    instants: list[float] = []

    def on_step(step: Step) -> None:
        instants.append(time.perf_counter())

    list(fit(parts.state, parts.schedule, parts.train, epochs=1, seed=1, history=History(), on_step=on_step))
    return statistics.median(after - before for before, after in zip(instants[warm_up:], instants[warm_up + 1 :]))  # noqa: B905


def seconds_of_saving(config: RunConfig, parts: Parts, epochs: int) -> float:
    """What the end of an epoch, its two checkpoints and one more within it take; the median over some epochs."""
    taken = []
    with tempfile.TemporaryDirectory() as name:
        folder, history = RunFolder(Path(name)), History()
        saver = Saver(folder.checkpoints, origin={"config_sha256": "", "data_sha256": ""}, every_seconds=None)
        writer = Writer(folder)
        for listener in (saver, writer):
            listener.on_start(Training(config, parts.state, history, folder.path))
        tally = Tally(torch.device("cpu"))
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            tensors = fingerprint(parts.state, parts.train.order(epoch))
            scores = Scores(0.1, epoch / 1000, epoch, 1000)  # better each time, so that the best is saved as well
            history.append(EpochMetrics(epoch, 0.01, 0.1, 0.9, 20.0, None, scores, tensors))
            saver.on_epoch(history[-1])
            writer.on_epoch(history[-1])
            saver.on_step(Step(epoch + 1, 500, STEPS_PER_EPOCH, 0.01, tally, 10.0))
            saver.save()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100, help="in each half of a round")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    config = validated(
        compose(Words(["experiment=model_3", "device=cpu", f"trainer.limit_train_images={64 * args.steps}"]))
    )
    keep_memory()
    arrays = read_data(config)
    safe_steps, unsafe_steps = [], []
    with set_up(config.threads):
        for _ in range(args.rounds):
            parts = make_parts(config, arrays, torch.device("cpu"))
            safe_steps.append(seconds_per_step(config, parts, args.steps // 5))
            parts = make_parts(config, arrays, torch.device("cpu"))
            with unsafe():
                unsafe_steps.append(seconds_per_step(config, parts, args.steps // 5))
        saving = seconds_of_saving(config, parts, 20)
    ratios = [safe / bare for safe, bare in zip(safe_steps, unsafe_steps, strict=True)]
    step = statistics.median(safe_steps)
    in_steps = 1 - 1 / statistics.median(ratios)
    in_saving = saving / (STEPS_PER_EPOCH * step)
    figures = {
        "rounds": args.rounds,
        "steps_per_round": args.steps,
        "milliseconds_per_step": round(1000 * step, 2),
        "step_ratio_median": round(statistics.median(ratios), 4),
        "step_ratio_min": round(min(ratios), 4),
        "step_ratio_max": round(max(ratios), 4),
        "milliseconds_of_saving_per_epoch": round(1000 * saving, 2),
        "share_in_steps_percent": round(100 * in_steps, 2),
        "share_in_saving_percent": round(100 * in_saving, 2),
        "share_percent": round(100 * (in_steps + in_saving), 2),
    }
    print(json.dumps(figures, indent=2))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
