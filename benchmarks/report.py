"""The record of the benchmarks as a page for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONTENDERS = {
    "era_cnn": "era_cnn",
    "plain": "plain loop",
    "lightning": "Lightning",
    "floor": "convolutions alone",
}


def write_readme(record: dict[str, Any]) -> None:
    """Writes benchmarks/README.md from what was measured."""
    text = "\n".join(_lines(record)) + "\n"
    Path(__file__).with_name("README.md").write_text(text, encoding="utf-8")


def _lines(record: dict[str, Any]) -> Iterator[str]:
    yield "# Speed, memory and start-up"
    yield ""
    yield "`make bench` measures all of this again and writes this page (`record.json` holds the figures). What is compared"
    yield "takes turns in one run, each in a process of its own; the figures are medians over the rounds, and ratios are"
    yield "taken within a round: median (least to most). A round is 50 steps, training alone, real MNIST."
    yield ""
    yield "- **era_cnn**: `fit`, as `era-cnn` calls it. **plain loop** (`plain.py`): torchvision's `DataLoader`, a PIL rotation"
    yield "  for each image, `.item()` and a bar in each step, as in the reference runs. **Lightning** (`lightning_loop.py`): the"
    yield "  same with its default loaders, bar and logger, in an environment of its own. **convolutions alone** (`floor.py`):"
    yield "  forward and backward, in the faster of the two memory layouts, nothing else."
    for part, write in SECTIONS.items():
        if part in record:
            yield ""
            yield from write(record[part]["found"])
            yield ""
            yield f"{record[part]['rounds']} rounds, code `{record[part]['code']}`, {record[part]['machine']}."


def _ratio(values: list[float]) -> str:
    median, least, most = values
    return f"{median:.2f} ({least:.2f} to {most:.2f})"


def _speed(found: dict[str, Any]) -> Iterator[str]:
    yield "## A training step"
    yield ""
    yield "| model | contender | images a second | era_cnn is … times as fast | peak resident memory |"
    yield "|---|---|---|---|---|"
    for model, contenders in found.items():
        for name, values in contenders.items():
            ratio = "" if name == "era_cnn" else _ratio(values["ratio"])
            memory = "" if name == "floor" else f"{values['peak_bytes'] / 2**20:,.0f} MiB"
            yield f"| `{model}` | {CONTENDERS[name]} | {values['images_per_second']:,} | {ratio} | {memory} |"


def _growth(found: dict[str, Any]) -> Iterator[str]:
    yield "## How the cost of Model-3 grows"
    yield ""
    yield "| | era_cnn, images a second | plain loop | era_cnn is … times as fast | … as the convolutions alone |"
    yield "|---|---|---|---|---|"
    for case, contenders in found.items():
        own, plain, floor = (contenders[name] for name in ("era_cnn", "plain", "floor"))
        yield (
            f"| {case} | {own['images_per_second']:,} | {plain['images_per_second']:,} | {_ratio(plain['ratio'])} "
            f"| {_ratio(floor['ratio'])} |"
        )


def _crowd(found: dict[str, Any]) -> Iterator[str]:
    yield "## Several runs at once"
    yield ""
    yield "Model-3, images a second of all runs together."
    yield ""
    yield "| | images a second | of the first row |"
    yield "|---|---|---|"
    for case, values in found.items():
        yield f"| {case} | {values['images_per_second']:,} | {_ratio(values['ratio'])} |"


def _start(found: dict[str, Any]) -> Iterator[str]:
    yield "## Start-up, memory, evaluation"
    yield ""
    yield "Whole processes, in turn."
    yield ""
    yield "| command | seconds |"
    yield "|---|---|"
    for command, values in found["seconds"].items():
        yield f"| `{command}` | {_ratio(values)} |"
    evaluation = found["evaluation"]
    share = ", ".join(f"{100 * value:.1f}" for value in evaluation["share_of_an_epoch"])
    yield ""
    yield f"A run of Model-3 on MNIST, evaluations included, held {found['peak_bytes_of_a_run'] / 2**20:,.0f} MiB at most. To"
    yield f"evaluate the 10,000 test images took {_ratio(evaluation['seconds'])} seconds, {share} % (median, least, most) of an"
    yield "epoch of training."


SECTIONS = {"speed": _speed, "growth": _growth, "crowd": _crowd, "start": _start}
