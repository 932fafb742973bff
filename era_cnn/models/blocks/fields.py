"""The fields that several blocks have in common, each with its range and description."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Channels = Annotated[int, Field(ge=1, le=65_536, description="the number of channels, or classes for one each")]
Features = Annotated[int, Field(ge=1, le=65_536, description="the number of features, or classes for one each")]
KernelSize = Annotated[int, Field(ge=1, le=1_024, description="the height and width of the kernel in pixels")]
Stride = Annotated[int, Field(ge=1, le=1_024, description="the step between two positions of the kernel in pixels")]
PoolStride = Annotated[
    Stride | None, Field(description="the step between two positions of the kernel in pixels, null for kernel_size")
]
Padding = Annotated[
    int, Field(ge=0, le=1_024, description="the pixels added on every side, or same for what keeps height and width")
]
Dilation = Annotated[int, Field(ge=1, le=1_024, description="the distance between two taps of the kernel in pixels")]
Groups = Annotated[int, Field(ge=1, le=65_536, description="the number of groups of channels")]
Bare = Annotated[bool, Field(description="true or false: the convolution alone, without norm, activation and dropout")]
Pool = Annotated[Literal["max", "avg", "none"], Field(description="the kind of pooling")]
