"""Augmentation of whole batches at once, on their device, with random numbers for each image.

Nearest-neighbour sampling in 16.16 fixed point, as Pillow does it, so that the pixels are those that torchvision's
transforms give on the 8-bit image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """From images (B, 1, H, W) uint8, on any device, to images of the same kind.

    `num_draws` is how many random numbers an image takes, and `change` what is made of the images and of those numbers,
    (num_draws, B), uniform in [0, 1), float64 on the CPU.
    """

    num_draws: int
    change: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Changes each image as its column of the draws says."""
        return self.change(images, draws)


_ONE = 1 << 16  # 1 in 16.16 fixed point


def make_augmentation(name: str, **options: float | list[float]) -> Augmentation:
    """The augmentation called `name`: none, rotate or affine."""
    return _MAKERS[name](**options)


def none() -> Augmentation:
    """The images as they are; draws nothing."""
    return Augmentation(0, lambda images, draws: images)


def rotate(*, degrees: float, fill: int) -> Augmentation:
    """A rotation about the centre by an angle uniform in [-degrees, degrees]."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        angles = _between(draws[0], -degrees, degrees)
        return sample_nearest(images, rotation_matrices(angles, images.shape[-2:]), fill)

    return Augmentation(1, change)


def affine(*, degrees: float, translate: float, scale: list[float], shear: float, fill: int) -> Augmentation:
    """Rotation, translation (whole pixels), scaling and horizontal shear, each uniform in its range."""

    def change(images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        matrices = affine_matrices(
            angles=_between(draws[0], -degrees, degrees),
            shift_x=_between(draws[1], -translate * width, translate * width).round(),
            shift_y=_between(draws[2], -translate * height, translate * height).round(),
            scales=_between(draws[3], scale[0], scale[1]),
            shears=_between(draws[4], -shear, shear),
            size=(height, width),
        )
        return sample_nearest(images, matrices, fill)

    return Augmentation(5, change)


_MAKERS: dict[str, Callable[..., Augmentation]] = {"none": none, "rotate": rotate, "affine": affine}


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return draws * (high - low) + low


def rotation_matrices(angles: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """For each angle in degrees, counter-clockwise, where each pixel comes from: (B, 2, 3), float64."""
    zeros, ones = torch.zeros_like(angles), torch.ones_like(angles)
    return affine_matrices(angles=-angles, shift_x=zeros, shift_y=zeros, scales=ones, shears=zeros, size=size)


def affine_matrices(
    *,
    angles: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    scales: Tensor,
    shears: Tensor,
    size: torch.Size | tuple[int, int],
) -> Tensor:
    """For each image, where each pixel comes from, as torchvision's `RandomAffine` means its parameters.

    The inverse of translate · centre · rotate · shear · scale · back, written out.

    Args:
        angles: Clockwise, in degrees, shape (B,).
        shift_x: To the right, in pixels.
        shift_y: Downward, in pixels.
        scales: Above 1 enlarges.
        shears: Along x, in degrees.
        size: Height and width of the images.

    Returns:
        (B, 2, 3), float64: x and y in the old image for (x, y, 1) in the new one.
    """
    rotation, shear = torch.deg2rad(angles), torch.deg2rad(shears)
    centre_x, centre_y = size[1] / 2, size[0] / 2
    # Rotation · shear along x, inverted: both have determinant 1.
    a, b = rotation.cos(), -rotation.cos() * shear.tan() - rotation.sin()
    c, d = rotation.sin(), -rotation.sin() * shear.tan() + rotation.cos()
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / scales.view(-1, 1, 1)
    new_centre = torch.stack([centre_x + shift_x, centre_y + shift_y], dim=1).unsqueeze(2)
    old_centre = torch.tensor([[centre_x], [centre_y]], dtype=linear.dtype)
    return torch.cat([linear, old_centre - linear @ new_centre], dim=2)


def sample_nearest(images: Tensor, matrices: Tensor, fill: int) -> Tensor:
    """Each new pixel is the old one that its centre falls on; `fill` where that lies outside.

    Args:
        images: (B, 1, H, W), uint8, on any device.
        matrices: (B, 2, 3), float64, on the CPU.
        fill: Grey value, 0 to 255.

    Returns:
        (B, 1, H, W), uint8, on the device of the images.
    """
    count, _, height, width = images.shape
    # Pillow rounds the six numbers to fixed point, then adds; the centre of pixel (0, 0) is (0.5, 0.5).
    linear = matrices[:, :, :2]
    start_at_centre = torch.cat([linear, matrices[:, :, 2:] + linear.sum(dim=2, keepdim=True) / 2], dim=2)
    fixed = torch.floor(start_at_centre * _ONE + 0.5).to(torch.int64).to(images.device)
    columns = torch.arange(width, device=images.device)
    rows = torch.arange(height, device=images.device).view(-1, 1)
    step_x, step_y, start = (fixed[:, :, i].view(count, 2, 1, 1) for i in range(3))
    source = (step_x * columns + step_y * rows + start) >> 16  # (B, 2, H, W)
    x, y = source[:, 0], source[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = torch.where(inside, y * width + x, 0).view(count, -1)
    pixels = images.view(count, -1).gather(1, index).view(images.shape)
    return torch.where(inside.unsqueeze(1), pixels, fill).to(torch.uint8)
