"""Photos of handwriting become what the data sets of handwriting hold."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from era_cnn.config.choices import DATASETS
from era_cnn.config.data_info import Strokes
from era_cnn.data.digits import read_digits
from era_cnn.data.strokes import draw_strokes, is_prepared
from tests.conftest import MNIST_ROOT
from tests.use.photos import photo_of

MNIST = Strokes(size=20, centre="mass", width=2.7)
SHAPE = (28, 28)
DIGITS = read_digits(1437).test_images


def picture(
    *, paper: int = 235, ink: int = 30, size: tuple[int, int] = (200, 300), width: int = 16
) -> NDArray[np.uint8]:
    """An L of 120×60 pixels, at the upper left."""
    image = np.full(size, paper, dtype=np.uint8)
    image[20:140, 30 : 30 + width] = ink
    image[140 - width : 140, 30:90] = ink
    return image


def test_strokes_are_light_on_black_in_the_box_and_by_their_mass() -> None:
    drawn = draw_strokes(picture(), SHAPE, MNIST)
    rows, columns = np.nonzero(drawn > 60)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    assert drawn.max() > 240
    mass = drawn.astype(float)
    centre = [(mass.sum(axis=1 - axis) @ np.arange(28)) / mass.sum() for axis in (0, 1)]
    assert centre == pytest.approx([14, 14], abs=0.51)
    boxed = draw_strokes(picture(), SHAPE, Strokes(24, "box", 2.7))
    rows, columns = np.nonzero(boxed > 60)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 25, 8, 19)


def test_polarity_light_and_size_make_no_difference() -> None:
    plain = draw_strokes(picture(), SHAPE, MNIST).astype(int)
    light = np.linspace(1, 0.55, 300) * np.linspace(1, 0.8, 200)[:, None]
    noise = np.random.default_rng(1).normal(0, 5, (200, 300))
    others = {
        "chalk": picture(paper=30, ink=235),
        "faint": picture(paper=200, ink=150),
        "uneven": (picture() * light + noise).clip(0, 255).astype(np.uint8),
        "large": picture().repeat(8, axis=0).repeat(8, axis=1),
        "small": picture()[::4, ::4],
        "cropped": picture()[14:146, 24:96],
    }
    for name, other in others.items():
        difference = np.abs(draw_strokes(other, SHAPE, MNIST) - plain)
        assert difference.mean() < 9, name


def test_specks_do_not_count_and_thin_lines_are_thickened() -> None:
    specked = picture()
    specked[180:183, 280:283] = 30
    assert np.array_equal(draw_strokes(specked, SHAPE, MNIST), draw_strokes(picture(), SHAPE, MNIST))
    thin = draw_strokes(picture(width=3), SHAPE, MNIST)
    column = thin[8]
    assert 2 <= (column > 100).sum() <= 4
    assert column.max() > 200


@pytest.mark.parametrize("noise", [0, 4])
def test_an_even_picture_has_no_strokes(noise: int) -> None:
    even = np.random.default_rng(1).normal(180, noise, (90, 70)).clip(0, 255).astype(np.uint8)
    with pytest.raises(ValueError, match="no strokes: the picture is even"):
        draw_strokes(even, SHAPE, MNIST)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2), (3000, 4)])
def test_any_shape_is_drawn_or_has_no_strokes(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    with suppress(ValueError):  # no strokes
        assert draw_strokes(noise, SHAPE, MNIST).shape == SHAPE


def test_images_of_the_data_set_are_left_alone() -> None:
    assert all(is_prepared(image, SHAPE) for image in DIGITS)
    assert not is_prepared(255 - DIGITS[0], SHAPE)
    assert not is_prepared(DIGITS[0][:27], SHAPE)


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.skipif(MNIST_ROOT is None, reason="needs MNIST (ERA_CNN_DATA)")
def test_mnist_is_left_alone_and_lies_where_a_drawing_is_put() -> None:
    from era_cnn.data.idx import read_idx_data

    images = read_idx_data("mnist", Path(os.environ["ERA_CNN_DATA"])).test_images
    assert all(is_prepared(image, SHAPE) for image in images)
    for number in range(20):
        photo = np.asarray(photo_of(images[number], number)[0].convert("L"))
        if photo_of(images[number], number)[1] == 1:
            assert np.abs(draw_strokes(photo, SHAPE, MNIST).astype(int) - images[number]).mean() < 20
    middle = np.arange(28)
    mass = images.astype(float).sum(axis=0)
    assert (mass.sum(axis=1) @ middle) / mass.sum() == pytest.approx(14, abs=0.1)


def test_the_strokes_of_the_digits_are_as_declared() -> None:
    strokes = DATASETS["digits"](train_size=1437).info().strokes
    assert strokes is not None
    heights = [np.ptp(np.nonzero(image > 32)[0]) + 1 for image in DIGITS]
    assert set(heights) == {strokes.size} == {28}


HANDWRITING = {"mnist", "qmnist", "emnist", "digits"}


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("image_folder", "npz")])
def test_data_sets_of_digits_and_letters_say_how_they_were_made(name: str) -> None:
    fields = {"digits": {"train_size": 1437}, "emnist": {"root": "x", "split": "letters"}}
    info = DATASETS[name](**fields.get(name, {"root": "x"})).info()
    assert (info.strokes is not None) == (name in HANDWRITING)
    assert info.strokes is None or max(info.shape[1:]) >= info.strokes.size


def test_a_photo_is_turned_in_the_helper_of_these_tests() -> None:
    """The photos use every orientation, or a test of them would not notice one that is ignored."""
    assert {photo_of(DIGITS[0], number)[1] for number in range(12)} == {1, 3, 6, 8}
    picture, orientation = next(made for number in range(12) if (made := photo_of(DIGITS[0], number))[1] == 6)
    assert picture.size == (700, 900)
    assert isinstance(picture, Image.Image)
    assert orientation == 6
