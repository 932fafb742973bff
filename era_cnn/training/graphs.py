"""Steps as CUDA graphs: the hundreds of kernels of a small network's forward and backward pass are launched as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from era_cnn.data.batches import Batch, Mixed
from era_cnn.training.objective import Objective, kept

WARM_UP = 3
"""Steps before a recording, in which libraries choose their algorithms and allocate their workspaces."""


@dataclass(frozen=True)
class _Recording:
    """A graph, the memory that it reads its batch from, and the memory that it writes its results to."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor
    logits: Tensor
    gradients: tuple[Tensor | None, ...]


class RecordedSteps:
    """Replays the backward pass of an objective on a CUDA device, with the same bits.

    A graph is recorded for each shape of a batch when it first occurs: the last batch of an epoch may be smaller.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._recordings: dict[tuple[torch.Size, bool], _Recording] = {}

    def backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Computes the gradients of a batch, as `Objective.backward` does."""
        shape = (batch.images.shape, batch.mixed is not None)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(batch)
        recording = self._recordings[shape]
        for memory, tensor in zip(_tensors(recording.batch), _tensors(batch), strict=True):
            memory.copy_(tensor)
        for parameter, gradient in zip(self._objective.network.parameters(), recording.gradients, strict=True):
            parameter.grad = gradient
        recording.graph.replay()
        return recording.loss, recording.logits

    def _record(self, batch: Batch) -> _Recording:
        """Records a step on copies of a batch; leaves buffers and random numbers as they were."""
        network, device, batch = self._objective.network, batch.images.device, _copy(batch)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with kept(network, device):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._objective.backward(batch)
            torch.cuda.current_stream(device).wait_stream(stream)
            network.zero_grad(set_to_none=True)  # so that the gradients are allocated in the graph's own memory
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # loggers' threads may use the device
                loss, logits = self._objective.backward(batch)
            gradients = tuple(parameter.grad for parameter in network.parameters())
        return _Recording(graph, batch, loss, logits, gradients)


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return (batch.images, batch.labels, *(batch.mixed or ()))


def _copy(batch: Batch) -> Batch:
    """The batch in memory of its own, with the same layout."""
    mixed = batch.mixed and Mixed(*(tensor.clone() for tensor in batch.mixed))
    return Batch(batch.images.clone(), batch.labels.clone(), mixed)
