"""PyTorch's layers, trained faster on a CPU; on other devices, and in evaluation, they are PyTorch's own.

Ghost batch norm and the dropout of channels are here as well, and padding that is deterministic on CUDA.

Activations are stored channels last: pixel after pixel, each with its C values. An operation on each channel then works
on rows of only C values, which makes PyTorch's own layers slow for small C. Their sums over all pixels of a batch, in
single precision, are also off by up to 1e-4. Here the W·C values of a line of pixels are one row, along which the
values of a channel are repeated; such a row stays in the processor's nearest cache.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn.randomness import Stream


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm (Ioffe and Szegedy 2015, arXiv 1502.03167), (B, C, H, W) to the same shape."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        if not (_takes_the_fast_way(self, images) and self._is_fast_for(images)):
            return super().forward(images)
        output, mean, var = self._normalised(images)
        self._move(mean, var)
        return output

    def _is_fast_for(self, images: Tensor) -> bool:
        is_single = images.dtype == torch.float32 or torch.compiler.is_compiling()
        return is_single and images.numel() > images.shape[1]

    def _normalised(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images, normalised by their own moments, and these: mean and unbiased variance, each (C,)."""
        count = images.numel() // images.shape[1]
        normalise = _CompilableBatchNorm if torch.compiler.is_compiling() else _BatchNorm
        output, mean, var = normalise.apply(images, self.weight, self.bias, self.eps)
        return output, mean, var.mul_(count / (count - 1))

    def _move(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running moments towards those of a batch."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var, self.momentum)


class GhostBatchNorm2d(BatchNorm2d):
    """Batch norm over each part of a batch alone, with one scale and shift (Hoffer et al. 2017, arXiv 1705.08741).

    (B, C, H, W) to the same shape. A batch is cut into `splits` parts, equal but for one image. Its running moments are
    those of the parts on average; in evaluation it is batch norm.
    """

    splits = 2

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        if not self.training or not len(images):
            return super().forward(images)
        parts = images.tensor_split(min(self.splits, len(images)))
        outputs, means, variances = zip(*map(self._normalised, parts), strict=True)
        self._move(torch.stack(means).mean(0), torch.stack(variances).mean(0))
        return torch.cat(outputs)

    def _normalised(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if _takes_the_fast_way(self, images) and self._is_fast_for(images):
            return super()._normalised(images)
        mean, var = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        return F.batch_norm(images, mean, var, self.weight, self.bias, True, 1.0, self.eps), mean, var


class _BatchNorm(torch.autograd.Function):
    """Normalises with the batch's own moments; also returns these, mean and biased variance, each (C,).

    The variance is E[x²] - E[x]²: one pass over the activations instead of two. Sums over pixels are in double
    precision, which is accurate unless the mean is thousands of standard deviations.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        output = torch.empty_like(images, memory_format=torch.channels_last)
        rows, out, count = _rows(images), _rows(output), float(images.numel() // len(weight))
        mean = _sum(rows, images).div_(count)
        squares = torch.mul(rows, rows, out=out)  # where the output will be: memory that is at hand
        var = _sum(squares, images).div_(count).addcmul_(mean, mean, value=-1).clamp_min_(0)
        inverse_std = (var + eps).rsqrt_()
        scale = inverse_std * weight
        ctx.save_for_backward(rows, scale, mean, inverse_std)
        mean32, var32 = mean.float(), var.float()
        ctx.mark_non_differentiable(mean32, var32)
        torch.addcmul(_along(rows, bias - mean * scale), rows, _along(rows, scale), out=out)
        return output, mean32, var32

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, scale, mean, inverse_std = ctx.saved_tensors
        output = torch.empty_like(gradient, memory_format=torch.channels_last)
        slopes, out, count = _rows(gradient), _rows(output), float(rows.numel() // len(scale))
        bias_gradient, product = _sum(slopes, gradient), _sum(torch.mul(slopes, rows, out=out), gradient)
        weight_gradient = product.addcmul_(mean, bias_gradient, value=-1).mul_(inverse_std)
        # The gradient of an activation is scale · slope + b · activation + c, with these for each channel:
        b = (scale * inverse_std).mul_(weight_gradient).div_(-count)
        c = (scale * bias_gradient).div_(-count).addcmul_(b, mean, value=-1)
        torch.addcmul(_along(rows, c), rows, _along(rows, b), out=out).addcmul_(slopes, _along(rows, scale))
        return output, weight_gradient.float(), bias_gradient.float(), None


def _takes_the_fast_way(layer: nn.Module, images: Tensor) -> bool:
    return layer.training and images.device.type == "cpu" and images.dim() == 4 and images.numel() > 0


class _CompilableBatchNorm(torch.autograd.Function):
    """What `_BatchNorm` computes, in operations that the compiler fuses: three passes over the activations, two back.

    PyTorch 2.14 compiles its own batch norm wrongly on a CPU if a leaky ReLU comes before it.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        values = images.float()
        mean = values.mean((0, 2, 3), keepdim=True)
        var = (values - mean).square().mean((0, 2, 3), keepdim=True)
        inverse_std = (var + eps).rsqrt()
        ctx.save_for_backward(images, weight, mean, inverse_std)
        output = (values - mean) * (inverse_std * _per_channel(weight)) + _per_channel(bias)
        mean, var = mean.flatten(), var.flatten()
        ctx.mark_non_differentiable(mean, var)
        return output.to(images.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        images, weight, mean, inverse_std = ctx.saved_tensors
        count, slopes = images.numel() // len(weight), gradient.float()
        normalised = (images.float() - mean) * inverse_std
        bias_gradient = slopes.sum((0, 2, 3), keepdim=True)
        weight_gradient = (slopes * normalised).sum((0, 2, 3), keepdim=True)
        centred = slopes - (bias_gradient + normalised * weight_gradient) / count
        output = centred * (inverse_std * _per_channel(weight))
        return output.to(images.dtype), weight_gradient.flatten(), bias_gradient.flatten(), None


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _rows(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B·H, W·C); not a copy if the images are stored channels last."""
    count, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    return images.as_strided((count * height, width * channels), (width * channels, 1))


def _sum(rows: Tensor, images: Tensor) -> Tensor:
    """The sum over each channel, (C,): over the batch in single precision, then over pixels in double precision."""
    count, channels = images.shape[:2]
    return rows.view(count, -1).sum(0).view(-1, channels).sum(0, dtype=torch.float64)


def _along(rows: Tensor, values: Tensor) -> Tensor:
    """(C,) to (W·C): each value at the pixels of its channel."""
    line = torch.empty((rows.shape[1] // len(values), len(values)), dtype=torch.float32, device=values.device)
    return line.copy_(values).view(-1)


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014): zeroes each activation with probability p, to the nearest 1 / 65,536.

    The masks are made from 16-bit numbers of the training's own stream. This takes a tenth of the time of PyTorch's
    dropout, which draws a double for each activation, on one thread. Without a stream, the layer is PyTorch's own.
    """

    stream: Stream | None = None
    kept: Tensor | None = None
    """What the next pass keeps, as `draw` gives it; for compiled code, which draws nothing itself."""

    channels = False
    """Whether whole channels of an image are zeroed at once (Tompson et al. 2014, arXiv 1411.4280)."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        if self.training and self.channels and images.dim() == 4:
            return images * self._dropped(images.new_ones((*images.shape[:2], 1, 1)))
        return self._dropped(images)

    def draw(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Whether each value, or channel, of images of a shape is kept: booleans in memory order."""
        count = math.prod(shape[:2] if self.channels and len(shape) == 4 else shape)
        if device.type == "cpu" and self.stream is not None:
            numbers = self.stream.int16(count)
        else:
            numbers = torch.empty(count, dtype=torch.int16, device=device).random_(-(2**15), 2**15)
        kept = torch.empty(count, dtype=torch.uint8, device=device)  # four times as fast on a CPU as booleans
        return torch.ge(numbers, self._least_kept()[0], out=kept).view(torch.bool)

    def _dropped(self, images: Tensor) -> Tensor:
        if self.training and self.kept is not None:
            return self._zeroed(images, self.kept)
        if self.stream is None or not _takes_the_fast_way(self, images):
            return super().forward(images)
        least, scale = self._least_kept()
        numbers = self.stream.int16(images.numel())
        mask = torch.empty_like(images, dtype=torch.float32, memory_format=torch.channels_last)
        rows = _rows(mask)
        torch.ge(numbers.view(rows.shape), least, out=rows).mul_(scale)
        return images * mask.to(images.dtype)

    def _least_kept(self) -> tuple[int, float]:
        """The least number that keeps a value, and the factor of those that are kept."""
        dropped = min(round(self.p * 2**16), 2**16 - 1)  # of 65,536 numbers
        return dropped - 2**15, 2**16 / (2**16 - dropped)

    def _zeroed(self, images: Tensor, kept: Tensor) -> Tensor:
        if images.dim() == 4:
            count, channels, height, width = images.shape
            kept = kept.view(count, height, width, channels).permute(0, 3, 1, 2)
        return torch.where(kept.view(images.shape), images * self._least_kept()[1], 0.0)


class Conv2d(nn.Conv2d):
    """Convolution whose padding with real pixels has a deterministic gradient on CUDA, which PyTorch's lacks."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102 - the class says it
        if self.padding_mode == "zeros":
            return super().forward(images)
        assert not isinstance(self.padding, str)
        for dim, size in zip((2, 3), self.padding, strict=True):
            images = pad_side(images, size, size, dim, mode=self.padding_mode)
        return F.conv2d(images, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_side(
    images: Tensor, before: int, after: int, dim: int, *, mode: Literal["reflect", "replicate", "circular"]
) -> Tensor:
    """Pads one dimension as `F.pad` does; `reflect` does not repeat the outermost pixel.

    Raises:
        RuntimeError: If the images are too small, as `F.pad` does.
    """
    size = images.shape[dim]
    if mode == "reflect":
        head, tail = images.narrow(dim, 1, before).flip(dim), images.narrow(dim, size - 1 - after, after).flip(dim)
    elif mode == "circular":
        head, tail = images.narrow(dim, size - before, before), images.narrow(dim, 0, after)
    else:
        shape = images.shape
        head = images.narrow(dim, 0, 1).expand(*shape[:dim], before, *shape[dim + 1 :])
        tail = images.narrow(dim, size - 1, 1).expand(*shape[:dim], after, *shape[dim + 1 :])
    return torch.cat([head, images, tail], dim)


def hand_out(stream: Stream, network: nn.Module) -> None:
    """Lets all layers of a network draw from one stream."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.stream = stream
