"""The recipe of a run at a glance: data, augmentation, optimizer, schedule and trainer, a line for each."""

from __future__ import annotations

from era_cnn.config.schema import RunConfig
from era_cnn.config.sections import NoEffect, Section
from era_cnn.config.settings import as_typed_value
from era_cnn.errors import harmless


def recipe_of(config: RunConfig) -> dict[str, str]:
    """Each part of the recipe by its title: the keys that have another value than their default."""
    info = config.info
    shape = "×".join(map(str, info.shape))
    split = config.data.val_size  # taken from the training images
    sizes = {"training": info.train_size - split, "validation": info.val_size + split, "test": info.test_size}
    limits = {"training": config.trainer.limit_train_images, "test": config.trainer.limit_test_images}
    images = " + ".join(f"{_used(size, limits.get(name))} {name}" for name, size in sizes.items() if size)
    return {
        "Data": f"{config.data.name}, {images} images of {shape} in {info.num_classes} classes",
        "Augmentation": "; ".join(_named(name, each) for name, each in config.augmentation.chosen().items()) or "none",
        "Optimizer": _named(config.optimizer.name, config.optimizer),
        "Schedule": _named(config.scheduler.name, config.scheduler),
        "Training": described_values(config.trainer),
    }


def _used(size: int, limit: int | None) -> str:
    return f"{size:,}" if limit is None or limit >= size else f"{limit:,} of {size:,}"


def _named(name: str, section: Section) -> str:
    return f"{name}, {values}" if (values := described_values(section)) else name


def described_values(section: Section) -> str:
    """The keys of a section that can change the result and have no default, or another value than that."""
    values = {
        key: as_typed_value(value)
        for key, value in section.model_dump(exclude_defaults=True).items()
        if key != "name" and NoEffect() not in type(section).model_fields[key].metadata
    }
    return harmless(", ".join(f"{key} {value}" for key, value in values.items()))
