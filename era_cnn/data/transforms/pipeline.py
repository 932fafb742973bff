"""What a transform is, and the pipeline that applies the transforms of a config in sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from era_cnn.config.choices import TRANSFORMS, TransformSection, entry_of
from era_cnn.config.data_info import DataInfo
from era_cnn.config.signatures import is_own
from era_cnn.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Maps images (B, C, H, W) uint8, on any device, to images of the same shape and type.

    `num_draws` is the number of random numbers for each image. `change` takes the images and those numbers, shape
    (num_draws, B), uniform in [0, 1), float64 on the CPU. What it makes of an image depends on nothing else, such as
    the other images.
    """

    num_draws: int
    change: Callable[[Tensor, Tensor], Tensor]
    is_last: ClassVar[bool] = False


@dataclass(frozen=True)
class Mix:
    """Mixes each image of a normalised batch (B, C, H, W), float32, with a partner from the same batch.

    `change` takes the images, their partners, and random numbers as those of a `Transform`; it returns the mixed images
    and the share of its own pixels in each, (B,), float64 on the CPU.
    """

    num_draws: int
    change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    per: Literal["batch", "image"] = "batch"
    """Whether all images of a batch use the random numbers of the first one."""

    probability: float = 1.0
    is_last: ClassVar[bool] = True

    def __call__(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mixes a batch with its draws, (2 + num_draws, B): the first two choose partners, and who is mixed at all.

        Partners are a random permutation, so an image may be its own partner.

        Returns:
            The mixed images, the index of each partner (B,), and the share of the own image (B,), float32; all on the
            device of the images.
        """
        partners = draws[0].argsort(stable=True).to(images.device)
        shared = draws[1:, :1].expand(-1, len(images)) if self.per == "batch" else draws[1:]
        mixed, shares = self.change(images, images[partners], shared[1:])
        is_mixed = shared[0] < self.probability
        shares = shares.where(is_mixed, 1).to(images.dtype).to(images.device)
        return mixed.where(is_mixed.to(images.device).view(-1, 1, 1, 1), images), partners, shares


class Pipeline:
    """Applies transforms in sequence; each takes its own rows of the random numbers.

    A `Mix`, if there is one, takes the last rows. It is applied to a normalised batch, after everything else.
    """

    def __init__(self, transforms: Sequence[Transform], mix: Mix | None = None) -> None:
        self.transforms, self._mix = tuple(transforms), mix
        self._mix_draws = mix.num_draws + 2 if mix else 0
        self.num_draws = sum(each.num_draws for each in transforms) + self._mix_draws

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transforms each image (B, C, H, W) with its column of the draws (num_draws, B)."""
        for each in self.transforms:
            own, draws = draws[: each.num_draws], draws[each.num_draws :]
            images = each.change(images, own)
        return images

    def mix(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Mixes a normalised batch with its draws (num_draws, B), as `Mix` does; None if there is nothing to mix."""
        return self._mix(images, draws[-self._mix_draws :]) if self._mix else None


def make_pipeline(chosen: Mapping[str, TransformSection], info: DataInfo, mean: Sequence[float]) -> Pipeline:
    """The transforms of a config, in its order.

    Args:
        chosen: The fields of each transform by its name; one that mixes can only be the last.
        info: The description of the images.
        mean: The mean of each channel, scaled to [0, 1].

    Raises:
        FieldError: If a transform does not fit the images.
    """
    made = [(_made(entry_of(name, section), section, info, mean), section) for name, section in chosen.items()]
    assert not any(each.is_last for each, _ in made[:-1]), "the rules of the config say so"
    mix = replace(made[-1][0], probability=made[-1][1].probability) if made and made[-1][0].is_last else None
    return Pipeline([sometimes(each, section.probability) for each, section in made if not each.is_last], mix)


def _made(kind: str, section: TransformSection, info: DataInfo, mean: Sequence[float]) -> Any:
    """A transform; what that of a plugin returns is checked before it is used."""
    made = TRANSFORMS.make(kind, section, info=info, mean=mean)
    if is_own(TRANSFORMS[kind]):
        return made

    def change(images: Tensor, *given: Tensor) -> Any:
        changed = made.change(images, *given)
        if not (_is_mixed if made.is_last else _is_like)(images, changed):
            shares = ", and shares in [0, 1] of shape (B,)" if made.is_last else ""
            rule = f"return a tensor of {images.dtype}, shape {tuple(images.shape)}{shares}"
            raise PluginError(TRANSFORMS.fault(kind, rule, changed))
        return changed

    return Mix(made.num_draws, change, made.per) if made.is_last else Transform(made.num_draws, change)


def _is_like(images: Tensor, changed: Any) -> bool:
    return isinstance(changed, type(images)) and all(
        getattr(changed, each) == getattr(images, each) for each in ("dtype", "shape", "device")
    )


def _is_mixed(images: Tensor, changed: Any) -> bool:
    if not isinstance(changed, (tuple, list)) or len(changed) != 2 or not _is_like(images, changed[0]):
        return False
    shares = changed[1]
    return (
        isinstance(shares, type(images))
        and shares.shape == images.shape[:1]
        and bool(((shares >= 0) & (shares <= 1)).all())
    )


def sometimes(transform: Transform, probability: float) -> Transform:
    """Applies a transform to each image with a probability, decided by one more draw; with 1, it is the transform."""
    if probability == 1:
        return transform

    def change(images: Tensor, draws: Tensor) -> Tensor:
        (chosen,) = (draws[0] < probability).nonzero(as_tuple=True)
        if not len(chosen):
            return images
        where = chosen.to(images.device)
        changed = images.clone()
        changed[where] = transform.change(images[where], draws[1:, chosen])
        return changed

    return Transform(1 + transform.num_draws, change)
