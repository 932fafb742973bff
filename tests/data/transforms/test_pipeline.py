from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as TF

from era_cnn.config.choices import TRANSFORMS
from era_cnn.config.data_info import DataInfo
from era_cnn.config.sections import FieldError
from era_cnn.data.digits import read_digits
from era_cnn.data.transforms import Pipeline, Transform
from tests.conftest import CONF_DIR
from tests.helpers import affine_by_torchvision, nothing_stays_registered, pipeline_of, through_pillow


@pytest.fixture(scope="module")
def images() -> Tensor:
    """500 real digits, (500, 1, 28, 28) uint8."""
    return torch.tensor(read_digits(1437).train_images[:500]).unsqueeze(1)


def test_every_transform_has_a_file_in_the_config() -> None:
    assert {path.stem for path in (CONF_DIR / "augmentation").rglob("*.yaml")} == {*TRANSFORMS, "none"}


ROTATE = {"rotate": {"degrees": 7.0, "fill": 1}}
AFFINE = {"affine": {"degrees": 7.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0, "fill": 0}}
AUGMENTATIONS = {"none": {}, "rotate": ROTATE, "affine": AFFINE, "both": {**ROTATE, **AFFINE}}


def drawn(augment: Pipeline, images: Tensor, seed: int) -> Tensor:
    """The images, changed by what a generator draws."""
    generator = torch.Generator().manual_seed(seed)
    return augment(images, torch.rand(augment.num_draws, len(images), generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_a_function_of_its_draws(name: str, images: Tensor) -> None:
    augment = pipeline_of(AUGMENTATIONS[name])
    first = drawn(augment, images, 1)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, drawn(augment, images, 1))
    other = drawn(augment, images, 2)
    assert torch.equal(first, other) == (name == "none")


@pytest.mark.parametrize("name", ["rotate", "affine", "both"])
def test_each_image_has_a_draw_of_its_own(name: str, images: Tensor) -> None:
    augment = pipeline_of(AUGMENTATIONS[name])
    same = images[:1].expand(50, -1, -1, -1).contiguous()
    augmented = drawn(augment, same, 1)
    assert len({image.numpy().tobytes() for image in augmented}) > 25  # close angles may give the same pixels


def test_no_range_means_no_change(images: Tensor) -> None:
    still = pipeline_of({"affine": {"degrees": 0.0, "translate": 0.0, "scale": [1.0, 1.0], "shear": 0.0, "fill": 9}})
    assert torch.equal(drawn(still, images, 1), images)


def test_angles_stay_within_their_range_and_fill_it() -> None:
    # A bright spot 10 px right of the centre moves along a circle: its height, 10 sin(angle), tells the angle.
    image = torch.zeros(1, 1, 29, 29, dtype=torch.uint8)
    image[0, 0, 13:16, 23:26] = 255
    rotated = drawn(pipeline_of({"rotate": {"degrees": 45.0, "fill": 0}}), image.expand(400, -1, -1, -1), 1)
    weights = rotated.squeeze(1).double()
    heights = (weights.sum(dim=2) * (torch.arange(29) - 14)).sum(dim=1) / weights.sum(dim=(1, 2))
    assert 6.5 < heights.max() < 7.6  # 10 sin(45°) = 7.07
    assert -7.6 < heights.min() < -6.5
    assert abs(heights.mean()) < 0.6


COLOUR = DataInfo((3, 20, 33), ("a", "b"), train_size=100, test_size=10)


@pytest.fixture(scope="module")
def colour() -> Tensor:
    """100 images of 3 channels, not square."""
    return torch.randint(0, 256, (100, 3, 20, 33), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["rotate", "affine", "both"])
def test_a_colour_image_is_changed_as_each_of_its_channels(name: str, colour: Tensor) -> None:
    augment = pipeline_of(AUGMENTATIONS[name], COLOUR)
    changed = drawn(augment, colour, 1)
    assert not torch.equal(changed, colour)
    for channel in range(3):
        assert torch.equal(changed[:, [channel]], drawn(augment, colour[:, [channel]], 1))


def test_rotation_of_colour_images_gives_the_pixels_of_torchvision(colour: Tensor) -> None:
    draws = torch.rand(1, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = pipeline_of({"rotate": {"degrees": 90.0, "fill": 5}}, COLOUR)(colour, draws)
    angles = draws[0] * 180 - 90
    theirs = through_pillow(colour, lambda image, i: TF.rotate(image, angles[i].item(), fill=[5, 5, 5]))
    assert torch.equal(ours, theirs)


def test_affine_of_colour_images_gives_the_pixels_of_torchvision(colour: Tensor) -> None:
    draws = torch.rand(5, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fields = {"degrees": 30.0, "translate": 0.2, "scale": [0.5, 2.0], "shear": 20.0, "fill": 7}
    ours = pipeline_of({"affine": fields}, COLOUR)(colour, draws)
    angles, scales, shears = draws[0] * 60 - 30, draws[3] * 1.5 + 0.5, draws[4] * 40 - 20
    shift_x = ((draws[1] * 2 - 1) * 0.2 * 33).round()  # of the width
    shift_y = ((draws[2] * 2 - 1) * 0.2 * 20).round()  # of the height
    theirs = affine_by_torchvision(
        colour, angles=angles, shift_x=shift_x, shift_y=shift_y, scales=scales, shears=shears, fill=7
    )
    assert torch.equal(ours, theirs)


def test_transforms_are_applied_in_their_order_each_with_its_own_numbers(images: Tensor) -> None:
    draws = torch.rand(6, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = pipeline_of(ROTATE), pipeline_of(AFFINE)
    both, turned = pipeline_of({**ROTATE, **AFFINE}), pipeline_of({**AFFINE, **ROTATE})
    assert (first.num_draws, second.num_draws, both.num_draws) == (1, 5, 6)
    assert torch.equal(both(images, draws), second(first(images, draws[:1]), draws[1:]))
    assert torch.equal(turned(images, draws), first(second(images, draws[:5]), draws[5:]))
    assert not torch.equal(both(images, draws), turned(images, draws))


def test_a_transform_can_be_used_twice_under_a_name_of_its_own(images: Tensor) -> None:
    draws = torch.rand(7, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    again = {"degrees": 30.0, "fill": 3}
    thrice = pipeline_of({**ROTATE, **AFFINE, "rotate_2": {"transform": "rotate", **again}})
    once, second = pipeline_of({**ROTATE, **AFFINE}), pipeline_of({"rotate": again})
    assert torch.equal(thrice(images, draws), second(once(images, draws[:6]), draws[6:]))


def test_a_transform_of_a_plugin_gets_what_the_data_set_says_and_may_refuse_it(images: Tensor) -> None:
    with nothing_stays_registered():

        @TRANSFORMS.register("black")
        def black(info: DataInfo) -> Transform:
            if info.shape[0] != 1:
                raise FieldError("black", "be left out for colour images", info.shape[0], "Remove it.")
            return Transform(0, lambda images, draws: torch.zeros_like(images))

        assert not pipeline_of({"black": {}})(images, torch.empty(0, 500)).any()
        with pytest.raises(FieldError, match="be left out for colour images"):
            pipeline_of({"black": {}}, COLOUR)
