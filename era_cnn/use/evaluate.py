"""Evaluates the network of a run on a split of its data set, or of another one that fits.

Shapes: N images, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn.config.choices import DataSection, entry_of
from era_cnn.config.description import described, info_of
from era_cnn.config.schema import RunConfig
from era_cnn.config.sections import FieldError
from era_cnn.data.batches import EvaluationBatches, Split
from era_cnn.errors import ConfigError, one_of, problem
from era_cnn.runs.parts import make_evaluation_batches, make_splits, read_data
from era_cnn.runs.process import device_of, pick_device, set_up
from era_cnn.training import evaluate as evaluation
from era_cnn.training.history import Scores
from era_cnn.training.precision import autocast
from era_cnn.use.evaluated import Augmented, Evaluated
from era_cnn.use.network import Run, Trained, Which

SPLITS = ("test", "val", "train")


def composed_data(overrides: Sequence[str]) -> DataSection:
    """The section `data` that overrides such as `data=qmnist` choose.

    Raises:
        ConfigError: If they are wrong.
    """
    from era_cnn.compose.composition import compose_data
    from era_cnn.compose.words import Words

    return compose_data(Words(list(overrides)))


def evaluate(
    run: Run,
    split: str = "test",
    *,
    data: DataSection | None = None,
    checkpoint: Which = "last",
    tta: bool = False,
    data_root: str | None = None,
    device: str | None = None,
) -> Evaluated:
    """Evaluates as the run did: with its normalisation, batches, precision and threads. See `Run.evaluate`."""
    config = _config(run.config, data, data_root)
    _check_split(split, config)
    place = device or usable_device(config)
    trained = run.trained(checkpoint, device=place)
    arrays = read_data(config)
    chosen = dict(zip(("train", "val", "test"), make_splits(arrays, config, pick_device(place)), strict=True))[split]
    assert chosen is not None, "checked by its name"
    batches = make_evaluation_batches(_renamed(chosen, run.config, config), config)
    with set_up(config.threads):
        found = evaluation.evaluate(trained.network, batches, precision=config.precision)
        augmented = _augmented(trained.network, batches, config) if tta else None
    return Evaluated(
        path=run.path,
        split=split,
        data=config.data.name,
        weights=trained,
        class_names=run.config.info.class_names,
        labels=found.labels.cpu().numpy(),
        logits=found.logits.cpu().numpy(),
        scores=found.scores(),
        augmented=augmented,
        notes=tuple(_notes(run.config, split, config, trained, arrays.sha256)),
    )


def usable_device(config: RunConfig) -> str:
    """The device that the run was trained on, or cpu where there is none like it."""
    try:
        return device_of(config).type
    except ConfigError:
        return "cpu"


def _config(config: RunConfig, data: DataSection | None, data_root: str | None) -> RunConfig:
    """The config with the data to evaluate on: another data set is normalised as the network learned it."""
    if data_root is not None and data is None:
        return config.with_data_root(data_root)
    if data is None:
        return config
    if data_root is not None:
        raise ConfigError([problem("--data-root", "be used without --data", data_root, "Give data.root=FOLDER.")])
    mean, std = config.data.normalisation
    try:
        section = described(data.model_copy(update={"mean": mean, "std": std}))
        info = info_of(section)
    except FieldError as error:
        raise ConfigError([error.at("data")]) from error
    own = config.info
    if (info.shape, info.num_classes) != (own.shape, own.num_classes):
        wanted, got = (f"{'×'.join(map(str, each.shape))} in {each.num_classes} classes" for each in (own, info))
        advice = "Choose another data set."
        raise ConfigError([f"--data must have images of {wanted}, as the run, got {data.name}: {got}. {advice}"])
    trainer = config.trainer.model_copy(update={"limit_train_images": None, "limit_test_images": None})
    return config.model_copy(update={"data": section, "trainer": trainer})


def _check_split(split: str, config: RunConfig) -> None:
    known = [each for each in SPLITS if each != "val" or config.has_val]
    if split not in known:
        rule = one_of(known) + ("" if config.has_val else ": there are no validation images")
        raise ConfigError([problem("--split", rule, split, f"Choose {known[0]}.")])


def _renamed(split: Split, own: RunConfig, config: RunConfig) -> Split:
    """The split with the labels that the run gave its classes, if the other data set has the same in another order."""
    names, others = own.info.class_names, config.info.class_names
    if names == others or set(names) != set(others):
        return split
    numbers = torch.tensor([names.index(name) for name in others], device=split.labels.device)
    return replace(split, labels=numbers[split.labels])


def _notes(own: RunConfig, split: str, config: RunConfig, trained: Trained, data_sha256: str) -> Iterator[str]:
    """What a reader has to know of the figures."""
    names, others = own.info.class_names, config.info.class_names
    if config.data is own.data or config.data.name == own.data.name:
        choosing = "val" if own.has_val else "test"
        if split == "train":
            yield "The network was trained on these images."
        if trained.which == "best" and split == choosing:
            yield "The epoch was chosen on these images, so its accuracy is too optimistic."
        if trained.data_sha256 not in (None, data_sha256):
            yield "These images are not those of the run: the data has another SHA-256."
    if set(names) != set(others):
        pairs = [f"{mine} = {theirs}" for mine, theirs in zip(names, others, strict=True) if mine != theirs]
        yield f"The classes have other names, and are matched by number: {', '.join(pairs[:8])}"


View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Shift:
    """Shifts images (B, C, H, W) down and right by whole pixels; the pixels at the border are repeated."""

    down: int
    right: int

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        rows = (torch.arange(height, device=images.device) - self.down).clamp_(0, height - 1)
        columns = (torch.arange(width, device=images.device) - self.right).clamp_(0, width - 1)
        return images[:, :, rows][:, :, :, columns]


SHIFTS = (_Shift(0, 0), _Shift(1, 0), _Shift(-1, 0), _Shift(0, 1), _Shift(0, -1))
FLIPS = {"horizontal_flip": 3, "vertical_flip": 2}
"""The axis of each flip. A network that was trained without it takes a mirrored image for another one."""


def views_of(config: RunConfig) -> tuple[list[View], str]:
    """The views of an image that test-time augmentation averages over, the image itself first; and their description.

    One-pixel shifts suit any network. Images are mirrored only as they were in training.
    """
    known = {entry_of(*each) for each in config.augmentation.chosen().items()}
    names = [name for name in FLIPS if name in known]
    choices = itertools.chain.from_iterable(itertools.combinations(names, count) for count in range(len(names) + 1))
    flips = [[FLIPS[name] for name in chosen] for chosen in choices]
    views = [_view(shift, axes) for axes in flips for shift in SHIFTS]
    return views, " and ".join(["shifts by one pixel", *names])


def _view(shift: _Shift, axes: list[int]) -> View:
    return lambda images: shift(images.flip(axes) if axes else images)


@torch.no_grad()
def _augmented(network: nn.Module, batches: EvaluationBatches, config: RunConfig) -> Augmented:
    """The scores of the mean of the probabilities over all views of an image."""
    views, description = views_of(config)
    tally = evaluation.Tally(batches.split.labels.device)
    for batch in batches:
        total = torch.zeros(())
        for view in views:
            with autocast(batch.images.device, config.precision):
                logits = network(view(batch.images).contiguous(memory_format=torch.channels_last)).float()
            total = total.to(logits.device) + logits.softmax(dim=1)
        mean = (total / len(views)).clamp_min(torch.finfo(torch.float32).tiny)
        tally.add(F.nll_loss(mean.log(), batch.labels), mean, batch.labels)
    scores = Scores(tally.loss, tally.accuracy, int(tally.num_correct), tally.num_images)
    return Augmented(len(views), description, scores)
