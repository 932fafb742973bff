"""Each transform, pixel by pixel, beside torchvision's function with the same parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from era_cnn.config.choices import TRANSFORMS
from era_cnn.config.data_info import DataInfo
from era_cnn.data.transforms import Pipeline, make_pipeline
from tests.data.transforms.references import EXAMPLES, MEAN, Example
from tests.helpers import section_of

MIXES = {"mixup", "cutmix"}  # see test_mix.py


def pipeline_of(example: Example, info: DataInfo, **more: object) -> Pipeline:
    section = section_of(TRANSFORMS, example.name, **example.fields, **more)
    return make_pipeline({example.name: section}, info, MEAN[: info.shape[0]])


def images_of(info: DataInfo, count: int) -> Tensor:
    """Smooth shapes and noise, not square."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, info.shape[0], 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, info.shape[1:], mode="bilinear")
    return (smooth * 220 + torch.rand(smooth.shape, generator=generator) * 35).to(torch.uint8)


def draws_of(pipeline: Pipeline, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(pipeline.num_draws, count, generator=generator, dtype=torch.float64)


CASES = [
    pytest.param(example, info, id=f"{example.name}-{number}-{info.shape[0]}")
    for number, example in enumerate(EXAMPLES)
    for info in example.kinds
]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("example", "info"), CASES)
def test_a_transform_gives_the_same_pixels_on_a_gpu(example: Example, info: DataInfo) -> None:
    pipeline = pipeline_of(example, info)
    images, draws = images_of(info, 60), draws_of(pipeline, 60)
    here, there = pipeline(images, draws), pipeline(images.cuda(), draws).cpu()
    assert (here == there).double().mean() >= 0.999
    assert (here.int() - there.int()).abs().max() <= 1


def test_every_transform_has_examples() -> None:
    assert {each.name for each in EXAMPLES} | MIXES == set(TRANSFORMS)


@pytest.mark.parametrize(("example", "info"), CASES)
def test_a_transform_gives_the_pixels_of_torchvision(example: Example, info: DataInfo) -> None:
    pipeline = pipeline_of(example, info)
    images, draws = images_of(info, 60), draws_of(pipeline, 60)
    ours = pipeline(images, draws)
    columns = draws.T.tolist()
    theirs = torch.stack(
        [example.reference(image, column, example.fields) for image, column in zip(images, columns, strict=True)]
    )
    share = (ours == theirs).double().mean().item()
    furthest = (ours.int() - theirs.int()).abs().max().item()
    assert share >= example.share
    assert furthest <= example.off_by
