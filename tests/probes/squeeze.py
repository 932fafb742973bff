"""A block from outside the package: squeeze and excitation (Hu et al. 2017, arXiv 1709.01507)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

import era_cnn


@era_cnn.block("squeeze")
class Squeeze(nn.Module):
    """Scales each channel by what all channels hold on average; (B, C, H, W) to the same shape."""

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: Annotated[int, Field(ge=1, le=64, description="how many times narrower the middle is")] = 4,
    ) -> None:
        super().__init__()
        if reduction > in_channels:
            rule = f"be at most the {in_channels} channels that come in"
            raise era_cnn.FieldError("reduction", rule, reduction, "Lower it.")
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, in_channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(in_channels // reduction, in_channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return images * self.weigh(images)
