"""Predicts the classes of pictures with the network of a run.

Shapes: N images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from era_cnn.config.data_info import DataInfo
from era_cnn.config.schema import RunConfig
from era_cnn.data.batches import Split
from era_cnn.errors import ConfigError, DataError, RunFolderError, amount, problem
from era_cnn.folders.claims import claim
from era_cnn.folders.storage import write_atomically
from era_cnn.output import complain, say, shown
from era_cnn.reports import pictures
from era_cnn.reports.answers import probabilities, read_best_predictions, read_predictions
from era_cnn.reports.charts import calibration_error, reliability
from era_cnn.reports.formats import aligned, csv_text
from era_cnn.runs.parts import make_evaluation_batches
from era_cnn.runs.process import set_up
from era_cnn.training.evaluate import evaluate
from era_cnn.use.evaluate import usable_device
from era_cnn.use.network import Run, Trained, Which
from era_cnn.use.preparing import Preparer, image_files, unreadable

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]] | str | Path | Sequence[str | Path]
"""An array, a list of arrays, the path of an image or of a folder of images, or several of these paths."""

ORDINALS = ("class", "second", "third")


@dataclass(frozen=True)
class Predicted:
    """The network's answers for N images: logits (N, K), float32, and what follows from them.

    Scores are shares among these classes: a picture of anything else gets one of them, too.
    """

    logits: NDArray[np.float32]
    class_names: tuple[str, ...]

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """The probability of each class, (N, K)."""
        return probabilities(self.logits)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The predicted class of each image, (N,)."""
        classes: NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    def top(self, count: int) -> Iterator[list[tuple[str, float]]]:
        """The most probable classes of each image and their scores, the first one first."""
        for logits, scores in zip(self.logits, self.scores, strict=True):
            best = np.argsort(-logits, kind="stable")[:count]
            yield [(self.class_names[index], float(scores[index])) for index in best]


def predict(run: Run, images: Images, *, checkpoint: Which = "last", device: str | None = None) -> Predicted:
    """The network's answers for images. See `Run.predict`."""
    prepared = prepared_images(run.config, images)
    return answers(run.trained(checkpoint, device=device or usable_device(run.config)), run.config, prepared)


def prepared_images(config: RunConfig, images: Images) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as the data set holds them, from any of the forms that `Run.predict` takes."""
    if hasattr(images, "__array__"):
        return _as_images(np.asarray(images), config.info)
    is_several = isinstance(images, Iterable) and not isinstance(images, str)
    several: list[Any] = list(images) if is_several else [images]  # type: ignore[arg-type]
    if all(isinstance(each, str | Path) for each in several):
        return _from_files(config, several)
    if all(hasattr(each, "__array__") for each in several) and len({np.shape(each) for each in several}) == 1:
        return _as_images(np.stack([np.asarray(each) for each in several]), config.info)
    kinds = ", ".join(sorted({type(each).__name__ for each in several}))
    raise ConfigError([f"images must be paths, or arrays of one shape, got {kinds}. Give one, or a list of them."])


def answers(trained: Trained, config: RunConfig, images: NDArray[np.uint8]) -> Predicted:
    """The network's answers for images (N, C, H, W) as the data set holds them, computed as an evaluation does."""
    place = next(trained.network.parameters()).device
    split = Split.on(place, np.ascontiguousarray(images), np.zeros(len(images), dtype=np.int64))
    with set_up(config.threads):
        found = evaluate(trained.network, make_evaluation_batches(split, config), precision=config.precision)
    return Predicted(found.logits.cpu().numpy(), config.info.class_names)


def _as_images(array: NDArray[Any], info: DataInfo) -> NDArray[np.uint8]:
    """Images (N, C, H, W) from any of the shapes that `Run.predict` takes."""
    channels, height, width = info.shape
    images: NDArray[np.uint8] = array[:, None] if array.ndim == 3 and channels == 1 else array
    if images.shape[1:] != info.shape and images.shape[1:] == (height, width, channels):
        images = images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8 and len(images) and images.shape[1:] == info.shape:
        return images
    grey = f", or (N, {height}, {width})" if channels == 1 else ""
    rule = f"be uint8 of shape (N, {channels}, {height}, {width}) or (N, {height}, {width}, {channels}){grey}"
    advice = "Scale them to 0 to 255, or give the paths of files, which are prepared."
    raise ConfigError([f"images must {rule}, got {array.dtype} of shape {array.shape}. {advice}"])


def _from_files(config: RunConfig, paths: Sequence[str | Path]) -> NDArray[np.uint8]:
    _, prepared, problems = Preparer(config).read_all(image_files([Path(path) for path in paths]))
    if problems:
        raise DataError(" ".join(unreadable(path, reason, "Leave it out.") for path, reason in problems.items()))
    return np.stack(prepared)


def predict_files(
    run: Run,
    paths: Sequence[Path],
    *,
    checkpoint: Which = "last",
    top: int | None = None,
    output_format: str = "table",
    save: str | None = None,
) -> int:
    """Prints the answers for files and the images in folders; returns 1 if some can't be read.

    Args:
        run: The run.
        paths: Files and folders.
        checkpoint: The weights, as for `Run.network`.
        top: How many classes to print for each; None for three, or two if there are no more.
        output_format: table, csv or json.
        save: A new folder for what the network saw, as PNG; None to keep nothing.

    Raises:
        ConfigError: If there is no image at all; also as `Run.network`.
        RunFolderError: As `Run.network`; also if the new folder can't be created.
    """
    most = run.config.info.num_classes
    top = min(3, most) if top is None else top
    if not 1 <= top <= most:
        raise ConfigError([problem("--top", f"be from 1 to {most}, the number of classes", top, "Change it.")])
    trained = run.trained(checkpoint, device=usable_device(run.config))
    good, prepared, problems = Preparer(run.config).read_all(image_files(paths))
    found = answers(trained, run.config, np.stack(prepared)) if good else None
    best = list(found.top(top)) if found else []
    text = {"table": _table, "csv": _csv, "json": _json}[output_format]
    say(*text(run, trained, good, best, problems, top))
    for path, reason in problems.items():
        complain(unreadable(path, reason))
    if save is not None and good:
        folder = claim(Path(save), advice="Give another folder with --save.").path
        for name, image in zip(numbered(good), prepared, strict=True):
            write_atomically(folder / name, pictures.png(image))
        complain(f"What the network saw: {shown(folder)}")
    return 1 if problems else 0


Best = list[list[tuple[str, float]]]


def _table(
    run: Run, trained: Trained, paths: list[Path], best: Best, problems: dict[Path, str], top: int
) -> Iterator[str]:
    yield f"{trained} of {shown(run.path)}"
    if not paths:
        return
    yield f"Confidence is a share among these {run.config.info.num_classes} classes only, whatever the picture shows."
    yield from _trust(run, trained)
    head = ["image", *(_ordinal(number) for number in range(top))]
    rows = [
        [str(path), *(f"{name} ({100 * score:.1f}%)" for name, score in each)]
        for path, each in zip(paths, best, strict=True)
    ]
    yield from aligned((head, rows)).split("\n")


def calibration_error_of(run: Run, which: Which) -> tuple[float, int] | None:
    """The expected calibration error of the run's weights on its test images, in [0, 1], and how many there are.

    None if the run has no answers of these weights: it has not completed, they are averaged ones, or they are the best
    ones and were not chosen on validation images.

    Raises:
        RunFolderError: If the file of the answers is missing or damaged.
    """
    if run.result is None or which == "ema":
        return None
    found = read_predictions(run.path) if which == "last" else read_best_predictions(run.path)
    if found is None:
        return None
    correct = (found.predicted == found.labels).tolist()
    return calibration_error(reliability(found.confidences.tolist(), correct)), len(found.labels)


def _trust(run: Run, trained: Trained) -> Iterator[str]:
    """How far to trust a confidence, if that is known."""
    try:
        if found := calibration_error_of(run, trained.which):
            error, num_images = found
            images = amount(num_images, "test image")
            yield f"On the {images} it was off by {100 * error:.1f} points (expected calibration error)."
    except RunFolderError as reason:
        yield f"How far to trust it is not known: {reason}"


def _csv(
    run: Run, trained: Trained, paths: list[Path], best: Best, problems: dict[Path, str], top: int
) -> Iterator[str]:
    head = ["image", *(f"{_ordinal(number)}{what}" for number in range(top) for what in ("", " confidence"))]
    rows = [
        [str(path), *(cell for name, score in each for cell in (name, round(score, 6)))]
        for path, each in zip(paths, best, strict=True)
    ]
    yield from csv_text(head, rows).rstrip("\n").split("\n")


def _json(
    run: Run, trained: Trained, paths: list[Path], best: Best, problems: dict[Path, str], top: int
) -> Iterator[str]:
    images = [
        {"image": str(path), "predictions": [{"class": name, "confidence": score} for name, score in each]}
        for path, each in zip(paths, best, strict=True)
    ]
    values = {
        "run": str(run.path),
        "checkpoint": trained.which,
        "epoch": trained.epoch,
        "classes": list(run.config.info.class_names),
        "calibration_error": _known_error(run, trained),
        "images": images,
        "skipped": [{"image": str(path), "reason": reason} for path, reason in problems.items()],
    }
    yield from json.dumps(values, indent=2).split("\n")


def _known_error(run: Run, trained: Trained) -> float | None:
    try:
        found = calibration_error_of(run, trained.which)
    except RunFolderError:
        return None
    return found and found[0]


def _ordinal(number: int) -> str:
    return ORDINALS[number] if number < len(ORDINALS) else f"{number + 1}th"


def numbered(paths: Sequence[Path]) -> list[str]:
    """A name of its own for a PNG of each path, in the same order when they are sorted."""
    digits = len(str(len(paths)))
    return [f"{number:0{digits}d}_{_short(path.stem)}.png" for number, path in enumerate(paths, start=1)]


def _short(name: str) -> str:
    return os.fsencode(name)[:100].decode(errors="ignore")
