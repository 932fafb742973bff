"""Blocks that pool, or downsample otherwise."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from era_cnn.config.choices import block
from era_cnn.config.sections import FieldError
from era_cnn.models.blocks.fields import KernelSize, Padding, PoolStride, Stride
from era_cnn.models.layers import pad_side


def check_pool_padding(kernel_size: int, padding: int) -> None:
    """Raises a `FieldError` if the padding is too large for PyTorch's pooling."""
    if 2 * padding > kernel_size:
        raise FieldError("padding", f"be at most half of kernel_size, {kernel_size // 2}", padding, "Lower it.")


@block("max_pool")
class MaxPool(nn.MaxPool2d):
    """The largest value of each window; (B, C, H, W) to (B, C, H / stride, W / stride). No stride: kernel_size."""

    def __init__(self, *, kernel_size: KernelSize = 2, stride: PoolStride = None, padding: Padding = 0) -> None:
        check_pool_padding(kernel_size, padding)
        super().__init__(kernel_size, stride, padding)


@block("avg_pool")
class AvgPool(nn.AvgPool2d):
    """The mean of each window; (B, C, H, W) to (B, C, H / stride, W / stride). No stride: kernel_size."""

    def __init__(self, *, kernel_size: KernelSize = 2, stride: PoolStride = None, padding: Padding = 0) -> None:
        check_pool_padding(kernel_size, padding)
        super().__init__(kernel_size, stride, padding)


@block("blur_pool")
class BlurPool(nn.Module):
    """Downsampling after a fixed binomial low-pass filter (Zhang 2019, arXiv 1904.11486); no parameters.

    (B, C, H, W) to (B, C, H', W'), H' = (H - 1) / stride + 1 rounded down for an odd kernel: the border is reflected.
    """

    weight: Tensor

    def __init__(
        self,
        in_channels: int,
        in_size: tuple[int, int],
        *,
        kernel_size: Annotated[int, Field(ge=3, le=7, description="the taps of the filter, 3 to 7")] = 3,
        stride: Stride = 2,
    ) -> None:
        super().__init__()
        if kernel_size // 2 >= min(in_size):
            rule = f"be less than {2 * min(in_size)}, twice the smaller side of its input"
            raise FieldError("kernel_size", rule, kernel_size, "Lower it.")
        taps = torch.tensor([math.comb(kernel_size - 1, k) for k in range(kernel_size)], dtype=torch.float32)
        weight = torch.outer(taps, taps) / taps.sum() ** 2
        self.register_buffer("weight", weight.expand(in_channels, 1, kernel_size, kernel_size).contiguous())
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        before = (self.kernel_size - 1) // 2
        padded = images
        for dim in (2, 3):
            padded = pad_side(padded, before, self.kernel_size - 1 - before, dim, mode="reflect")
        return F.conv2d(padded, self.weight, stride=self.stride, groups=self.weight.shape[0])
