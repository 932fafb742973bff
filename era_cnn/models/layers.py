"""PyTorch's layers, trained faster on a CPU; on other devices, and in evaluation, they are PyTorch's own.

Activations are stored channels last: pixel after pixel, each with its C values. An operation on each channel then works
on rows of only C values, which makes PyTorch's own layers slow for small C. Their sums over all pixels of a batch, in
single precision, are also off by up to 1e-4. Here the H·W·C values of an image are one row, and the values of a channel
are repeated along it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from era_cnn.randomness import Stream


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm (Ioffe and Szegedy 2015, arXiv 1502.03167), (B, C, H, W) to the same shape."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        count = images.numel() // images.shape[1]
        if not (_takes_the_fast_way(self, images) and images.dtype == torch.float32 and count > 1):
            return super().forward(images)
        output: Tensor
        output, mean, var = _BatchNorm.apply(images, self.weight, self.bias, self.eps)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var.mul_(count / (count - 1)), self.momentum)
        return output


class _BatchNorm(torch.autograd.Function):
    """Normalises with the batch's own moments; also returns these, mean and biased variance, each (C,).

    The variance is E[x²] - E[x]²: one pass over the activations instead of two. Sums over pixels are in double
    precision, which is accurate unless the mean is thousands of standard deviations.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, count = _rows(images), images.numel() // len(weight)
        mean = _sum(rows, len(weight)).div_(count)
        var = _sum(rows * rows, len(weight)).div_(count).addcmul_(mean, mean, value=-1).clamp_min_(0)
        inverse_std = (var + eps).rsqrt_()
        scale = inverse_std * weight
        ctx.save_for_backward(rows, scale, mean, inverse_std)
        mean32, var32 = mean.float(), var.float()
        ctx.mark_non_differentiable(mean32, var32)
        output = torch.empty_like(images, memory_format=torch.channels_last)
        torch.addcmul(_along(rows, bias - mean * scale), rows, _along(rows, scale), out=_rows(output))
        return output, mean32, var32

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, scale, mean, inverse_std = ctx.saved_tensors
        slopes, count = _rows(gradient), rows.numel() // len(scale)
        bias_gradient, product = _sum(slopes, len(scale)), _sum(slopes * rows, len(scale))
        weight_gradient = product.addcmul_(mean, bias_gradient, value=-1).mul_(inverse_std)
        # The gradient of an activation is scale · slope + b · activation + c, with these for each channel:
        b = (scale * inverse_std).mul_(weight_gradient).div_(-count)
        c = (scale * bias_gradient).div_(-count).addcmul_(b, mean, value=-1)
        output = torch.empty_like(gradient, memory_format=torch.channels_last)
        torch.addcmul(_along(rows, c), rows, _along(rows, b), out=_rows(output))
        _rows(output).addcmul_(slopes, _along(rows, scale))
        return output, weight_gradient.float(), bias_gradient.float(), None


def _takes_the_fast_way(layer: nn.Module, images: Tensor) -> bool:
    return layer.training and images.device.type == "cpu" and images.dim() == 4 and images.numel() > 0


def _rows(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H·W·C); not a copy if the images are stored channels last."""
    return images.permute(0, 2, 3, 1).reshape(len(images), -1)


def _sum(rows: Tensor, channels: int) -> Tensor:
    """The sum over each channel, (C,): over the batch in single precision, then over pixels in double precision."""
    return rows.sum(0).view(-1, channels).sum(0, dtype=torch.float64)


def _along(rows: Tensor, values: Tensor) -> Tensor:
    """(C,) to (H·W·C): each value at the pixels of its channel."""
    return values.float().expand(rows.shape[1] // len(values), -1).reshape(-1)


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014): zeroes each activation with probability p, to the nearest 1 / 65,536.

    The masks are made from 16-bit numbers of the training's own stream. This takes a tenth of the time of PyTorch's
    dropout, which draws a double for each activation, on one thread. Without a stream, the layer is PyTorch's own.
    """

    stream: Stream | None = None

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        if self.stream is None or not _takes_the_fast_way(self, images):
            return super().forward(images)
        dropped = min(round(self.p * 2**16), 2**16 - 1)  # of 65,536 numbers
        numbers = self.stream.int16(images.numel())
        mask = torch.empty_like(images, dtype=torch.float32, memory_format=torch.channels_last)
        torch.ge(numbers.view(len(images), -1), dropped - 2**15, out=_rows(mask)).mul_(2**16 / (2**16 - dropped))
        return images * mask.to(images.dtype)


def hand_out(stream: Stream, network: nn.Module) -> None:
    """Lets all layers of a network draw from one stream."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.stream = stream
