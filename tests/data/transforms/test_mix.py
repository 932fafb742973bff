"""mixup and cutmix: images, labels and their weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from era_cnn.data.batches import Batch, Mixed, Normalise, Split, TrainingBatches
from era_cnn.data.transforms import Mix, Pipeline
from era_cnn.data.transforms.mix import symmetric_beta
from era_cnn.training.objective import batch_loss
from tests.data.transforms.references import COLOUR, randint
from tests.helpers import pipeline_of

MIXES = ["mixup", "cutmix"]
CPU = torch.device("cpu")


def mix_of(name: str, **fields: object) -> Pipeline:
    return pipeline_of({name: {"alpha": 0.8, **fields}}, COLOUR)


def draws_of(pipeline: Pipeline, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(pipeline.num_draws, count, generator=generator, dtype=torch.float64)


def numbered(count: int) -> Tensor:
    """Images (count, 3, 20, 33) whose pixels hold the number of the image, from 1."""
    return torch.arange(1.0, count + 1).view(-1, 1, 1, 1).expand(-1, *COLOUR.shape).contiguous()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_have_the_moments_of_a_beta_distribution(alpha: float) -> None:
    draws = torch.rand(2, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = symmetric_beta(draws, alpha)
    assert shares.min() >= 0
    assert shares.max() <= 1
    apart = shares - 0.5
    assert abs(apart.mean()) < 0.003
    assert (apart**2).mean().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.01)
    assert (apart**4).mean().item() == pytest.approx(3 / (16 * (2 * alpha + 1) * (2 * alpha + 3)), rel=0.02)


def test_shares_are_numbers_for_extreme_draws() -> None:
    draws = torch.tensor([[0.0, 0.0, 1 - 2**-53], [0.0, 0.25, 0.25]], dtype=torch.float64)
    for alpha in (1e-3, 1.0, 100.0):
        shares = symmetric_beta(draws, alpha)
        assert ((shares >= 0) & (shares <= 1)).all()


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("per", ["batch", "image"])
@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_each_image_is_mixed_with_its_partner_by_the_share_that_is_said(name: str, per: str, count: int) -> None:
    pipeline, images = mix_of(name, per=per), numbered(count)
    mixed, partners, shares = pipeline.mix(images, draws_of(pipeline, count))
    assert sorted(partners.tolist()) == list(range(count))
    assert (mixed.shape, mixed.dtype, shares.shape) == (images.shape, torch.float32, (count,))
    own = torch.arange(1, count + 1)
    expected = shares * own + (1 - shares) * (partners + 1)  # the mean of the pixels tells how many are whose
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected, atol=1e-4)
    assert len(set(shares.tolist())) == 1 if per == "batch" else count < 3 or len(set(shares.tolist())) > 2


@pytest.mark.parametrize("name", MIXES)
def test_partners_change_with_the_draws(name: str) -> None:
    pipeline, images = mix_of(name), numbered(64)
    one, other = (pipeline.mix(images, draws_of(pipeline, 64, seed))[1] for seed in (1, 2))
    assert (one == other).sum() < 10


@pytest.mark.parametrize("name", MIXES)
def test_the_probability_is_that_of_a_batch_or_of_an_image(name: str) -> None:
    images = numbered(200)
    for per, fewest, most in (("image", 70, 130), ("batch", 200, 200)):
        pipeline = mix_of(name, per=per, probability=0.5)
        counts = set()
        for seed in range(12):
            mixed, _, shares = pipeline.mix(images, draws_of(pipeline, 200, seed))
            same = (mixed == images).all(dim=(1, 2, 3))
            assert torch.equal(mixed[shares == 1], images[shares == 1])
            counts.add(int((shares == 1).sum()))
            assert same.sum() >= (shares == 1).sum()
        assert len(counts) > 1
        if per == "image":
            assert all(fewest < count < most for count in counts)
        else:
            assert counts == {0, 200}
    never = mix_of(name, probability=0.0)
    mixed, _, shares = never.mix(images, draws_of(never, 200))
    assert torch.equal(mixed, images)
    assert shares.eq(1).all()


def change_of(name: str) -> Mix:
    return mix_of(name, per="image")._mix


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, *COLOUR.shape, generator=torch.Generator().manual_seed(0))


def test_mixup_gives_the_values_of_torchvision(images: Tensor) -> None:
    mix = change_of("mixup")
    draws = torch.rand(mix.num_draws, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, shares = mix.change(images, images.roll(1, 0), draws)
    theirs = v2.MixUp(num_classes=10)
    for i, share in enumerate(shares.tolist()):
        params = {"lam": share, "labels": None, "batch_size": 16}
        assert torch.allclose(ours[i], theirs.transform(images, params)[i], atol=1e-6)


def test_cutmix_gives_the_pixels_and_the_weights_of_torchvision(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = change_of("cutmix")
    draws = torch.rand(mix.num_draws, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, shares = mix.change(images, images.roll(1, 0), draws)
    theirs = v2.CutMix(num_classes=10)
    for i, area in enumerate(symmetric_beta(draws[:2], 0.8).tolist()):
        numbers = iter((draws[3, i].item(), draws[2, i].item()))  # x first
        monkeypatch.setattr(theirs, "_dist", torch.distributions.Uniform(area, area + 1e-9, validate_args=False))
        monkeypatch.setattr(
            torch, "randint", lambda high, size, n=numbers: torch.tensor([randint(next(n), 0, high - 1)])
        )
        params = theirs.make_params([images])
        assert math.isclose(shares[i].item(), params["lam_adjusted"], abs_tol=1e-12)
        assert torch.equal(ours[i], theirs.transform(images, {**params, "labels": None, "batch_size": 16})[i])


def batches_of(name: str, count: int, batch_size: int) -> TrainingBatches:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *COLOUR.shape)
    split = Split(images, torch.arange(count))
    return TrainingBatches(split, batch_size=batch_size, augment=mix_of(name), normalise=Normalise([0], [1]), seed=1)


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("last", [1, 3])
def test_images_are_mixed_within_their_batch_and_the_last_may_be_smaller(name: str, last: int) -> None:
    batches = list(batches_of(name, 32 + last, 8).epoch(1))
    assert [len(batch.labels) for batch in batches] == [8, 8, 8, 8, last]
    for batch in batches:
        assert batch.mixed is not None
        assert sorted(batch.mixed.labels.tolist()) == sorted(batch.labels.tolist())
        expected = batch.mixed.shares * batch.labels + (1 - batch.mixed.shares) * batch.mixed.labels
        assert torch.allclose(batch.images.mean(dim=(1, 2, 3)) * 255, expected, atol=1e-2)
    shares = {batch.mixed.shares[0].item() for batch in batches}
    assert len(shares) > 2  # each batch has its own


@pytest.mark.parametrize("name", MIXES)
def test_a_mixed_batch_can_be_made_without_those_before_it(name: str) -> None:
    batches = batches_of(name, 35, 8)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, first_step=3))
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.mixed.labels, other.mixed.labels)
        assert torch.equal(one.mixed.shares, other.mixed.shares)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_batch_loss_mixed_images_is_that_of_their_soft_labels(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, shares = torch.randn(6, 10, generator=generator), torch.rand(6, generator=generator)
    labels, others = torch.arange(6), torch.tensor([5, 0, 9, 3, 4, 1])
    batch = Batch(torch.empty(6), labels, Mixed(others, shares))
    soft = shares.view(-1, 1) * F.one_hot(labels, 10) + (1 - shares.view(-1, 1)) * F.one_hot(others, 10)
    assert torch.allclose(soft.sum(dim=1), torch.ones(6))
    expected = F.cross_entropy(logits, soft, label_smoothing=smoothing)
    assert torch.allclose(batch_loss(logits, batch, label_smoothing=smoothing), expected)
    plain = Batch(torch.empty(6), labels)
    assert batch_loss(logits, plain, label_smoothing=smoothing) == F.cross_entropy(
        logits, labels, label_smoothing=smoothing
    )
