"""The files that a network is exported to: how each is made of the network's operations, and how it is run.

Shapes: N images, K classes; images (N, C, H, W) uint8, logits (N, K) float32.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from era_cnn.config.data_info import DataInfo
from era_cnn.data.batches import Normalise
from era_cnn.errors import ExportError

P = ParamSpec("P")
T = TypeVar("T")

RunFile = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Runs a file: images to logits."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        file: The name of the file.
        content: Gives the content of the file for a program; the number is the version of ONNX's operators.
        load: Opens a file.
        packages: The packages that this needs besides PyTorch.
    """

    file: str
    content: Callable[[ExportedProgram, int], bytes]
    load: Callable[[Path], RunFile]
    packages: tuple[str, ...] = ()


class _FromPixels(nn.Module):
    """A network behind its normalisation; images uint8 (N, C, H, W) to logits (N, K)."""

    def __init__(self, network: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.network, self.normalise = network, normalise

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalise(images))
        return logits


def trace(network: nn.Module, normalise: Normalise, info: DataInfo) -> ExportedProgram:
    """The operations of a network in evaluation mode and of its normalisation, for any number of images.

    Raises:
        ExportError: If PyTorch can't export it.
    """
    usual = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # ours lies channels last
    whole = _FromPixels(usual, normalise).eval()
    images = torch.zeros(3, *info.shape, dtype=torch.uint8)  # from 1 image or none, their number would become fixed
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = attempt("The network", torch.export.export, whole, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def attempt(what: str, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Calls a function of PyTorch's or ONNX's, without what it prints.

    Raises:
        ExportError: If it fails, which it does with errors of many types.
    """
    try:
        with _silence():
            return function(*args, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".")[:300]
        advice = "If the network has a block of your own, see torch.export's documentation for what it may do."
        raise ExportError(f"{what} must be exportable, got {reason}. {advice}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _onnx_content(program: ExportedProgram, opset: int) -> bytes:
    made = torch.onnx.export(
        program, opset_version=opset, input_names=["images"], output_names=["logits"], verbose=False
    )
    assert made is not None, "only the exporter before this one returned None"
    content: bytes = made.model_proto.SerializeToString()
    return content


def _load_onnx(path: Path) -> RunFile:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], {"images": images})[0]
        return logits

    return run


def _torch_content(program: ExportedProgram, opset: int) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _load_torch(path: Path) -> RunFile:
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return logits

    return run


FORMATS = {
    "onnx": Format("model.onnx", _onnx_content, _load_onnx, ("onnx", "onnxruntime", "onnxscript")),
    "torch": Format("model.pt2", _torch_content, _load_torch),
}
"""The formats by name."""
