"""What holds for every transform."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from era_cnn.config.choices import TRANSFORMS
from era_cnn.config.data_info import DataInfo
from era_cnn.data.noise import blurred, hashed, normal, uniform
from era_cnn.data.sampling import affine_sources, rotation_matrices, sample
from tests.conftest import CONF_DIR
from tests.data.transforms.references import GREY, Example
from tests.data.transforms.test_pixels import CASES, draws_of, images_of, pipeline_of


@pytest.mark.parametrize(("example", "info"), CASES)
def test_an_image_is_transformed_the_same_alone_and_in_a_batch(example: Example, info: DataInfo) -> None:
    pipeline = pipeline_of(example, info, probability=0.7)
    images, draws = images_of(info, 9), draws_of(pipeline, 9)
    together = pipeline(images, draws)
    for i in range(9):
        assert torch.equal(pipeline(images[[i]], draws[:, [i]]), together[[i]])


@pytest.mark.parametrize(("example", "info"), CASES)
def test_each_image_has_parameters_of_its_own(example: Example, info: DataInfo) -> None:
    pipeline = pipeline_of(example, info)
    images = images_of(info, 1).expand(40, -1, -1, -1)
    different = {image.numpy().tobytes() for image in pipeline(images, draws_of(pipeline, 40))}
    assert len(different) > 4 if pipeline.num_draws else len(different) == 1


@pytest.mark.parametrize(("example", "info"), CASES)
def test_images_keep_their_shape_and_the_originals_stay_as_they_are(example: Example, info: DataInfo) -> None:
    pipeline = pipeline_of(example, info, probability=0.5)
    images = images_of(info, 20)
    before = images.clone()
    changed = pipeline(images, draws_of(pipeline, 20))
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("example", "info"), CASES)
def test_the_probability_decides_which_images_are_transformed(example: Example, info: DataInfo) -> None:
    always, half, never = (pipeline_of(example, info, probability=probability) for probability in (1.0, 0.5, 0.0))
    assert (half.num_draws, never.num_draws) == (1 + always.num_draws,) * 2
    images, draws = images_of(info, 200), draws_of(half, 200)
    transformed = always(images, draws[1:])
    assert torch.equal(never(images, draws), images)
    chosen = draws[0] < 0.5
    assert 70 < chosen.sum() < 130
    assert torch.equal(half(images, draws), torch.where(chosen.view(-1, 1, 1, 1), transformed, images))


POLICIES = {"rand_augment", "trivial_augment", "auto_augment"}
MOVING = [
    case
    for case in CASES
    if {"padding_mode", "interpolation"} & case.values[0].fields.keys() and case.values[0].name not in POLICIES
]


@pytest.mark.parametrize(("example", "info"), MOVING)
def test_a_uniform_image_with_the_same_fill_stays_uniform(example: Example, info: DataInfo) -> None:
    fills = {"fill": 77} if "fill" in TRANSFORMS.section(example.name).model_fields else {}
    pipeline = pipeline_of(Example(example.name, {**example.fields, **fills}, example.reference), info)
    images = torch.full((30, *info.shape), 77, dtype=torch.uint8)
    assert torch.equal(pipeline(images, draws_of(pipeline, 30)), images)


def test_enough_transforms_move_pixels() -> None:
    assert {case.values[0].name for case in MOVING} >= {"rotate", "affine", "perspective", "elastic", "random_crop"}


@pytest.mark.parametrize("name", sorted(set(TRANSFORMS)))
def test_the_config_file_of_a_transform_has_every_key(name: str) -> None:
    values: dict[str, Any] = yaml.safe_load((CONF_DIR / "augmentation" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert values[name].keys() == TRANSFORMS.section(name).model_fields.keys() - {"transform"}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("length", [8, 9])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact_for_even_and_odd_sizes(quarters: int, length: int, interpolation: str) -> None:
    images = images_of(DataInfo((3, length, length), ("a", "b"), train_size=2, test_size=1), 5)
    matrices = rotation_matrices(torch.full((5,), 90.0 * quarters, dtype=torch.float64), (length, length))
    sources = affine_sources(matrices, (length, length), images.device)
    turned = sample(images, sources, interpolation=interpolation, fill=0)
    assert torch.equal(turned, images.rot90(quarters, (2, 3)))


def test_the_hash_gives_the_same_numbers_everywhere() -> None:
    """Its integers decide pixels, so another value here changes the result of every run with noise."""
    numbers = hashed(torch.tensor([0.0, 0.25], dtype=torch.float64), 3, torch.device("cpu"))
    assert numbers.tolist() == HASHED


HASHED = [[2926543089, 587614100, 3611133913], [4103750810, 2924331023, 3778070773]]


def test_hashed_numbers_are_uniform_and_unrelated() -> None:
    draws = torch.arange(400, dtype=torch.float64) / 400
    bits = torch.stack([hashed(draws, 500, torch.device("cpu")) >> bit & 1 for bit in range(32)]).double()
    assert (bits.mean(dim=(1, 2)) - 0.5).abs().max() < 0.006  # 5 standard deviations of 200,000 coins
    numbers = uniform(draws, (500,), torch.device("cpu"))
    assert numbers.abs().max() < 1
    neighbours = (numbers[:, 1:] * numbers[:, :-1]).mean(), (numbers[1:] * numbers[:-1]).mean()
    assert max(map(abs, neighbours)) < 0.004  # 5 standard deviations: 1/3 / sqrt(200,000) each


def test_normal_numbers_have_the_moments_of_the_normal_distribution() -> None:
    numbers = normal(torch.arange(100, dtype=torch.float64) / 100, (3, 40, 50), torch.device("cpu")).double()
    assert abs(numbers.mean()) < 0.01
    assert abs((numbers**2).mean() - 1) < 0.01
    assert abs((numbers**4).mean() - 3) < 0.05


def test_a_blur_of_floats_is_that_of_torchvision() -> None:
    from torchvision.transforms.v2 import functional as F

    values: Tensor = images_of(GREY, 4).float() / 255
    ours = blurred(values, torch.tensor([0.7, 1.0, 2.0, 3.0], dtype=torch.float64), 9)
    theirs = torch.stack(
        [F.gaussian_blur(image, [9, 9], [sigma] * 2) for image, sigma in zip(values, (0.7, 1, 2, 3), strict=True)]
    )
    assert torch.allclose(ours, theirs, atol=1e-6)
