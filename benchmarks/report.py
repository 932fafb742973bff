"""The record of the benchmarks as a page for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CONTENDERS = {
    "era_cnn": "era_cnn",
    "compiled": "era_cnn, `trainer.compile=true`",
    "plain": "plain loop",
    "lightning": "Lightning",
    "floor": "convolutions alone",
}


INTRODUCTION = """
`make bench` measures all of this again and writes this page (`record.json` holds the figures). What is compared takes
turns in one run, each in a process of its own; the figures are medians over the rounds, and ratios are taken within a
round: median (least to most). A round is 50 steps (8 for CIFAR-10), training alone, real MNIST.

- **era_cnn**: `fit`, as `era-cnn` calls it, with its checks and counts; the command's bar and log lines, some of them a
  second, and its checkpoints are not in it.
- **plain loop** (`plain.py`): torchvision's `DataLoader`, a PIL rotation for each image, `.item()` and a bar in each
  step, as in the reference runs.
- **Lightning** (`lightning_loop.py`): the same with its default loaders, bar and logger, in an environment of its own.
- **convolutions alone** (`floor.py`): forward and backward, in the faster of the two memory layouts, nothing else.

`cifar10_dilated` trains on noise of CIFAR-10's shape, for all of them; the plain loop and Lightning with torchvision's
flip, affine and erasing. A dash stands for a figure that is refused: its rounds are more than half of their median
apart, because the machine was busy.
"""

DISAGREE = 0.5
"""How far apart the rounds of a figure may be, as a share of their median."""


def write_readme(record: dict[str, Any]) -> None:
    """Writes benchmarks/README.md from what was measured."""
    text = "\n".join(_lines(record)) + "\n"
    Path(__file__).with_name("README.md").write_text(text, encoding="utf-8")


def _lines(record: dict[str, Any]) -> Iterator[str]:
    yield "# Speed, memory and start-up"
    yield ""
    yield from INTRODUCTION.strip().splitlines()
    for part, write in SECTIONS.items():
        if part in record:
            yield ""
            yield from write(record[part]["found"])
            yield ""
            yield _origin(record[part])


def _origin(part: dict[str, Any]) -> str:
    busy = f"; others used {part['busy']:.0%} of the processors when it began" if "busy" in part else ""
    return f"{part['rounds']} rounds, code `{part['code']}`, {part['machine']}{busy}."


def _ratio(values: list[float]) -> str:
    return _figure(values, ".2f")


def _figure(values: list[float], style: str) -> str:
    """Median, least and most; no median if they are too far apart."""
    median, least, most = values
    shown = f"{median:{style}}" if most - least <= DISAGREE * median else "–"
    return f"{shown} ({least:{style}} to {most:{style}})"


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A table whose head is written as `a | b | c`."""
    yield ""
    yield f"| {head} |"
    yield "|---" * len(head.split(" | ")) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _speed(found: dict[str, Any]) -> Iterator[str]:
    yield "## A training step"
    yield from _table(
        "model | contender | images a second | era_cnn is … times as fast | peak resident memory",
        (
            (
                f"`{model}`",
                CONTENDERS[name],
                f"{values['images_per_second']:,}",
                "" if name == "era_cnn" else _ratio(values["ratio"]),
                "" if name == "floor" else f"{values['peak_bytes'] / 2**20:,.0f} MiB",
            )
            for model, contenders in found.items()
            for name, values in contenders.items()
        ),
    )


def _growth(found: dict[str, Any]) -> Iterator[str]:
    yield "## How the cost of Model-3 grows"
    yield from _table(
        "case | era_cnn, images a second | plain loop | era_cnn is … times as fast | … as the convolutions alone",
        (
            (
                case,
                f"{contenders['era_cnn']['images_per_second']:,}",
                f"{contenders['plain']['images_per_second']:,}",
                _ratio(contenders["plain"]["ratio"]),
                _ratio(contenders["floor"]["ratio"]),
            )
            for case, contenders in found.items()
        ),
    )


def _crowd(found: dict[str, Any]) -> Iterator[str]:
    yield "## Several runs at once"
    yield ""
    yield "Model-3, images a second of all runs together."
    yield from _table(
        "runs | images a second | of the first row",
        ((case, f"{values['images_per_second']:,}", _ratio(values["ratio"])) for case, values in found.items()),
    )


def _busy(found: dict[str, Any]) -> Iterator[str]:
    yield "## Busy machines"
    yield ""
    yield "Model-4, images a second with as many threads as there are cores, by how threads wait for each other: on an"
    yield "idle machine, and next to one other process that keeps a core busy. `era-cnn` sets GOMP_SPINCOUNT=10000."
    yield from _table(
        "threads wait | idle | next to another process",
        ((f"`{way}`", *(_figure(both[state], ",.0f") for state in ("idle", "busy"))) for way, both in found.items()),
    )


def _start(found: dict[str, Any]) -> Iterator[str]:
    yield "## Start-up, memory, evaluation"
    yield ""
    yield "Whole processes, in turn."
    yield from _table(
        "command | seconds", ((f"`{command}`", _ratio(values)) for command, values in found["seconds"].items())
    )
    mebibytes = found["peak_bytes_of_a_run"] / 2**20
    seconds, shares = found["evaluation"]["seconds"], found["evaluation"]["share_of_an_epoch"]
    yield ""
    yield f"A run of Model-3 on MNIST held {mebibytes:,.0f} MiB at most, evaluations included."
    yield f"To evaluate the 10,000 test images took {_ratio(seconds)} seconds, which is"
    yield f"{', '.join(f'{100 * share:.1f}' for share in shares)}% (median, least, most) of an epoch of training."


AUGMENTATION = {
    "batches": "era_cnn",
    "loader": "`DataLoader`",
    "workers": "`DataLoader`, a worker for each core",
}


def _augmentation(found: dict[str, Any]) -> Iterator[str]:
    share = [100 * value for value in found["pipeline"]["ratio"]]
    yield "## Augmentation"
    yield ""
    yield "Flip, crop, shift-scale-rotate and cutout of images of CIFAR's shape, in batches of 128. They take"
    yield f"{_ratio(share)}% of the time of a training step of a network of just under 200,000 parameters."
    yield "Normalised batches, beside torchvision's transforms of Pillow images in a `DataLoader`:"
    yield from _table(
        "batches from | images a second | era_cnn is … times as fast",
        (
            (name, f"{found[key]['images_per_second']:,}", "" if key == "batches" else _ratio(found[key]["ratio"]))
            for key, name in AUGMENTATION.items()
        ),
    )


def _large(found: dict[str, Any]) -> Iterator[str]:
    gigabytes, anonymous = found["pixels_bytes"] / 1e9, found["anonymous_bytes"]
    yield "## Data larger than memory"
    yield ""
    yield f"A folder of JPEG files of 64×64 pixels ({gigabytes:.1f} GB decoded), an epoch a round, with a network so"
    yield "small that reading counts: from the mapped file of decoded images, and with all of them copied into memory."
    yield "Anonymous memory is what belongs to no file; mapped pages are given back when memory is needed for something"
    yield f"else. The first start, which decodes, and the first epoch took {found['first_seconds']:.0f} seconds."
    yield from _table(
        "images | images a second | anonymous memory",
        (
            (way, _figure(values, ",.0f"), f"{anonymous[way] / 2**20:,.0f} MiB")
            for way, values in found["images_per_second"].items()
        ),
    )
    yield ""
    yield f"Mapped ones are {_ratio(found['ratio'])} times as fast."


def _seeds(found: dict[str, Any]) -> Iterator[str]:
    def spread(accuracies: list[float]) -> str:
        return f"{100 * statistics.mean(accuracies):.2f} ± {100 * statistics.stdev(accuracies):.2f}%"

    yield "## The same statistics"
    yield ""
    yield "Model-4 whole, two trainings at a time with a thread each: test accuracy,"
    yield "mean ± sd over seeds (a round is a seed). The best epoch is chosen on the test set, as in the references."
    yield from _table(
        "path | n | best | final",
        (
            (CONTENDERS[contender], str(len(own["best"])), spread(own["best"]), spread(own["final"]))
            for contender, path in (("era_cnn", "fast"), ("compiled", "compiled"), ("plain", "plain"))
            if (own := found.get(path))
        ),
    )


def _sweeps(found: dict[str, Any]) -> Iterator[str]:
    yield "## Sweeps"
    yield ""
    yield "Seconds that a job more costs a sweep above its own steps (evaluations, checkpoints and files included; its"
    yield "process is forked from one that has imported all). How many times as fast two runs of Model-4 on MNIST (two"
    yield "epochs) are at once, a thread each, as one after another. Seconds of commands on many jobs."
    yield from _table("what | median (least to most)", ((name, _ratio(values)) for name, values in found.items()))


SECTIONS = {
    "speed": _speed,
    "growth": _growth,
    "crowd": _crowd,
    "busy": _busy,
    "start": _start,
    "augmentation": _augmentation,
    "large": _large,
    "sweeps": _sweeps,
    "seeds": _seeds,
}
