from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms

from era_cnn.config.data_info import DataInfo
from era_cnn.data.batches import EvaluationBatches, Normalise, Split, TrainingBatches, num_together, split_off_val
from era_cnn.data.digits import read_digits
from era_cnn.data.transforms import Pipeline, Transform
from tests.helpers import pipeline_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split() -> Split:
    arrays = read_digits(1437)
    return Split.on(CPU, arrays.train_images, arrays.train_labels)


def batches_of(
    split: Split,
    *,
    batch_size: int = 64,
    seed: int = 1,
    augmentation: str = "rotate",
    drop_last: bool = False,
    unaugmented_from: int | None = None,
) -> TrainingBatches:
    chosen = {"rotate": {"rotate": {"degrees": 7.0, "fill": 1}}, "mixup": {"mixup": {"alpha": 0.2}}, "none": {}}
    return TrainingBatches(
        split,
        batch_size=batch_size,
        augment=pipeline_of(chosen[augmentation]),
        normalise=Normalise([0.3], [0.3]),
        seed=seed,
        drop_last=drop_last,
        unaugmented_from=unaugmented_from,
    )


def test_images_are_held_as_bytes(split: Split) -> None:
    assert split.images.dtype == torch.uint8
    assert split.images.shape == (1437, 1, 28, 28)
    assert split.labels.dtype == torch.int64


def test_normalisation_is_that_of_torchvision_to_the_bit(split: Split) -> None:
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    expected = torch.stack([theirs(image.squeeze(0).numpy()) for image in split.images[:100]])
    assert torch.equal(Normalise([0.1307], [0.3081])(split.images[:100]), expected)


def test_an_epoch_sees_every_image_once_in_another_order_each_time(split: Split) -> None:
    batches = batches_of(split)
    orders = [batches.order(epoch) for epoch in (1, 2, 3)]
    for order in orders:
        assert order.sort().values.equal(torch.arange(len(split)))
    assert not torch.equal(orders[0], orders[1])
    labels = torch.cat([batch.labels for batch in batches.epoch(1)])
    assert torch.equal(labels, split.labels[orders[0]])


@pytest.mark.parametrize(
    ("device", "size", "number"), [("cpu", 32, 512), ("mps", 8, 512), ("cuda", 32, 8192), ("cuda", 224, 512)]
)
def test_large_images_are_not_prepared_thousands_at_a_time(device: str, size: int, number: int) -> None:
    assert num_together(torch.device(device), size * size) == number


def test_how_many_images_are_prepared_at_a_time_changes_none(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [batch.images for batch in batches_of(split).epoch(2)]
    monkeypatch.setattr("era_cnn.data.batches.MADE_TOGETHER", 130)
    got = [batch.images for batch in batches_of(split).epoch(2)]
    assert all(map(torch.equal, got, expected))


def test_the_last_batch_may_be_smaller(split: Split) -> None:
    batches = batches_of(split)
    sizes = [len(batch.labels) for batch in batches.epoch(1)]
    assert len(sizes) == len(batches) == 23
    assert sizes == [64] * 22 + [29]


@pytest.mark.parametrize(("batch_size", "number"), [(64, 22), (479, 3), (1000, 1)])
def test_the_last_batch_can_be_left_out_unless_it_is_full(split: Split, batch_size: int, number: int) -> None:
    every, full = (batches_of(split, batch_size=batch_size, drop_last=drop_last) for drop_last in (False, True))
    assert (len(full), full.images_per_epoch, every.images_per_epoch) == (number, number * batch_size, len(split))
    assert torch.equal(full.order(2), every.order(2))
    for one, other in zip(full.epoch(2), list(every.epoch(2))[:number], strict=True):
        assert len(one.labels) == batch_size
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_the_last_epochs_can_be_left_as_they_are(split: Split) -> None:
    rotated, plain = batches_of(split), batches_of(split, augmentation="none")
    ending = batches_of(split, unaugmented_from=3)
    for epoch, expected in ((1, rotated), (2, rotated), (3, plain), (4, plain)):
        for one, other in zip(ending.epoch(epoch, first_step=20), expected.epoch(epoch, first_step=20), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)


def test_nothing_is_mixed_in_the_last_epochs_either(split: Split) -> None:
    mixing = batches_of(split, augmentation="mixup", unaugmented_from=2)
    assert all(batch.mixed is not None for batch in mixing.epoch(1))
    assert all(batch.mixed is None for batch in mixing.epoch(2))


def test_any_batch_can_be_made_without_those_before_it(split: Split) -> None:
    whole = list(batches_of(split).epoch(3))
    rest = list(batches_of(split).epoch(3, first_step=10))
    assert len(rest) == len(whole) - 10
    for one, other in zip(whole[10:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_the_order_does_not_depend_on_the_augmentation_but_on_the_seed(split: Split) -> None:
    plain, rotated = batches_of(split, augmentation="none"), batches_of(split)
    assert torch.equal(plain.order(1), rotated.order(1))
    assert not torch.equal(plain.order(1), batches_of(split, seed=2).order(1))


def test_the_same_image_is_augmented_differently_in_each_epoch(split: Split) -> None:
    batches = batches_of(split.first(1))
    images = {next(batches.epoch(epoch)).images.numpy().tobytes() for epoch in range(1, 6)}
    assert len(images) > 1


def test_evaluation_sees_every_image_once_in_order(split: Split) -> None:
    batches = list(EvaluationBatches(split, batch_size=1000, normalise=Normalise([0], [1])))
    assert [len(batch.labels) for batch in batches] == [1000, 437]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), split.labels)
    assert torch.equal(torch.cat([batch.images for batch in batches]), split.images.float() / 255)


@pytest.mark.parametrize("val_size", [10, 137, 1000, 1427])
def test_validation_images_are_stratified(split: Split, val_size: int) -> None:
    train, val = split_off_val(split, val_size, seed=1)
    assert (len(train), len(val)) == (1437 - val_size, val_size)
    shares = split.labels.bincount().double() * val_size / 1437
    assert (val.labels.bincount(minlength=10) - shares).abs().max() < 1


def test_a_part_of_a_split_shares_its_images(split: Split) -> None:
    train, val = split_off_val(split, 300, seed=1)
    parts = [train, val, train.first(100), train.at(torch.tensor([5, 3])), split.first(10), val.at(slice(3, 7))]
    assert {part.base.untyped_storage().data_ptr() for part in parts} == {split.images.untyped_storage().data_ptr()}


def test_parts_of_parts_are_what_they_would_be_as_copies(split: Split) -> None:
    copied, shared = split, split
    for indices in (slice(1000), torch.arange(999, 10, -3), slice(5, 200), torch.tensor([7, 7, 0])):
        copied, shared = Split(copied.images[indices], copied.labels[indices]), shared.at(indices)
        assert torch.equal(copied.images, shared.images)
        assert torch.equal(copied.labels, shared.labels)
        assert len(copied) == len(shared)


def test_no_image_is_in_both_splits(split: Split) -> None:
    marked = Split(torch.arange(1437).view(-1, 1, 1, 1), split.labels)
    train, val = split_off_val(marked, 300, seed=1)
    both = torch.cat([train.images.flatten(), val.images.flatten()])
    assert both.sort().values.equal(torch.arange(1437))


def test_the_split_is_fixed_by_the_seed(split: Split) -> None:
    first, again, other = (split_off_val(split, 300, seed=seed)[1].images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("batch_size", "together"), [(10, [510, 510, 417]), (64, [512, 512, 413]), (600, [600, 600, 237])]
)
def test_small_batches_are_made_together_and_large_ones_are_not(
    split: Split, batch_size: int, together: list[int]
) -> None:
    seen = []
    batches = batches_of(split, batch_size=batch_size, augmentation="none")
    batches.augment = Pipeline([Transform(0, lambda images, draws: seen.append(len(images)) or images)])
    list(batches.epoch(1))
    assert seen == together


COLOUR = DataInfo((3, 20, 33), tuple(map(str, range(300))), train_size=900, test_size=300)


@pytest.fixture(scope="module")
def colour() -> Split:
    """900 images of 3 channels and 20×33 pixels in 300 classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (900, *COLOUR.shape), dtype=np.uint8)
    return Split.on(CPU, images, np.arange(900, dtype=np.int64) % 300)


def test_a_split_holds_images_of_any_shape_and_any_number_of_classes(colour: Split) -> None:
    assert colour.images.shape == (900, 3, 20, 33)
    assert (colour.labels.dtype, int(colour.labels.max())) == (torch.int64, 299)
    assert colour.first(5).images.shape == (5, 3, 20, 33)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "int64", ">i4"])
def test_labels_of_every_kind_become_int64(kind: str) -> None:
    split = Split.on(CPU, np.zeros((3, 4, 5), dtype=np.uint8), np.array([0, 200, 7]).astype(kind))
    assert split.labels.tolist() == [0, 200, 7]
    assert split.labels.dtype == torch.int64
    assert split.images.shape == (3, 1, 4, 5)


def test_each_channel_is_normalised_as_by_torchvision_to_the_bit(colour: Split) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = torch.stack([theirs(image.permute(1, 2, 0).numpy()) for image in colour.images[:50]])
    assert torch.equal(Normalise(mean, std)(colour.images[:50]), expected)


def test_the_same_value_for_all_channels_is_as_one_value_for_one(colour: Split) -> None:
    grey = colour.images[:, :1]
    for_all = Normalise([0.3] * 3, [0.2] * 3)(grey.expand(-1, 3, -1, -1))
    assert all(torch.equal(for_all[:, [channel]], Normalise([0.3], [0.2])(grey)) for channel in range(3))


def test_batches_of_colour_images_in_many_classes(colour: Split) -> None:
    chosen = {
        "rotate": {"degrees": 10.0, "fill": 3},
        "affine": {"degrees": 5.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0, "fill": 0},
    }
    batches = TrainingBatches(
        colour,
        batch_size=64,
        augment=pipeline_of(chosen, COLOUR),
        normalise=Normalise([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
        seed=1,
    )
    whole = list(batches.epoch(1))
    assert [tuple(batch.images.shape) for batch in whole] == [(64, 3, 20, 33)] * 14 + [(4, 3, 20, 33)]
    assert torch.cat([batch.labels for batch in whole]).bincount().tolist() == [3] * 300
    (last,) = batches.epoch(1, first_step=14)
    assert torch.equal(last.images, whole[-1].images)
    evaluated = list(EvaluationBatches(colour, batch_size=500, normalise=batches.normalise))
    assert torch.equal(torch.cat([batch.images for batch in evaluated]), batches.normalise(colour.images))


def test_validation_images_of_many_classes_are_stratified(colour: Split) -> None:
    train, val = split_off_val(colour, 300, seed=1)
    assert val.labels.bincount().tolist() == [1] * 300
    assert train.labels.bincount().tolist() == [2] * 300


def test_images_may_be_read_only_as_those_of_a_file_that_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    split = Split.on(torch.device("cpu"), images, np.array([0, 1]))
    assert split.images[1, 2].tolist() == [[20, 21], [22, 23]]


def test_images_that_are_read_backwards_are_taken() -> None:
    images, labels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3), np.arange(4)
    split = Split.on(torch.device("cpu"), images[::-1], labels[::-1])
    assert torch.equal(split.images[:, 0], torch.from_numpy(images).flip(0))
    assert split.labels.tolist() == [3, 2, 1, 0]
