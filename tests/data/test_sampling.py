from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomRotation
from torchvision.transforms import functional as TF

from era_cnn.data.augment import Augmentation, affine_matrices, make_augmentation, rotation_matrices, sample_nearest
from era_cnn.data.sources import read_digits


@pytest.fixture(scope="module")
def images() -> Tensor:
    """500 real digits, (500, 1, 28, 28) uint8."""
    return torch.tensor(read_digits(1437).train_images[:500]).unsqueeze(1)


def through_pillow(images: Tensor, transform) -> Tensor:
    """Applies a torchvision transform to each 8-bit image on its own."""
    done = [np.array(transform(Image.fromarray(image[0].numpy()), i)) for i, image in enumerate(images)]
    return torch.from_numpy(np.stack(done)).unsqueeze(1)


@pytest.mark.parametrize("degrees", [7.0, 180.0])
@pytest.mark.parametrize("fill", [1, 0, 255])
def test_rotation_gives_the_pixels_of_torchvision_all_of_them(images: Tensor, degrees: float, fill: int) -> None:
    angles = (torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1) * degrees
    ours = sample_nearest(images, rotation_matrices(angles, (28, 28)), fill)
    theirs = through_pillow(images, lambda image, i: TF.rotate(image, angles[i].item(), fill=fill))
    assert (ours == theirs).double().mean() == 1.0  # share of equal pixels: 100 %
    on_tensors = torch.stack([TF.rotate(image, angles[i].item(), fill=fill) for i, image in enumerate(images)])
    assert (ours == on_tensors).double().mean() >= 0.9999  # torchvision's own tensor path differs from Pillow's


def test_rotation_is_random_rotation_of_the_reference_runs(images: Tensor) -> None:
    transform = RandomRotation((-7, 7), fill=1)
    torch.manual_seed(0)
    angles = torch.tensor([transform.get_params([-7.0, 7.0]) for _ in range(500)], dtype=torch.float64)
    torch.manual_seed(0)
    theirs = through_pillow(images, lambda image, i: transform(image))
    assert torch.equal(sample_nearest(images, rotation_matrices(angles, (28, 28)), 1), theirs)


def test_affine_gives_the_pixels_of_torchvision_all_of_them(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(500, generator=generator, dtype=torch.float64) * (high - low) + low

    angles, scales, shears = uniform(-180, 180), uniform(0.5, 2), uniform(-30, 30)
    shift_x, shift_y = uniform(-9, 9).round(), uniform(-9, 9).round()
    matrices = affine_matrices(
        angles=angles, shift_x=shift_x, shift_y=shift_y, scales=scales, shears=shears, size=(28, 28)
    )
    theirs = through_pillow(
        images,
        lambda image, i: TF.affine(
            image,
            angles[i].item(),
            [int(shift_x[i]), int(shift_y[i])],
            scales[i].item(),
            [shears[i].item(), 0.0],
            fill=3,
        ),
    )
    assert (sample_nearest(images, matrices, 3) == theirs).double().mean() == 1.0


AUGMENTATIONS = {
    "none": {},
    "rotate": {"degrees": 7.0, "fill": 1},
    "affine": {"degrees": 7.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0, "fill": 0},
}


def drawn(augment: Augmentation, images: Tensor, seed: int) -> Tensor:
    """The images, changed by what a generator draws."""
    generator = torch.Generator().manual_seed(seed)
    return augment(images, torch.rand(augment.num_draws, len(images), generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_a_function_of_its_draws(name: str, images: Tensor) -> None:
    augment = make_augmentation(name, **AUGMENTATIONS[name])
    first = drawn(augment, images, 1)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, drawn(augment, images, 1))
    other = drawn(augment, images, 2)
    assert torch.equal(first, other) == (name == "none")


@pytest.mark.parametrize("name", ["rotate", "affine"])
def test_each_image_has_a_draw_of_its_own(name: str, images: Tensor) -> None:
    augment = make_augmentation(name, **AUGMENTATIONS[name])
    same = images[:1].expand(50, -1, -1, -1).contiguous()
    augmented = drawn(augment, same, 1)
    assert len({image.numpy().tobytes() for image in augmented}) > 25  # close angles may give the same pixels


def test_no_range_means_no_change(images: Tensor) -> None:
    still = make_augmentation("affine", degrees=0.0, translate=0.0, scale=[1.0, 1.0], shear=0.0, fill=9)
    assert torch.equal(drawn(still, images, 1), images)


def test_angles_stay_within_their_range_and_fill_it() -> None:
    # A bright spot 10 px right of the centre moves along a circle: its height, 10 sin(angle), tells the angle.
    image = torch.zeros(1, 1, 29, 29, dtype=torch.uint8)
    image[0, 0, 13:16, 23:26] = 255
    rotated = drawn(make_augmentation("rotate", degrees=45.0, fill=0), image.expand(400, -1, -1, -1), 1)
    weights = rotated.squeeze(1).double()
    heights = (weights.sum(dim=2) * (torch.arange(29) - 14)).sum(dim=1) / weights.sum(dim=(1, 2))
    assert 6.5 < heights.max() < 7.6  # 10 sin(45°) = 7.07
    assert -7.6 < heights.min() < -6.5
    assert abs(heights.mean()) < 0.6
