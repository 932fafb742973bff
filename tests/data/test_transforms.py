from __future__ import annotations

import pytest
import torch
from torch import Tensor

from era_cnn.config.choices import TRANSFORMS
from era_cnn.data.digits import read_digits
from era_cnn.data.transforms import Pipeline
from tests.conftest import CONF_DIR
from tests.helpers import pipeline_of


@pytest.fixture(scope="module")
def images() -> Tensor:
    """500 real digits, (500, 1, 28, 28) uint8."""
    return torch.tensor(read_digits(1437).train_images[:500]).unsqueeze(1)


def test_every_transform_has_a_file_in_the_config() -> None:
    assert {path.stem for path in (CONF_DIR / "augmentation").rglob("*.yaml")} == {*TRANSFORMS, "none"}


ROTATE = {"rotate": {"degrees": 7.0, "fill": 1}}
AFFINE = {"affine": {"degrees": 7.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0, "fill": 0}}
AUGMENTATIONS = {"none": {}, "rotate": ROTATE, "affine": AFFINE, "both": {**ROTATE, **AFFINE}}


def drawn(augment: Pipeline, images: Tensor, seed: int) -> Tensor:
    """The images, changed by what a generator draws."""
    generator = torch.Generator().manual_seed(seed)
    return augment(images, torch.rand(augment.num_draws, len(images), generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_a_function_of_its_draws(name: str, images: Tensor) -> None:
    augment = pipeline_of(AUGMENTATIONS[name])
    first = drawn(augment, images, 1)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, drawn(augment, images, 1))
    other = drawn(augment, images, 2)
    assert torch.equal(first, other) == (name == "none")


@pytest.mark.parametrize("name", ["rotate", "affine", "both"])
def test_each_image_has_a_draw_of_its_own(name: str, images: Tensor) -> None:
    augment = pipeline_of(AUGMENTATIONS[name])
    same = images[:1].expand(50, -1, -1, -1).contiguous()
    augmented = drawn(augment, same, 1)
    assert len({image.numpy().tobytes() for image in augmented}) > 25  # close angles may give the same pixels


def test_no_range_means_no_change(images: Tensor) -> None:
    still = pipeline_of({"affine": {"degrees": 0.0, "translate": 0.0, "scale": [1.0, 1.0], "shear": 0.0, "fill": 9}})
    assert torch.equal(drawn(still, images, 1), images)


def test_angles_stay_within_their_range_and_fill_it() -> None:
    # A bright spot 10 px right of the centre moves along a circle: its height, 10 sin(angle), tells the angle.
    image = torch.zeros(1, 1, 29, 29, dtype=torch.uint8)
    image[0, 0, 13:16, 23:26] = 255
    rotated = drawn(pipeline_of({"rotate": {"degrees": 45.0, "fill": 0}}), image.expand(400, -1, -1, -1), 1)
    weights = rotated.squeeze(1).double()
    heights = (weights.sum(dim=2) * (torch.arange(29) - 14)).sum(dim=1) / weights.sum(dim=(1, 2))
    assert 6.5 < heights.max() < 7.6  # 10 sin(45°) = 7.07
    assert -7.6 < heights.min() < -6.5
    assert abs(heights.mean()) < 0.6
