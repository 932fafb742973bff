from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import era_cnn
from era_cnn.data.digits import read_digits
from era_cnn.use.network import Run
from tests.data.folders import make_folder

OPTIONS = ("threads=1", "device=cpu", "report=false")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that reads digits, with validation images and averaged weights; the best epoch is not the last one."""
    words = [
        "experiment=model_4_digits",
        *OPTIONS,
        "data.val_size=100",
        "trainer.ema_decay=0.9",
        "trainer.limit_epochs=4",
    ]
    return era_cnn.train(words, folder=tmp_path_factory.mktemp("trained") / "digits", quiet=True)


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A network for colour photos of 28×32 pixels from files of another size and shape; and their folder."""
    place = tmp_path_factory.mktemp("colour")
    counts = {"train/cat": 6, "train/dog": 6, "test/cat": 3, "test/dog": 4}
    folder = make_folder(place / "images", counts, size=(31, 20))
    words = [
        "data=image_folder", f"data.root={folder}", "data.size=[28,32]", "trainer=smoke", "trainer.batch_size=4", *OPTIONS,
        "+model.layers.gap.projection=conv", "target.max_params=null", "augmentation=horizontal_flip",
    ]  # fmt: skip
    return era_cnn.train(words, folder=place / "run", quiet=True), folder


@pytest.fixture(scope="session")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each test image of the digits as PNG, in order."""
    folder = tmp_path_factory.mktemp("pngs")
    for number, image in enumerate(read_digits(1437).test_images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder
