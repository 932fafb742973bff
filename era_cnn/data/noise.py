"""Noise and blur of whole batches, on their device, from one random number for each image.

Pixels get their randomness from a hash of that number and their index, in integer arithmetic: the same bits on every
device, however many images are in the batch.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_MASK = (1 << 32) - 1


def hashed(draws: Tensor, count: int, device: torch.device) -> Tensor:
    """`count` random integers for each draw, uniform from 0 to 2^32 - 1: (B, count), int64.

    Args:
        draws: (B,), uniform in [0, 1), float64 on the CPU; its first 32 bits are used.
        count: How many each image needs.
        device: Where they are needed.
    """
    seeds = _mixed((draws * 2**32).long().to(device))
    return _mixed(seeds.unsqueeze(1) ^ _mixed(torch.arange(count, device=device) + 0x9E3779B9))


def _mixed(values: Tensor) -> Tensor:
    """A permutation of the 32-bit integers without visible structure (`lowbias32`, Wellons 2018).

    The products exceed 63 bits and wrap around, which leaves their lower 32 bits as they are.
    """
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & _MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & _MASK
    return values ^ (values >> 16)


def uniform(draws: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform numbers in (-1, 1) for each draw, (B, *shape), float32."""
    numbers = hashed(draws, torch.Size(shape).numel(), device) >> 8  # the 24 bits that float32 holds
    return ((2 * numbers + 1 - (1 << 24)).to(torch.float32) / (1 << 24)).view(-1, *shape)


def normal(draws: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal numbers for each draw, (B, *shape), float32: 65,536 values, at most 4.3 from 0."""
    places = hashed(draws, torch.Size(shape).numel(), device) >> 16
    return _quantiles().to(device).take(places).view(-1, *shape)


@functools.cache
def _quantiles() -> Tensor:
    """The normal distribution as 65,536 values of equal probability."""
    quantiles: Tensor = torch.special.ndtri((torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16))
    return quantiles.to(torch.float32)


def gaussian_noise(images: Tensor, sigmas: Tensor, draws: Tensor) -> Tensor:
    """Adds independent normal noise to each value.

    Args:
        images: (B, C, H, W), uint8.
        sigmas: The standard deviation as a share of 255, (B,), float64 on the CPU.
        draws: (B,), uniform in [0, 1), float64 on the CPU.
    """
    scale = (sigmas * 255).to(torch.float32).to(images.device).view(-1, 1, 1, 1)
    noise = normal(draws, tuple(images.shape[1:]), images.device) * scale
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(values: Tensor, sigmas: Tensor, kernel_size: int) -> Tensor:
    """Averages each value with those around it by Gaussian weights that sum to 1; the image is mirrored at its border.

    Args:
        values: (B, C, H, W), float32.
        sigmas: The standard deviation of the weights in pixels, (B,), float64 on the CPU.
        kernel_size: Odd, below twice the height and the width.
    """
    distances = torch.arange(kernel_size) - kernel_size // 2
    weights = torch.softmax(-(distances**2) / (2 * sigmas.view(-1, 1) ** 2), dim=1)
    weights = weights.to(torch.float32).to(values.device).view(-1, kernel_size, 1, 1, 1)
    margin = kernel_size // 2
    for dim in (2, 3):
        length = values.shape[dim]
        padding = (0, 0, margin, margin) if dim == 2 else (margin, margin, 0, 0)
        padded = torch.nn.functional.pad(values, padding, mode="reflect")
        values = weights[:, 0] * padded.narrow(dim, 0, length)
        for i in range(1, kernel_size):
            values = values + weights[:, i] * padded.narrow(dim, i, length)
    return values


def gaussian_blur(images: Tensor, sigmas: Tensor, kernel_size: int) -> Tensor:
    """Blurs images (B, C, H, W), uint8; see `blurred`."""
    return blurred(images.to(torch.float32), sigmas, kernel_size).round().to(torch.uint8)


def elastic_shifts(draws: Tensor, images: Tensor, *, alpha: float, sigma: float) -> Tensor:
    """Smooth random shifts of each pixel (Simard, Steinkraus and Platt 2003): uniform noise, blurred, times a factor.

    Args:
        draws: Two for each image, (2, B), uniform in [0, 1), float64 on the CPU.
        images: (B, C, H, W).
        alpha: The factor in half pixels, which is torchvision's unit for square images.
        sigma: The standard deviation of the blur in pixels; its kernel reaches four times as far.

    Returns:
        (B, 2, H, W), float32, as (x, y) in pixels.
    """
    size = tuple(images.shape[2:])
    noise = torch.stack([uniform(each, size, images.device) for each in draws], dim=1)
    kernel_size = 2 * int(4 * sigma) + 1
    return blurred(noise, torch.full((len(noise),), sigma, dtype=torch.float64), kernel_size) * (alpha / 2)
