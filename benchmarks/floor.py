"""The floor: a network's convolutions alone, forward and backward, in the faster of the two memory layouts.

Every input is there already, every gradient too. What a training takes beyond this is all that is not a convolution.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.contender import options, serve
from benchmarks.networks import NETWORKS, SHAPES


def copied(conv: nn.Conv2d) -> nn.Conv2d:
    options = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
    return nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, bias=False, **options)


FORMATS = (torch.contiguous_format, torch.channels_last)


def main() -> None:
    args = options()
    torch.set_num_threads(args.threads)
    model = NETWORKS[args.model](args.width)
    shapes: dict[nn.Module, torch.Size] = {}
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, inputs, output: shapes.update({conv: inputs[0].shape}))
    model(torch.zeros(args.batch_size, *SHAPES[args.model]))
    every: dict[torch.memory_format, list[tuple[nn.Conv2d, Tensor, Tensor]]] = {}
    for memory_format in FORMATS:
        every[memory_format] = []
        for conv, shape in shapes.items():
            copy = copied(conv)
            copy = copy.to(memory_format=memory_format)
            images = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_(shape[1] > 3)
            every[memory_format].append((copy, images, torch.randn_like(copy(images).detach())))

    def seconds_of(convs: list[tuple[nn.Conv2d, Tensor, Tensor]]) -> float:
        started = time.perf_counter()
        for _ in range(args.images // args.batch_size):
            for conv, images, slopes in convs:
                conv.weight.grad = images.grad = None
                conv(images).backward(slopes)
        return time.perf_counter() - started

    serve(lambda: min(seconds_of(convs) for convs in every.values()))


if __name__ == "__main__":
    main()
