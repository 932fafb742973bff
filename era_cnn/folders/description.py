"""summary.json: what a network is, for those who have neither it nor its data set."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Layer(BaseModel):
    """A row of the layer table, as in summary.json."""

    model_config = ConfigDict(strict=True)

    name: str
    type: str
    output_shape: list[int]
    params: int = Field(ge=0)
    mult_adds: int = Field(default=0, ge=0)
    receptive_field: int = Field(ge=1)


class Description(BaseModel):
    """summary.json: the network and the data set, for those who have neither."""

    model_config = ConfigDict(strict=True)

    image_shape: list[int] = Field(min_length=3, max_length=3)
    class_names: list[str] = Field(min_length=2)
    params: int = Field(ge=0)
    mult_adds: int = Field(ge=0)
    receptive_field: int = Field(ge=1)
    layers: list[Layer]


def parse_description(text: str) -> Description:
    """The content of summary.json.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return Description.model_validate(json.loads(text))
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"]) from error
