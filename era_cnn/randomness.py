"""Random numbers. Each one depends only on the seed, what it is for and its position, such as epoch and step.

So an interrupted run continues exactly, evaluating more often changes nothing, no generator state has to be saved, and
a new use of randomness does not affect the others.
"""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import torch


def key(seed: int, purpose: str, *position: int | str) -> int:
    """The seed of one stream: 63 bits of BLAKE2b over seed, purpose and position.

    A hash rather than `seed + epoch`, so that neighbouring seeds and positions give unrelated numbers.
    """
    text = "/".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *position: int | str) -> torch.Generator:
    """A generator on the CPU for one stream; its numbers do not depend on the device of the training."""
    return torch.Generator().manual_seed(key(seed, purpose, *position))


ONE_AT_A_TIME = threading.RLock()
"""Held while PyTorch's own generator is used, and by a run for as long as it lasts.

That generator, the number of threads, determinism and the log belong to the whole process, so other threads wait.
"""


def seed_torch(device: torch.device, value: int) -> None:
    """Seeds PyTorch's own generator on a device, from which its modules draw (initial weights, dropout on a GPU).

    Only that generator: `torch.manual_seed` would also queue a seed for unused devices, which costs more than a small
    step.
    """
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)


class Stream:
    """Random numbers for the steps of one training, on the CPU; its layers share the stream.

    Uses SFC64 (Doty-Humphrey's PractRand), NumPy's fastest generator: four 16-bit numbers in a nanosecond.
    """

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def begin(self, value: int) -> None:
        """Restarts the stream from a seed."""
        self._bits = np.random.SFC64(value)

    def int16(self, count: int) -> torch.Tensor:
        """The next numbers, uniform from -32,768 to 32,767, shape (count,)."""
        return torch.from_numpy(self._bits.random_raw(-(-count // 4)).view(np.int16)[:count])
