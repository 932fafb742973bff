"""What several tests need: sweeps planned, and sections, transforms and schedules as a config would make them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from era_cnn.compose.composition import Planned
from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.planner import Planner
from era_cnn.compose.words import Words
from era_cnn.config import plugins
from era_cnn.config.choices import DATASETS, REGISTRIES, SCHEDULERS, TRANSFORMS, Registry
from era_cnn.config.data_info import DataInfo
from era_cnn.config.schedule import Schedule
from era_cnn.config.schema import make_schedule
from era_cnn.config.sections import Choice
from era_cnn.data.arrays import Arrays
from era_cnn.data.transforms import Pipeline, make_pipeline


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    """Skips tests without a package of an extra; does not import it, which takes seconds in each worker."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"the extra {extra} is not installed")


GREY = DataInfo((1, 28, 28), tuple("0123456789"), train_size=1437, test_size=360)


def section_of(registry: Registry[Any], name: str, **fields: Any) -> Any:
    """The fields of an entry, validated."""
    schema = registry.section(name)
    return schema.model_validate({"name": name, **fields} if issubclass(schema, Choice) else fields)


def pipeline_of(chosen: dict[str, dict[str, Any]], info: DataInfo = GREY) -> Pipeline:
    """Transforms by name, with their fields."""
    sections = {
        name: section_of(TRANSFORMS, fields.get("transform", name), **fields) for name, fields in chosen.items()
    }
    return make_pipeline(sections, info, [0.5] * info.shape[0])


def schedule_of(name: str, *, epochs: int, steps_per_epoch: int, watch: str = "val_loss", **fields: Any) -> Schedule:
    """A schedule by name, with its fields."""
    section = section_of(SCHEDULERS, name, **fields)
    return make_schedule(section, epochs=epochs, steps_per_epoch=steps_per_epoch, watch=watch)


def plan_sweep(words: Words, composed: Composed) -> list[Planned]:
    """Plans every job of a grid."""
    planner = Planner(words, composed)
    return planner.plan(planner.grid())


def through_pillow(images: Tensor, transform: Callable[[Image.Image, int], Image.Image]) -> Tensor:
    """Applies a torchvision transform to each 8-bit image, grey or in colour, on its own."""
    arrays = images.permute(0, 2, 3, 1).squeeze(3).numpy()
    done = np.stack([np.array(transform(Image.fromarray(array), i)) for i, array in enumerate(arrays)])
    return torch.from_numpy(done.reshape(len(images), *images.shape[2:], -1)).permute(0, 3, 1, 2)


def affine_by_torchvision(
    images: Tensor, *, angles: Tensor, shift_x: Tensor, shift_y: Tensor, scales: Tensor, shears: Tensor, fill: int
) -> Tensor:
    """Turns, moves, scales and shears each 8-bit image on its own."""
    numbers = list(zip(*(each.tolist() for each in (angles, shift_x, shift_y, scales, shears)), strict=True))

    def transform(image: Image.Image, i: int) -> Image.Image:
        angle, x, y, scale, shear = numbers[i]
        return TF.affine(image, angle, [int(x), int(y)], scale, [shear, 0.0], fill=[fill] * images.shape[1])

    return through_pillow(images, transform)


@contextmanager
def nothing_stays_registered() -> Iterator[None]:
    """Takes back what is registered or imported as a plugin within."""
    before = {kind: registry.imported() for kind, registry in REGISTRIES.items()}
    imported = dict(plugins._imported)
    forget_entry_points()
    try:
        yield
    finally:
        for kind, registry in REGISTRIES.items():
            registry.restore(before[kind])
        plugins._imported.clear()
        plugins._imported.update(imported)
        forget_entry_points()


def forget_entry_points() -> None:
    """Lets the installed plugins be looked for again."""
    plugins._all_entry_points.cache_clear()
    plugins._is_importable.cache_clear()


FOR_COLOUR = {"greyscale", "hue", "saturation"}
"""The transforms that refuse grey images."""


@contextmanager
def data_for(transform: str) -> Iterator[list[str]]:
    """The overrides for a data set whose images a transform accepts, which is registered within the context."""
    if transform not in FOR_COLOUR:
        yield []
        return

    class Colours:
        def info(self) -> DataInfo:
            return replace(GREY, shape=(3, 28, 28))

        def read(self) -> Arrays:
            raise AssertionError("it is only described")

    with nothing_stays_registered():
        DATASETS.register("colours")(Colours)
        yield ["data=colours", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]"]


@contextmanager
def unprivileged(place: Path) -> Iterator[None]:
    """Within the context, the permissions of files count, also for root; `place` can be entered by all."""
    place.chmod(0o755)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def slow_but_first(cases: Iterable[Any]) -> list[Any]:
    """Cases for `parametrize` that take long together: `make test` runs the first one, `make test-slow` the others."""
    first, *others = cases
    return [first, *(pytest.param(each, marks=pytest.mark.slow) for each in others)]
