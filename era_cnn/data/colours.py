"""Colours of whole batches, on their device, with the arithmetic of torchvision's functions for 8-bit tensors.

Images are (B, C, H, W) uint8. Parameters have one value for each image, shape (B,), float64 on the CPU. Values beyond
[0, 255] are clipped; fractions are cut off, as torchvision does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiplies each image by its factor: 0 is black, 1 the image itself."""
    return _whole(images * _each(factors, images))


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Scales the distance from the mean of the grey image: 0 is uniformly grey, 1 the image itself."""
    sums = _grey(images).long().sum(dim=(1, 2, 3), keepdim=True)  # of integers, so exact in any order
    return _blend(images, sums.to(torch.float32) / images[0, 0].numel(), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Scales the distance from the grey image, C = 3: 0 is the grey image, 1 the image itself."""
    return _blend(images, _grey(images), factors)


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turns the hue, C = 3, by a share of the circle: 0 and 1 change nothing, 1/3 makes red green.

    The colour model is HSV (Smith 1978, "Color gamut transform pairs"). `hue` is in sixths of the circle: 0 is red.
    """
    red, green, blue = (images / 255).unbind(dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    divisor = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(largest == blue, (red - green) / divisor + 4, 0)
    hue = torch.where(largest == green, (blue - red) / divisor + 2, hue)
    hue = torch.where(largest == red, (green - blue) / divisor, hue)
    hue = hue + 6 * _each(shifts, images).squeeze(1)
    channels = []
    for offset in (5, 3, 1):
        distance = (hue + offset).remainder(6)
        channels.append(largest - chroma * torch.minimum(distance, 4 - distance).clamp(0, 1))
    return (torch.stack(channels, dim=1) * 255.999).to(torch.uint8)


def greyscale(images: Tensor) -> Tensor:
    """The luma (ITU-R BT.601) in all three channels."""
    return _grey(images).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest bits of each pixel; `bits` from 0 to 8."""
    return images & _each(256 - 2 ** (8 - bits), images).to(torch.uint8)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Inverts the pixels from the threshold on."""
    return torch.where(images >= _each(thresholds, images), 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretches each channel to the whole range; one of a single value stays as it is."""
    low, high = (each.to(torch.float32) for each in (images.amin((2, 3), True), images.amax((2, 3), True)))
    is_flat = low == high
    scale = torch.where(is_flat, 1, (high - low) * (1 / 255))
    return _whole((images - torch.where(is_flat, 0, low)) / scale)


def equalize(images: Tensor) -> Tensor:
    """Gives each channel a uniform histogram, with Pillow's integer arithmetic; a channel of few pixels stays."""
    values = images.flatten(2).long()  # (B, C, H·W)
    histogram = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values))
    up_to = histogram.cumsum(dim=2)
    of_the_largest = histogram.gather(2, values.amax(dim=2, keepdim=True))
    step = (values.shape[2] - of_the_largest) // 255
    below = up_to - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.gather(2, values).view(images.shape).to(torch.uint8)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Scales the distance from the smoothed image: 0 is smooth, 1 the image itself. The border stays as it is.

    Each pixel is smoothed with its eight neighbours, weights 5 and 1.
    """
    values = images.to(torch.float32)
    height, width = images.shape[2:]
    if height < 3 or width < 3:
        return images
    inner = values[:, :, 1:-1, 1:-1]
    around = sum(
        values[:, :, y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3) if (y, x) != (1, 1)
    )
    smooth = ((around + 5 * inner) / 13).round()
    sharp = images.clone()
    sharp[:, :, 1:-1, 1:-1] = _whole(inner + (smooth - inner) * _each(1 - factors, images))
    return sharp


def _grey(images: Tensor) -> Tensor:
    """The brightness of each pixel as whole numbers in float32, (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.to(torch.float32).mean(dim=1, keepdim=True)
    red, green, blue = (images[:, [channel]].to(torch.float32) for channel in range(3))
    return torch.floor(0.2989 * red + 0.587 * green + 0.114 * blue)


def _blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    return _whole(images * _each(factors, images) + others * _each(1 - factors, images))


def _whole(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)


def _each(parameters: Tensor, images: Tensor) -> Tensor:
    """One value for each image, so that it meets all of its pixels: (B, 1, 1, 1)."""
    return parameters.to(torch.float32).to(images.device).view(-1, 1, 1, 1)
