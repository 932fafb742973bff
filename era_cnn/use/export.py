"""Exports a trained network to files that need neither era_cnn nor the run, and verifies them on the test set.

The files take images as they are stored: uint8 (N, C, H, W), 0 to 255, in batches of any size N. Normalisation is part
of the exported network, so that nobody has to repeat it with the right numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import era_cnn
from era_cnn.config.schema import RunConfig
from era_cnn.data.batches import Normalise, Split
from era_cnn.errors import ConfigError, ExportError, one_of, problem
from era_cnn.folders.claims import claim
from era_cnn.folders.storage import write_atomically
from era_cnn.folders.stored import read_config, run_folder
from era_cnn.runs.parts import make_evaluation_batches, read_data
from era_cnn.training.evaluate import evaluate
from era_cnn.training.fingerprint import weights_sha256
from era_cnn.use.formats import FORMATS, Format, attempt, trace

if TYPE_CHECKING:
    from era_cnn.use.network import Run

OPSETS = range(18, 24)
"""The versions of ONNX's operators that every supported PyTorch can write."""

DEFAULT_OPSET = 20

BATCH_SIZES = (1, 2, 7)
"""The sizes of the batches with which a file is verified, besides that of the run's evaluation batches."""

TOLERANCE = 1e-4
"""The largest difference between logits, as a fraction of the largest logit; rounding alone makes about 1e-6."""

PILLOW_CHANNELS = (1, 3)
"""The numbers of channels for which the script can open image files."""


@dataclass(frozen=True)
class Verified:
    """How the logits of a file differ from those of the network over the test set; its accuracy, in [0, 1]."""

    num_images: int
    max_difference: float
    num_changed: int
    """The images with another predicted class: none, unless their largest logits are equal but for rounding."""

    accuracy: float


@dataclass(frozen=True)
class Export:
    """The folder of an export, and how each file in it was verified."""

    path: Path
    verified: dict[str, Verified]


def export(
    run: Run,
    to: Path | None = None,
    *,
    checkpoint: str = "last",
    formats: Sequence[str] = ("onnx", "torch"),
    opset: int | None = None,
    data_root: str | None = None,
) -> Export:
    """Writes the trained network of a run to a new folder, each file verified on the whole test set.

    Args:
        run: The run; its folder is only read.
        to: The folder to create; if it exists, a number is added to its name. None for `exports/<name of the run>`.
        checkpoint: Which weights: last, best or ema; see `Run.network`.
        formats: Names of `FORMATS`.
        opset: The version of ONNX's operators, one of `OPSETS`; None for the default.
        data_root: Where the data is now, if it was moved.

    Raises:
        ConfigError: If a format is not known or its packages are missing, or an argument is wrong.
        DataError: If the test images are missing or damaged.
        ExportError: If the network can't be exported, or a file gives other logits; then nothing is left behind.
        RunFolderError: If there is no such checkpoint, or no folder can be created there.
        StorageError: If a file can't be written.
    """
    _check(formats, opset)
    to = Path("exports", run.path.name) if to is None else to
    if run.path in (to.absolute(), *to.absolute().parents):
        raise ConfigError([problem("--to", "be outside the folder of the run", str(to), "Choose another folder.")])
    network = run.network(checkpoint)  # type: ignore[arg-type]
    config = read_config(run_folder(run.path), data_root).config
    arrays = read_data(config)
    test = Split.on(torch.device("cpu"), arrays.test_images, arrays.test_labels)
    logits = evaluate(network, make_evaluation_batches(test, config)).logits.numpy()
    claimed = claim(to, advice="Choose another folder with --to.")
    try:
        program = trace(network, Normalise(*config.data.normalisation), config.info)
        verified = {}
        for each in map(FORMATS.__getitem__, formats):
            path = claimed.path / each.file
            write_atomically(path, attempt(each.file, each.content, program, opset or DEFAULT_OPSET))
            verified[each.file] = verify(path, each, test, logits, large=config.trainer.eval_batch_size)
        about = _described(config, network, verified)
        about |= {"run": run.path.name, "checkpoint": checkpoint}
        about |= {"opset": (opset or DEFAULT_OPSET) if "onnx" in formats else None}
        _write_guide(claimed.path, about)
        return Export(claimed.path, verified)
    except BaseException:
        claimed.give_back()
        raise


def _check(formats: Sequence[str], opset: int | None) -> None:
    """Raises a `ConfigError` unless the formats are known, their packages are installed, and the opset is possible."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError([problem("--format", one_of(FORMATS), name, "Choose one.")])
        if missing := [package for package in FORMATS[name].packages if find_spec(package) is None]:
            rule = f"--format={name} must have its packages installed, got no {', '.join(missing)}"
            raise ConfigError([f"{rule}. Install them: pip install 'era_cnn[export]', or choose --format=torch."])
    if opset is not None and "onnx" not in formats:
        raise ConfigError([problem("--opset", "go with --format=onnx", opset, "Leave it out.")])
    if opset is not None and opset not in OPSETS:
        rule = f"be from {OPSETS[0]} to {OPSETS[-1]}"
        raise ConfigError([problem("--opset", rule, opset, f"The default is {DEFAULT_OPSET}.")])


def verify(path: Path, form: Format, test: Split, logits: NDArray[np.float32], *, large: int) -> Verified:
    """Runs a file on every test image, in batches of 1, 2, 7 and `large` images in turn.

    Args:
        path: The file.
        form: Its format.
        test: The test images.
        logits: The network's logits for them, (N, K).
        large: The size of every fourth batch.

    Raises:
        ExportError: If its logits differ by more than rounding, or it can't be run.
    """
    sizes = (*BATCH_SIZES, large)
    order = np.arange(max(len(test), sum(sizes))) % len(test)  # a small test set is repeated until each size occurs
    starts = np.cumsum(np.tile(sizes, len(order) // sum(sizes) + 1))
    batches = np.split(order, starts[starts < len(order)])
    run = attempt(path.name, form.load, path)
    found = np.concatenate([attempt(path.name, run, _images(test, batch)) for batch in batches])
    difference = float(np.abs(found - logits[order]).max())
    predicted = found[: len(test)].argmax(axis=1)
    num_changed = int((predicted != logits.argmax(axis=1)).sum())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(logits).max())):  # or it is no number
        got = f"a difference of {difference:.2g} and {num_changed:,} other predictions for {len(test):,} test images"
        raise ExportError(f"{path.name} must give the network's logits, got {got}. Export it with another PyTorch.")
    return Verified(len(test), difference, num_changed, float((predicted == test.labels.numpy()).mean()))


def _images(test: Split, batch: NDArray[np.int64]) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = test.at(torch.from_numpy(batch)).images.numpy()
    return images


def _described(config: RunConfig, network: nn.Module, verified: dict[str, Verified]) -> dict[str, Any]:
    """What export.json says about the network and its files."""
    mean, std = config.data.normalisation
    packages = {package for each in FORMATS.values() if each.file in verified for package in each.packages}
    return {
        "schema": 1,
        "experiment": config.name,
        "weights_sha256": weights_sha256(network),
        "class_names": list(config.info.class_names),
        "input": {"name": "images", "dtype": "uint8", "shape": ["N", *config.info.shape]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["N", config.info.num_classes]},
        "normalisation_within": {"scale": 255, "mean": mean, "std": std},
        "verified": {name: asdict(each) for name, each in verified.items()},
        "versions": {"era_cnn": era_cnn.__version__, **{name: version(name) for name in ("torch", *sorted(packages))}},
    }


def _write_guide(folder: Path, about: dict[str, Any]) -> None:
    """Writes the README, the script if it can be of use, and export.json, which is the last file."""
    texts = resources.files("era_cnn.use") / "exported"
    has_script = about["opset"] is not None and about["input"]["shape"][1] in PILLOW_CHANNELS
    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    readme = jinja.from_string((texts / "README.md").read_text(encoding="utf-8"))
    write_atomically(folder / "README.md", readme.render(about, has_script=has_script).encode())
    if has_script:
        write_atomically(folder / "run_onnx.py", (texts / "run_onnx.py").read_bytes())
    write_atomically(folder / "export.json", (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
