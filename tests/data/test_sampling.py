from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomRotation
from torchvision.transforms import functional as TF

from era_cnn.data.digits import read_digits
from era_cnn.data.sampling import affine_matrices, affine_sources, rotation_matrices, sample
from tests.helpers import affine_by_torchvision, through_pillow


@pytest.fixture(scope="module")
def images() -> Tensor:
    """500 real digits, (500, 1, 28, 28) uint8."""
    return torch.tensor(read_digits(1437).train_images[:500]).unsqueeze(1)


def moved(images: Tensor, matrices: Tensor, fill: int) -> Tensor:
    return sample(images, affine_sources(matrices, images.shape[-2:], images.device), fill=fill)


@pytest.mark.parametrize("degrees", [7.0, 180.0])
@pytest.mark.parametrize("fill", [1, 0, 255])
def test_rotation_gives_the_pixels_of_torchvision_all_of_them(images: Tensor, degrees: float, fill: int) -> None:
    angles = (torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1) * degrees
    ours = moved(images, rotation_matrices(angles, (28, 28)), fill)
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
    assert torch.equal(moved(images, rotation_matrices(angles, (28, 28)), 1), theirs)


def test_affine_gives_the_pixels_of_torchvision_all_of_them(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(500, generator=generator, dtype=torch.float64) * (high - low) + low

    angles, scales, shears = uniform(-180, 180), uniform(0.5, 2), uniform(-30, 30)
    shift_x, shift_y = uniform(-9, 9).round(), uniform(-9, 9).round()
    matrices = affine_matrices(
        angles=angles,
        shift_x=shift_x,
        shift_y=shift_y,
        scales=scales,
        shear_x=shears,
        shear_y=0 * shears,
        size=(28, 28),
    )
    theirs = affine_by_torchvision(
        images, angles=angles, shift_x=shift_x, shift_y=shift_y, scales=scales, shears=shears, fill=3
    )
    assert (moved(images, matrices, 3) == theirs).double().mean() == 1.0


@pytest.mark.parametrize(("scale", "dtype"), [(1.0, torch.int32), (1e-5, torch.int64)])
def test_sources_are_as_wide_as_they_must_be_and_never_wrap(scale: float, dtype: torch.dtype) -> None:
    matrices = torch.tensor([[[1 / scale, 0.0, 3.0], [0.0, 1 / scale, 5.0]]], dtype=torch.float64)
    sources = affine_sources(matrices, (28, 20), torch.device("cpu"))
    assert sources.dtype == dtype
    x = torch.floor(((torch.arange(20) + 0.5) / scale + 3) * 2**16).long()
    y = torch.floor(((torch.arange(28) + 0.5) / scale + 5) * 2**16).long()
    assert torch.equal(sources[0, 0, 7].long(), x)
    assert torch.equal(sources[0, 1, :, 7].long(), y)
