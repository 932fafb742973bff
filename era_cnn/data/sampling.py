"""Geometric transforms of whole batches, on their device: where each pixel comes from, and the sampling.

Sources are (x, y) in the old image for the centre of each new pixel, in 16.16 fixed point as in Pillow; the centre of
pixel (0, 0) is at (0.5, 0.5). Whole numbers give the same pixels on every device, and nearest-neighbour sampling gives
those of torchvision's transforms of 8-bit Pillow images.

Shapes: B images, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ONE = 1 << 16  # 1 in 16.16 fixed point
_FRACTION_BITS = 11  # of the weights of bilinear sampling: their products with 255 fit into 32 bits

Size = torch.Size | tuple[int, int]
"""Height and width."""


def rotation_matrices(angles: Tensor, size: Size) -> Tensor:
    """For each angle in degrees, counter-clockwise, where each pixel comes from: (B, 2, 3), float64."""
    zeros = torch.zeros_like(angles)
    return affine_matrices(
        angles=-angles, shift_x=zeros, shift_y=zeros, scales=zeros + 1, shear_x=zeros, shear_y=zeros, size=size
    )


def affine_matrices(
    *,
    angles: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    scales: Tensor,
    shear_x: Tensor,
    shear_y: Tensor,
    size: Size,
    centre: tuple[float, float] | None = None,
) -> Tensor:
    """For each image, where each pixel comes from, with parameters as in torchvision's `RandomAffine`.

    The inverse of translate · centre · rotate · shear along y · shear along x · scale · back, in closed form.

    Args:
        angles: Clockwise, in degrees, shape (B,).
        shift_x: To the right, in pixels.
        shift_y: Downward, in pixels.
        scales: Above 1 enlarges.
        shear_x: Along x, in degrees.
        shear_y: Along y, in degrees.
        size: Height and width of the images.
        centre: The fixed point as (x, y) in pixels; by default the centre of the image.

    Returns:
        (B, 2, 3), float64: x and y in the old image for (x, y, 1) in the new one.
    """
    rotation, along_x, along_y = (torch.deg2rad(each) for each in (angles, shear_x, shear_y))
    centre_x, centre_y = centre or (size[1] / 2, size[0] / 2)
    # Rotation · shear along y · shear along x, inverted: each has determinant 1.
    turned, stretch = rotation - along_y, along_y.cos()
    a, b = turned.cos() / stretch, -turned.cos() * along_x.tan() / stretch - rotation.sin()
    c, d = turned.sin() / stretch, -turned.sin() * along_x.tan() / stretch + rotation.cos()
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / scales.view(-1, 1, 1)
    new_centre = torch.stack([centre_x + shift_x, centre_y + shift_y], dim=1).unsqueeze(2)
    old_centre = torch.tensor([[centre_x], [centre_y]], dtype=linear.dtype)
    return torch.cat([linear, old_centre - linear @ new_centre], dim=2)


def affine_sources(matrices: Tensor, size: Size, device: torch.device) -> Tensor:
    """The sources (B, 2, H, W) for matrices (B, 2, 3), float64 on the CPU."""
    # Pillow rounds the six numbers to fixed point, then adds.
    linear = matrices[:, :, :2]
    start_at_centre = torch.cat([linear, matrices[:, :, 2:] + linear.sum(dim=2, keepdim=True) / 2], dim=2)
    fixed = torch.floor(start_at_centre * _ONE + 0.5).to(torch.int64)
    furthest = fixed.abs() @ torch.tensor([size[1], size[0], 1])
    fits = bool((furthest < 2**31 - _ONE).all())
    dtype = torch.int32 if fits else torch.int64  # the same numbers in half the memory
    fixed = fixed.to(device, dtype)
    columns = torch.arange(size[1], dtype=dtype, device=device)
    rows = torch.arange(size[0], dtype=dtype, device=device).view(-1, 1)
    step_x, step_y, start = (fixed[:, :, i].view(-1, 2, 1, 1) for i in range(3))
    return step_x * columns + (step_y * rows + start)


def perspective_matrices(old: Tensor, new: Tensor) -> Tensor:
    """The homographies (B, 3, 3), float64, that map four new corners to the old ones; both (B, 4, 2) as (x, y)."""
    x, y = new.unbind(dim=2)
    zeros, ones = torch.zeros_like(x), torch.ones_like(x)
    for_x = torch.stack([x, y, ones, zeros, zeros, zeros, -old[:, :, 0] * x, -old[:, :, 0] * y], dim=2)
    for_y = torch.stack([zeros, zeros, zeros, x, y, ones, -old[:, :, 1] * x, -old[:, :, 1] * y], dim=2)
    solved = torch.linalg.solve(torch.cat([for_x, for_y], dim=1), torch.cat([old[:, :, 0], old[:, :, 1]], dim=1))
    solved = solved.to(torch.float32).to(torch.float64)  # as torchvision rounds them
    return torch.cat([solved, solved.new_ones(len(solved), 1)], dim=1).view(-1, 3, 3)


def perspective_sources(matrices: Tensor, size: Size, device: torch.device) -> Tensor:
    """The sources (B, 2, H, W) for homographies (B, 3, 3), float64 on the CPU."""
    matrices = matrices.to(device, torch.float64 if device.type != "mps" else torch.float32)
    columns = torch.arange(size[1], device=device) + 0.5
    rows = (torch.arange(size[0], device=device) + 0.5).view(-1, 1)
    step_x, step_y, start = (matrices[:, :, i].view(-1, 3, 1, 1) for i in range(3))
    x, y, depth = (step_x * columns + step_y * rows + start).unbind(dim=1)
    sources = torch.stack([x / depth, y / depth], dim=1).clamp(-1e6, 1e6)  # the horizon is infinitely far away
    return torch.floor(sources * _ONE).to(torch.int64)


def displaced_sources(shifts: Tensor) -> Tensor:
    """The sources (B, 2, H, W) where each pixel comes from beside itself; shifts (B, 2, H, W), as (x, y) in pixels."""
    height, width = shifts.shape[2:]
    columns = torch.arange(width, device=shifts.device).expand(height, -1)
    rows = torch.arange(height, device=shifts.device).view(-1, 1).expand(-1, width)
    return torch.stack([columns, rows]) * _ONE + _ONE // 2 + torch.floor(shifts * _ONE).to(torch.int64)


def box_sources(boxes: Tensor, size: Size, device: torch.device) -> Tensor:
    """The sources (B, 2, H, W) that stretch a box of each image over the whole image.

    Nothing is read from outside the box: its border pixels continue beyond their centres, as in torchvision's `resize`.

    Args:
        boxes: Top, left, height and width in whole pixels, (B, 4), int64, on the CPU. A box may reach beyond
            the image.
        size: Height and width of the images.
        device: Where the sources are needed.
    """
    top, left, height, width = boxes.view(-1, 4, 1).unbind(dim=1)
    y, x = (each.to(device) for each in (_along(top, height, size[0]), _along(left, width, size[1])))
    return torch.stack([x.unsqueeze(1).expand(-1, size[0], -1), y.unsqueeze(2).expand(-1, -1, size[1])], dim=1)


def _along(start: Tensor, length: Tensor, count: int) -> Tensor:
    """The sources (B, count) along one axis; start and length (B, 1)."""
    step = length.double() / count
    within = torch.cat([step / 2, step.expand(-1, count - 1)], dim=1).cumsum(dim=1)  # step by step, as Pillow
    fixed = torch.floor(within * _ONE).long().clamp(min=_ONE // 2)
    return start * _ONE + torch.minimum(fixed, length * _ONE - _ONE // 2)


def sample(
    images: Tensor,
    sources: Tensor,
    *,
    interpolation: str = "nearest",
    padding_mode: str = "constant",
    fill: int | Sequence[int] = 0,
) -> Tensor:
    """Reads each new pixel at its source.

    Args:
        images: (B, C, H, W), uint8, on any device.
        sources: (B, 2, H, W), whole numbers, on the same device.
        interpolation: `nearest`, the pixel that holds the source; or `bilinear`, the mean of the four whose centres
            are around it, weighted by its distance from each.
        padding_mode: What lies outside the image: `constant`, the fill; `edge`, the nearest pixel of the border;
            `reflect`, the image mirrored at the centres of its border pixels; `symmetric`, mirrored at its edges.
        fill: One value for all channels or one for each, 0 to 255.

    Returns:
        (B, C, H, W), uint8. Bilinear values are rounded from weights in steps of 1/2048.
    """
    filling = torch.tensor(fill, dtype=torch.uint8, device=images.device).view(-1, 1, 1)
    if interpolation == "nearest":
        x, y = (sources >> 16).unbind(dim=1)
        return _pixels(images, x, y, padding_mode, filling)
    from_centre = sources - _ONE // 2
    x, y = (from_centre >> 16).unbind(dim=1)
    spare_bits = 16 - _FRACTION_BITS
    parts = ((from_centre & (_ONE - 1)) + (1 << (spare_bits - 1))) >> spare_bits  # rounded
    right, below = parts.to(torch.int32).unsqueeze(2).unbind(dim=1)  # (B, 1, H, W)
    left, above = (1 << _FRACTION_BITS) - right, (1 << _FRACTION_BITS) - below
    total = _pixels(images, x, y, padding_mode, filling) * (left * above)
    total += _pixels(images, x + 1, y, padding_mode, filling) * (right * above)
    total += _pixels(images, x, y + 1, padding_mode, filling) * (left * below)
    total += _pixels(images, x + 1, y + 1, padding_mode, filling) * (right * below)
    return ((total + (1 << (2 * _FRACTION_BITS - 1))) >> (2 * _FRACTION_BITS)).to(torch.uint8)


def _pixels(images: Tensor, x: Tensor, y: Tensor, padding_mode: str, filling: Tensor) -> Tensor:
    """The pixels (B, C, H, W) at whole columns and rows (B, H, W)."""
    count, channels, height, width = images.shape
    column, row = _folded(x, width, padding_mode), _folded(y, height, padding_mode)
    index = (row * width + column).to(torch.int64).view(count, 1, -1).expand(-1, channels, -1)
    pixels = images.reshape(count, channels, -1).gather(2, index).view(images.shape)
    if padding_mode != "constant":
        return pixels
    inside = (column == x) & (row == y)
    return torch.where(inside.unsqueeze(1), pixels, filling)


def _folded(index: Tensor, length: int, padding_mode: str) -> Tensor:
    """Positions along an axis, with those outside mapped to the inside."""
    if padding_mode == "reflect" and length > 1:
        index = index.remainder(2 * length - 2)
        return torch.minimum(index, 2 * length - 2 - index)
    if padding_mode == "symmetric":
        index = index.remainder(2 * length)
        return torch.minimum(index, 2 * length - 1 - index)
    return index.clamp(0, length - 1)
