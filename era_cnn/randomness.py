"""Every random number is a function of (seed, purpose, position), and of nothing else.

So a run that was interrupted goes on exactly, evaluating more often changes nothing, no generator state has to
be saved, and a new use of randomness leaves the numbers of all others alone.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def key(seed: int, purpose: str, *position: int | str) -> int:
    """The seed of one stream: 63 bits of BLAKE2b over seed, purpose and position.

    A hash rather than `seed + epoch`, so that neighbouring seeds and positions share nothing.
    """
    text = "/".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *position: int | str) -> torch.Generator:
    """A generator on the CPU for one stream; its numbers are the same whatever device trains."""
    return torch.Generator().manual_seed(key(seed, purpose, *position))


def seed_torch(device: torch.device, value: int) -> None:
    """Seeds PyTorch's own generator on a device, from which its modules draw (initial weights, dropout on a GPU).

    Only that one: `torch.manual_seed` would also queue a seed for devices that are not in use, which costs more than a
    small step.
    """
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)


class Stream:
    """Many numbers for one step of one training, on the CPU; a training has its own and hands it to its layers.

    SFC64 (Doty-Humphrey's PractRand): of NumPy's generators the fastest, four numbers in a nanosecond.
    """

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def begin(self, value: int) -> None:
        """Starts over from a seed."""
        self._bits = np.random.SFC64(value)

    def int16(self, count: int) -> torch.Tensor:
        """The next numbers, uniform from -32,768 to 32,767, shape (count,)."""
        return torch.from_numpy(self._bits.random_raw(-(-count // 4)).view(np.int16)[:count])
