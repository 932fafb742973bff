"""Geometric transforms of whole batches, on their device: the source of each pixel, and the sampling.

Nearest-neighbour sampling in 16.16 fixed point, as in Pillow, so that the pixels equal those that torchvision's
transforms give for the 8-bit image.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ONE = 1 << 16  # 1 in 16.16 fixed point


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
    """For each image, where each pixel comes from, with parameters as in torchvision's `RandomAffine`.

    The inverse of translate · centre · rotate · shear · scale · back, in closed form.

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
    """Each new pixel is the old one at its centre's source, or `fill` if that is outside the image.

    Args:
        images: (B, C, H, W), uint8, on any device.
        matrices: (B, 2, 3), float64, on the CPU.
        fill: Value of every channel, 0 to 255.

    Returns:
        (B, C, H, W), uint8, on the device of the images.
    """
    count, channels, height, width = images.shape
    # Pillow rounds the six numbers to fixed point, then adds; the centre of pixel (0, 0) is (0.5, 0.5).
    linear = matrices[:, :, :2]
    start_at_centre = torch.cat([linear, matrices[:, :, 2:] + linear.sum(dim=2, keepdim=True) / 2], dim=2)
    fixed = torch.floor(start_at_centre * _ONE + 0.5).to(torch.int64).to(images.device)
    columns = torch.arange(width, device=images.device)
    rows = torch.arange(height, device=images.device).view(-1, 1)
    step_x, step_y, start = (fixed[:, :, i].view(count, 2, 1, 1) for i in range(3))
    source = (step_x * columns + step_y * rows + start) >> 16  # (B, 2, H, W)
    x, y = source[:, 0], source[:, 1]
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).unsqueeze(1)
    index = torch.where(inside, (y * width + x).unsqueeze(1), 0).view(count, 1, -1).expand(-1, channels, -1)
    pixels = images.reshape(count, channels, -1).gather(2, index).view(images.shape)
    return torch.where(inside, pixels, fill).to(torch.uint8)
