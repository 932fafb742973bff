"""For each transform, examples of its fields, and what torchvision makes of an image with the same parameters.

A reference takes an image (C, H, W) uint8, its random numbers and the fields, and works out the parameters on its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment, v2
from torchvision.transforms import functional as TF
from torchvision.transforms.v2 import functional as F

from era_cnn.config.data_info import DataInfo
from era_cnn.data.noise import elastic_shifts, hashed, normal

HEIGHT, WIDTH = 20, 33
GREY = DataInfo((1, HEIGHT, WIDTH), ("a", "b"), train_size=100, test_size=10)
COLOUR = DataInfo((3, HEIGHT, WIDTH), ("a", "b"), train_size=100, test_size=10)
MEAN = [0.5, 0.25, 0.75]

Draws = list[float]
Reference = Callable[[Tensor, Draws, dict[str, Any]], Tensor]


@dataclass(frozen=True)
class Example:
    """Fields and the reference; the least share of equal pixels, and how far the others may be off."""

    name: str
    fields: dict[str, Any]
    reference: Reference
    share: float = 1.0
    off_by: int = 0
    kinds: tuple[DataInfo, ...] = (GREY, COLOUR)


def uniform(draw: float, low: float, high: float) -> float:
    return low + draw * (high - low)


def randint(draw: float, low: int, high: int) -> int:
    """Both included."""
    return low + math.floor(draw * (high - low + 1))


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def fills(fields: dict[str, Any], image: Tensor) -> list[int]:
    fill = fields["fill"]
    return list(fill) if isinstance(fill, list) else [fill] * len(image)


MARGIN = 60


def geometric(
    parameters: Callable[[Draws, dict[str, Any]], dict[str, Any]],
    on_pillow: Callable[..., Image.Image],
    on_tensors: Callable[..., Tensor],
) -> Reference:
    """Pillow's nearest pixels, torchvision's bilinear ones.

    torchvision darkens the pixels at the border twice (pytorch/vision#8083), so here it gets an image with a wide margin
    of what lies outside: the fill, or the mirrored image.
    """

    def reference(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
        found, fill = parameters(draws, fields), fills(fields, image)
        mode = InterpolationMode(fields["interpolation"])
        if fields["interpolation"] == "nearest" and fields.get("padding_mode", "constant") == "constant":
            return from_pillow(on_pillow(to_pillow(image), **found, interpolation=mode, fill=fill))
        wide = padded(image, MARGIN, fields.get("padding_mode", "constant"), fill)
        moved = on_tensors(wide, **found, interpolation=mode, fill=fill)
        return moved[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

    return reference


NUMPYS = {"constant": "constant", "edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}


def padded(image: Tensor, margin: int, padding_mode: str, fill: list[int]) -> Tensor:
    if padding_mode == "constant":
        return F.pad(image, [margin], fill=fill)
    around = ((0, 0), (margin, margin), (margin, margin))
    return torch.from_numpy(np.pad(image.numpy(), around, mode=NUMPYS[padding_mode]))


def _rotate(draws: Draws, fields: dict[str, Any]) -> dict[str, Any]:
    return {"angle": uniform(draws[0], -fields["degrees"], fields["degrees"])}


def _affine(draws: Draws, fields: dict[str, Any]) -> dict[str, Any]:
    vertically = fields.get("translate_y", fields["translate"])
    shear_y = fields.get("shear_y", 0.0)
    return {
        "angle": uniform(draws[0], -fields["degrees"], fields["degrees"]),
        "translate": [
            round(uniform(draws[1], -1, 1) * fields["translate"] * WIDTH),
            round(uniform(draws[2], -1, 1) * vertically * HEIGHT),
        ],
        "scale": uniform(draws[3], *fields["scale"]),
        "shear": [uniform(draws[4], -fields["shear"], fields["shear"]), uniform(draws[-1], -shear_y, shear_y)],
    }


def _shift_scale_rotate(draws: Draws, fields: dict[str, Any]) -> dict[str, Any]:
    shift, scale, angle = (fields[f"{key}_limit"] for key in ("shift", "scale", "rotate"))
    return {
        "angle": -uniform(draws[0], -angle, angle),
        "scale": 1 + uniform(draws[1], -scale, scale),
        "translate": [uniform(draws[2], -shift, shift) * WIDTH, uniform(draws[3], -shift, shift) * HEIGHT],
        "shear": [0.0, 0.0],
    }


def _perspective(draws: Draws, fields: dict[str, Any]) -> dict[str, Any]:
    across, down = (int(fields["distortion_scale"] * (length // 2)) for length in (WIDTH, HEIGHT))
    in_x, in_y = [randint(draw, 0, across) for draw in draws[::2]], [randint(draw, 0, down) for draw in draws[1::2]]
    left, top, right, bottom = 0, 0, WIDTH - 1, HEIGHT - 1
    return {
        "startpoints": [[left, top], [right, top], [right, bottom], [left, bottom]],
        "endpoints": [
            [left + in_x[0], top + in_y[0]],
            [right - in_x[1], top + in_y[1]],
            [right - in_x[2], bottom - in_y[2]],
            [left + in_x[3], bottom - in_y[3]],
        ],
    }


def _perspective_on_tensors(
    image: Tensor, startpoints: list[list[int]], endpoints: list[list[int]], **options
) -> Tensor:
    moved = ([[x + MARGIN, y + MARGIN] for x, y in points] for points in (startpoints, endpoints))
    return F.perspective(image, *moved, **options)


def elastic(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    columns = torch.tensor(draws, dtype=torch.float64).unsqueeze(1)
    shifts = elastic_shifts(columns, image.unsqueeze(0), alpha=fields["alpha"], sigma=fields["sigma"])
    wide = torch.nn.functional.pad(shifts, [MARGIN] * 4)
    size = torch.tensor([WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN])
    displacement = wide.permute(0, 2, 3, 1) * 2 / size  # torchvision counts in halves of the image
    mode, fill = InterpolationMode(fields["interpolation"]), fills(fields, image)
    moved = F.elastic(F.pad(image, [MARGIN], fill=fill), displacement, interpolation=mode, fill=fill)
    return moved[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def random_crop(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    padding = fields["padding"]
    wide = padded(image, padding, fields["padding_mode"], fills(fields, image))
    return F.crop(wide, *(randint(draw, 0, 2 * padding) for draw in draws), HEIGHT, WIDTH)


def centre_crop(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    return resized(F.center_crop(image, fields["size"]), fields)


def resized(image: Tensor, fields: dict[str, Any]) -> Tensor:
    """Pillow's nearest pixels; for bilinear ones, floats, since Pillow and torchvision round between the two axes."""
    if fields["interpolation"] == "nearest":
        return from_pillow(F.resize(to_pillow(image), [HEIGHT, WIDTH], interpolation=InterpolationMode.NEAREST))
    return F.resize(image.float(), [HEIGHT, WIDTH]).round().to(torch.uint8)


def first_box(draws: Draws, fields: dict[str, Any], *, swapped: bool, limits: tuple[int, int]) -> list[int] | None:
    for number in range(10):
        area = uniform(draws[number], *fields["scale"]) * HEIGHT * WIDTH
        low, high = (math.log(ratio) for ratio in fields["ratio"])
        place = 1 - draws[10 + number] if swapped else draws[10 + number]
        ratio = math.exp(uniform(place, low, high))
        long, short = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        height, width = (short, long) if swapped else (long, short)
        if 0 < height <= limits[0] and 0 < width <= limits[1]:
            return [randint(draws[20], 0, HEIGHT - height), randint(draws[21], 0, WIDTH - width), height, width]
    return None


def resized_crop(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    box = first_box(draws, fields, swapped=True, limits=(HEIGHT, WIDTH))
    if box is None:
        width = round(HEIGHT * fields["ratio"][1])
        box = [0, (WIDTH - width) // 2, HEIGHT, width]
    return resized(F.crop(image, *box), fields)


def by_factor(function: Callable[[Tensor, float], Tensor], field: str = "factor") -> Reference:
    return lambda image, draws, fields: function(image, uniform(draws[0], *fields[field]))


JITTERS = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def colour_jitter(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    chosen = [name for name in JITTERS if fields.get(name)]
    values = {name: uniform(draw, *fields[name]) for name, draw in zip(chosen, draws[1:], strict=True)}
    orders = list(itertools.permutations(chosen))
    for name in orders[randint(draws[0], 0, len(orders) - 1)]:
        image = JITTERS[name](image, values[name])
    return image


def gaussian_noise(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    sigma = uniform(draws[0], *fields["sigma"])
    numbers = normal(torch.tensor(draws[1:], dtype=torch.float64), tuple(image.shape), image.device)[0]
    return ((image / 255 + numbers * sigma).clamp(0, 1) * 255).round().to(torch.uint8)


def gaussian_blur(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    return F.gaussian_blur(image, [fields["kernel_size"]] * 2, [uniform(draws[0], *fields["sigma"])] * 2)


def content(fill: object, image: Tensor, draw: float, holes: int, number: int) -> Tensor:
    """What a hole is filled with, (C, H, W)."""
    seed, channels = torch.tensor([draw], dtype=torch.float64), len(image)
    if fill == "pixel_noise":
        return (hashed(seed, image.numel(), image.device) >> 24).view(image.shape).to(torch.uint8)
    if fill == "box_noise":
        colours = hashed(seed, holes * channels, image.device).view(holes, channels) >> 24
        return colours[number].view(-1, 1, 1).expand(image.shape).to(torch.uint8)
    values = {"black": [0] * channels, "mean": [round(255 * value) for value in MEAN[:channels]]}
    chosen = values[fill] if isinstance(fill, str) else fills({"fill": fill}, image)
    return torch.tensor(chosen, dtype=torch.uint8).view(-1, 1, 1).expand(image.shape)


def erase(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    box = first_box(draws, fields, swapped=False, limits=(HEIGHT - 1, WIDTH - 1))
    if box is None:
        return image
    top, left, height, width = box
    filling = content(fields["fill"], image, draws[22], 1, 0)
    return F.erase(image, *box, filling[:, top : top + height, left : left + width])


def cutout(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    most = fields["holes"][1]
    for number in range(randint(draws[0], *fields["holes"])):
        heights, widths, tops, lefts = (draws[2 + most * row + number] for row in range(4))
        height, width = randint(heights, *fields["height"]), randint(widths, *fields["width"])
        if fields.get("clipped"):
            top, left = randint(tops, 0, HEIGHT - 1) - height // 2, randint(lefts, 0, WIDTH - 1) - width // 2
        else:
            top, left = randint(tops, 0, HEIGHT - height), randint(lefts, 0, WIDTH - width)
        rows, columns = (max(top, 0), min(top + height, HEIGHT)), (max(left, 0), min(left + width, WIDTH))
        filling = content(fields["fill"], image, draws[1], most, number)[:, slice(*rows), slice(*columns)]
        image = F.erase(image, rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0], filling)
    return image


SIZE = (HEIGHT, WIDTH)
ON_PILLOW = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Solarize"}


def operation(image: Tensor, name: str, magnitude: float, fields: dict[str, Any]) -> Tensor:
    """One operation of a policy by torchvision: of Pillow images if it moves pixels, else of tensors in version 2."""
    mode, fill = InterpolationMode(fields["interpolation"]), fills(fields, image)
    if name in ON_PILLOW:
        return from_pillow(autoaugment._apply_op(to_pillow(image), name, magnitude, mode, fill))
    return v2.RandAugment()._apply_image_or_video_transform(image, name, magnitude, mode, {Tensor: fill})


def from_space(space: dict[str, Any], name: str, number: int, is_negative: bool) -> float:
    magnitudes, signed = space[name]
    magnitude = float(magnitudes[number]) if magnitudes.ndim else 0.0
    return -magnitude if signed and is_negative else magnitude


def rand_augment(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    space = autoaugment.RandAugment()._augmentation_space(31, SIZE)
    for which, sign in zip(draws[::2], draws[1::2], strict=True):
        name = list(space)[randint(which, 0, len(space) - 1)]
        image = operation(image, name, from_space(space, name, fields["magnitude"], sign < 0.5), fields)
    return image


def trivial_augment(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    name = list(space)[randint(draws[0], 0, len(space) - 1)]
    return operation(image, name, from_space(space, name, randint(draws[1], 0, 30), draws[2] < 0.5), fields)


def auto_augment(image: Tensor, draws: Draws, fields: dict[str, Any]) -> Tensor:
    theirs = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.CIFAR10)
    space = theirs._augmentation_space(10, SIZE)
    for number, (name, probability, strength) in enumerate(theirs.policies[randint(draws[0], 0, 24)]):
        if draws[1 + 2 * number] <= probability:
            magnitude = from_space(space, name, strength or 0, draws[2 + 2 * number] < 0.5)
            image = operation(image, name, magnitude, fields)
    return image


rotate = geometric(_rotate, TF.rotate, F.rotate)
affine = geometric(_affine, TF.affine, F.affine)
shift_scale_rotate = geometric(_shift_scale_rotate, F.affine, F.affine)
perspective = geometric(_perspective, TF.perspective, _perspective_on_tensors)

NEAREST, BILINEAR = {"interpolation": "nearest"}, {"interpolation": "bilinear"}
ROTATE = {"degrees": 90.0, "fill": 5}
AFFINE = {"degrees": 30.0, "translate": 0.2, "scale": [0.5, 2.0], "shear": 20.0, "fill": 7}
SHIFT = {"shift_limit": 0.1, "scale_limit": 0.3, "rotate_limit": 45.0, "fill": 40}
PER_CHANNEL = {"fill": [5, 100, 250]}
MIRRORED = [{"padding_mode": mode} for mode in ("edge", "reflect", "symmetric")]
BOX = {"scale": [0.1, 0.9], "ratio": [0.5, 2.0]}
TALL = {"scale": [0.3, 1.0], "ratio": [0.5, 0.6]}  # seldom fits

JITTER = {"brightness": [0.5, 1.8], "contrast": [0.5, 1.8]}

EXAMPLES = [
    Example("rotate", {**ROTATE, **NEAREST}, rotate),
    Example("rotate", {**ROTATE, **NEAREST, **PER_CHANNEL}, rotate, kinds=(COLOUR,)),
    Example("rotate", {**ROTATE, **BILINEAR}, rotate, share=0.99, off_by=1),
    *(Example("rotate", {**ROTATE, **BILINEAR, **mode}, rotate, share=0.99, off_by=1) for mode in MIRRORED),
    *(Example("rotate", {**ROTATE, **NEAREST, **mode}, rotate, share=0.9995, off_by=255) for mode in MIRRORED),
    Example("affine", {**AFFINE, **NEAREST}, affine),
    Example("affine", {**AFFINE, **NEAREST, "translate_y": 0.5, "shear_y": 30.0}, affine),
    Example("affine", {**AFFINE, **BILINEAR, **PER_CHANNEL}, affine, share=0.99, off_by=1, kinds=(COLOUR,)),
    Example("shift_scale_rotate", {**SHIFT, **NEAREST}, shift_scale_rotate),
    Example("shift_scale_rotate", {**SHIFT, **BILINEAR}, shift_scale_rotate, share=0.99, off_by=1),
    Example("perspective", {"distortion_scale": 0.6, "fill": 3, **NEAREST}, perspective),
    Example("perspective", {"distortion_scale": 0.6, "fill": 3, **BILINEAR}, perspective, share=0.99, off_by=1),
    Example("elastic", {"alpha": 60.0, "sigma": 3.0, "fill": 9, **BILINEAR}, elastic, share=0.99, off_by=1),
    Example("elastic", {"alpha": 60.0, "sigma": 3.0, "fill": 9, **NEAREST}, elastic, share=0.9995, off_by=255),
    Example("horizontal_flip", {}, lambda image, draws, fields: F.hflip(image)),
    Example("vertical_flip", {}, lambda image, draws, fields: F.vflip(image)),
    Example("random_crop", {"padding": 4, "padding_mode": "constant", "fill": 9}, random_crop),
    Example("random_crop", {"padding": 4, "padding_mode": "constant", **PER_CHANNEL}, random_crop, kinds=(COLOUR,)),
    *(Example("random_crop", {"padding": 7, "fill": 0, **mode}, random_crop) for mode in MIRRORED),
    Example("centre_crop", {"size": [13, 22], **NEAREST}, centre_crop),
    Example("centre_crop", {"size": [13, 22], **BILINEAR}, centre_crop, share=0.97, off_by=1),
    Example("resized_crop", {**BOX, **NEAREST}, resized_crop),
    Example("resized_crop", {**BOX, **BILINEAR}, resized_crop, share=0.98, off_by=1),
    Example("resized_crop", {**TALL, **NEAREST}, resized_crop),
    Example("brightness", {"factor": [0.2, 1.8]}, by_factor(F.adjust_brightness)),
    Example("contrast", {"factor": [0.2, 1.8]}, by_factor(F.adjust_contrast), share=0.999, off_by=1),
    Example("saturation", {"factor": [0.2, 1.8]}, by_factor(F.adjust_saturation), share=0.999, off_by=1, kinds=(COLOUR,)),
    Example("hue", {"shift": [-0.5, 0.5]}, by_factor(F.adjust_hue, "shift"), share=0.999, off_by=1, kinds=(COLOUR,)),
    Example("colour_jitter", JITTER, colour_jitter, share=0.999, off_by=2),
    Example("colour_jitter", {**JITTER, "saturation": [0.2, 1.8], "hue": [-0.1, 0.1]}, colour_jitter, share=0.99, off_by=3, kinds=(COLOUR,)),
    Example("greyscale", {}, lambda image, draws, fields: F.rgb_to_grayscale(image, 3), kinds=(COLOUR,)),
    Example("invert", {}, lambda image, draws, fields: F.invert(image)),
    # Solarize and equalize make much of a pixel that is off by one after the operation before.
    Example("rand_augment", {"num_ops": 1, "magnitude": 9, "fill": 9, **NEAREST}, rand_augment, share=0.9999, off_by=1),
    Example("rand_augment", {"num_ops": 3, "magnitude": 20, "fill": 9, **NEAREST}, rand_augment, share=0.97, off_by=255),
    Example("trivial_augment", {"fill": 9, **NEAREST}, trivial_augment, share=0.9999, off_by=1),
    Example("auto_augment", {"fill": 9, **NEAREST}, auto_augment, share=0.998, off_by=255),
    Example("gaussian_noise", {"sigma": [0.05, 0.2]}, gaussian_noise, share=0.999, off_by=1),
    Example("gaussian_blur", {"kernel_size": 5, "sigma": [0.5, 2.0]}, gaussian_blur, share=0.999, off_by=1),
    *(Example("erase", {**BOX, "fill": fill}, erase) for fill in ("mean", "black", "pixel_noise", "box_noise", 17)),
    Example("erase", {**BOX, **PER_CHANNEL}, erase, kinds=(COLOUR,)),
    Example("erase", {**TALL, "fill": 17}, erase),
    Example("cutout", {"holes": [1, 1], "height": [8, 8], "width": [8, 8], "fill": "mean"}, cutout),
    Example("cutout", {"holes": [1, 3], "height": [2, 8], "width": [3, 12], "fill": "box_noise"}, cutout),
    Example("cutout", {"holes": [1, 3], "height": [2, 9], "width": [3, 12], "fill": "pixel_noise", "clipped": True}, cutout),
]  # fmt: skip
