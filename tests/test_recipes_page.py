"""Every line and every file of docs/recipes.md trains: it is composed, built as a run builds it, and takes its steps."""

from __future__ import annotations

import math
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from era_cnn.compose.composition import compose, validated
from era_cnn.compose.words import Words
from era_cnn.config.choices import BLOCKS, OPTIMIZERS, SCHEDULERS, TRANSFORMS, Registry
from era_cnn.config.schema import RunConfig
from era_cnn.data.arrays import Arrays
from era_cnn.models.build import check_network
from era_cnn.runs.parts import make_parts
from era_cnn.runs.run import epochs_of
from era_cnn.runs.stopping import StopRequest
from era_cnn.training.history import History
from era_cnn.training.listeners import Listeners
from era_cnn.training.loop import Position
from tests.data.folders import TWO_SPLITS, make_folder
from tests.helpers import slow_but_first

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
FILES = dict(re.findall(r'```yaml title="my_conf/(\S+)"\n(.*?)```', PAGE, re.DOTALL))
UNREMARKABLE = {
    "constant",
    "rotate",
    "vertical_flip",
    "invert",
    "max_pool",
    "avg_pool",
    "blur_pool",
    "norm",
    "activation",
}
"""What needs no translation."""

QUICK = ["threads=1", "trainer.limit_epochs=1", "trainer.limit_train_images=20", "trainer.limit_test_images=20",
         "trainer.batch_size=10"]  # fmt: skip


@cache
def noise(shape: tuple[int, ...], num_classes: int) -> Arrays:
    """Images of random pixels: enough of them to split 100 off."""
    rng = np.random.default_rng(0)
    labels = [rng.permutation(np.arange(count) % num_classes) for count in (200, 20)]
    images = [rng.integers(0, 256, (len(each), *shape), dtype=np.uint8) for each in labels]
    return Arrays(images[0], labels[0], images[1], labels[1])


def losses(config: RunConfig) -> list[float]:
    """The training losses of a short epoch, by the parts and the loop of a run."""
    check_network(config)
    parts = make_parts(config, noise(config.info.shape, config.info.num_classes), torch.device("cpu"))
    epochs = epochs_of(config, parts, History(), Position(), StopRequest(), Listeners((), warn=print))
    return [metrics.train_loss for metrics in epochs]


def test_the_page_has_its_lines() -> None:
    assert len(COMMANDS) >= 60
    assert all(line.startswith("era-cnn ") for line in COMMANDS)
    assert len(FILES) == PAGE.count("```yaml") >= 5


@pytest.mark.parametrize("line", slow_but_first(COMMANDS))
def test_every_line_trains(line: str) -> None:
    make_folder(Path("my_images"), TWO_SPLITS)
    words = shlex.split(line.replace("data.val_size=5000", "data.val_size=100"))[1:]
    config = validated(compose(Words([*words, *QUICK])))
    assert all(map(math.isfinite, losses(config)))


@pytest.mark.parametrize("path", FILES)
def test_every_file_trains(path: str, tmp_path: Path) -> None:
    file = tmp_path / "own" / path
    file.parent.mkdir(parents=True)
    file.write_text(FILES[path], encoding="utf-8")
    chosen = [f"{file.parent.name}={file.stem}", *(["~experiment"] if file.parent.name == "model" else [])]
    config = validated(compose(Words([*chosen, *QUICK], config_dir=str(tmp_path / "own"))))
    assert all(map(math.isfinite, losses(config)))


@pytest.mark.parametrize("registry", [SCHEDULERS, OPTIMIZERS, TRANSFORMS, BLOCKS], ids=lambda each: each.kind)
def test_the_page_shows_every_choice(registry: Registry[Any]) -> None:
    missing = {name for name in registry if not re.search(rf"\b{name}\b", PAGE)}
    assert missing <= UNREMARKABLE
