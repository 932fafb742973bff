"""Grad-CAM: which pixels of an image speak for a class (Selvaraju et al. 2016, arXiv 1610.02391).

Shapes: B images, C channels, H×W pixels, K classes; A feature maps of h×w positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from era_cnn.errors import ConfigError


@dataclass(frozen=True)
class Maps:
    """The evidence at each position, (B, h, w) float32 in [0, 1], and the layer whose output it was read from.

    A map is scaled to its own largest value; where nothing speaks for the class, it is zero everywhere.
    """

    values: Tensor
    layer: str


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor) -> Maps:
    """The evidence for a class in each image, in evaluation mode; the network is left as it was.

    The gradient is that of the logit, since that of a probability vanishes where the network is sure. It is taken with
    respect to the output of the last layer with more than one position.

    Args:
        network: Its children are its layers.
        images: Normalised, (B, C, H, W), on the device of the network.
        classes: The class to explain in each image, (B,).

    Raises:
        ConfigError: If no layer has an output of more than one position.
    """
    was_training = network.training
    network.eval()
    try:
        name = _last_spatial_layer(network, images[:1])
        maps, logits = _maps_and_logits(network, images, name)
        chosen = logits.reshape(len(images), -1).gather(1, classes.view(-1, 1)).sum()
        (slopes,) = torch.autograd.grad(chosen, maps)
    finally:
        network.train(was_training)
    evidence = (maps.detach() * slopes.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu_()
    largest = evidence.amax(dim=(1, 2), keepdim=True)
    return Maps(torch.where(largest > 0, evidence / largest, 0.0).float(), name)


def _last_spatial_layer(network: nn.Module, image: Tensor) -> str:
    spatial: list[str] = []

    def note(name: str, output: Tensor) -> None:
        if output.dim() == 4 and output.shape[2:].numel() > 1:
            spatial.append(name)

    hooks = [
        layer.register_forward_hook(lambda module, inputs, output, name=name: note(name, output))
        for name, layer in network.named_children()
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not spatial:
        rule = "have a layer whose output is more than one pixel"
        raise ConfigError([f"The network must {rule}, got none. Grad-CAM can't explain it."])
    return spatial[-1]


def _maps_and_logits(network: nn.Module, images: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The output of a layer, (B, A, h, w), as part of the graph that leads to the logits (B, K)."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())  # nothing before it is differentiated
        return kept[0].clone()  # a later layer may overwrite what it is given

    hook = network.get_submodule(name).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits: Tensor = network(images)
    finally:
        hook.remove()
    return kept[0], logits
