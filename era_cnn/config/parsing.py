"""Turns a composed config into typed objects, and checks every rule that involves several keys."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, create_model

from era_cnn.config.choices import GROUPS, SCHEDULERS, DataSection, SchedulerSection, entry_of
from era_cnn.config.data_info import DataInfo
from era_cnn.config.description import described, info_of, is_described
from era_cnn.config.groups import LISTED
from era_cnn.config.messages import field_problems
from era_cnn.config.network import ModelConfig, is_order
from era_cnn.config.schema import (
    Augmentation,
    Loggers,
    RunConfig,
    Target,
    check_schedule,
    make_schedule,
    num_train_images,
    watchers,
)
from era_cnn.config.sections import Choice, FieldError, Section, values_of
from era_cnn.config.trainer import EarlyStopping, TrainerConfig
from era_cnn.errors import ConfigError, amount, problem


def parse(values: Any, *, is_stored: bool = False) -> RunConfig:
    """Turns a composed and resolved config, as plain values, into typed objects.

    What is null and has to be found in the files of the data set is filled in, once nothing else is wrong.

    Args:
        values: The config.
        is_stored: Whether it comes from a run folder: then no files are read, whatever it says.

    Raises:
        ConfigError: If the config is wrong; lists every problem.
        DataError: If such files are missing or damaged.
    """
    problems: list[str] = []
    schema = RunConfig
    if isinstance(values, dict):
        given = [key for key in GROUPS if key in values and not (key in LISTED and values[key] == {})]
        chosen = {key: _chosen(key, values[key], problems) for key in given}
        schema = _schema(tuple(chosen.items()))
    try:
        config = schema.model_validate(values)
        sections = _sound_sections(schema, values) if problems else values_of(config)
    except ValidationError as error:
        problems += field_problems(error, schema)
        sections = _sound_sections(schema, values)
    problems += _problems_between_keys(sections)
    data = sections.get("data")
    if is_stored and isinstance(data, DataSection) and not is_described(data):
        problems.append("data must have its contents, mean and std, as in a composed config, got null. Restore them.")
    elif isinstance(data, DataSection) and (is_described(data) or not problems):
        try:
            data = sections["data"] = described(data)
            sections["info"] = info_of(data)
            problems += _problems_between_keys(sections, with_info=True)
        except ValidationError as error:
            problems += field_problems(error, type(data), "data.")
        except FieldError as error:
            problems.append(error.at("data"))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    config = config.model_copy(update={"data": data})
    if not is_stored:
        check_schedule(config)
    return config


def parse_data(values: Any) -> DataSection:
    """The section `data` of a composed config alone; what is null in it stays so.

    Raises:
        ConfigError: If it is wrong; lists every problem.
    """
    problems: list[str] = []
    schema = _chosen("data", values, problems)
    if problems:
        raise ConfigError(problems)
    try:
        section: DataSection = schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(field_problems(error, schema, "data.")) from error
    if problems := list(_data_fits(section)):
        raise ConfigError(problems)
    return section


def _chosen(key: str, value: Any, problems: list[str]) -> Any:
    """The type of the section at a key whose entry is chosen by name; appends what is wrong with the name."""
    if not isinstance(value, dict):
        return RunConfig.model_fields[key].annotation
    if key in LISTED and ("name" in value or not all(isinstance(each, dict) for each in value.values())):
        kind, example = GROUPS[key].kind, EXAMPLES[key]
        rule = f"map each {kind} to its fields, as {example}"
        problems.append(problem(key, rule, value, f"Write the name of the {kind} as its key."))
        return Any
    if key in LISTED:
        members = tuple((name, _member(key, name, fields, problems)) for name, fields in value.items())
        return Any if any(hasattr(Augmentation, name) for name in value) else _listed(key, members)
    if "name" not in value:
        problems.append(f"{key}.name must be given, got nothing. Choose one: {key}=…")
        return Any
    return _section_of(key, f"{key}.name", value["name"], problems)


def _member(key: str, name: str, fields: Mapping[str, Any], problems: list[str]) -> Any:
    """The type of the section of one transform or logger by its name; a transform may have a name of its own."""
    kind = fields.get("transform") if key == "augmentation" else None
    if kind is None or kind == name:
        return _section_of(key, key, name, problems)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or hasattr(Augmentation, name) or name in GROUPS[key]:
        rule = "have a name of lower-case letters, digits and _ that no transform has"
        problems.append(problem(f"{key}.{name}", rule, name, f"Rename it, as {kind}_2."))
        return Any
    return _section_of(key, f"{key}.{name}.transform", kind, problems)


def _section_of(group: str, key: str, name: object, problems: list[str]) -> Any:
    """The type of an entry's section; `Any` if the entry is unknown."""
    if not isinstance(name, str) or name not in GROUPS[group]:
        problems.append(GROUPS[group].unknown(key, name))
        return Any
    try:
        return GROUPS[group].section(name)
    except ConfigError as error:  # the entry comes from a broken plugin
        problems += error.problems
        return Any


EXAMPLES = {"augmentation": "{rotate: {degrees: 7.0, fill: 1}}", "logger": "{tensorboard: {}}"}


@functools.lru_cache(maxsize=256)
def _listed(key: str, chosen: tuple[tuple[str, Any], ...]) -> type[Section]:
    description = f"the fields of the {GROUPS[key].kind}"
    fields: dict[str, Any] = {name: (section, Field(description=description)) for name, section in chosen}
    base: type[Section] = Augmentation if key == "augmentation" else Loggers
    return create_model(base.__name__, __base__=base, **fields)


@functools.lru_cache(maxsize=256)
def _schema(chosen: tuple[tuple[str, Any], ...]) -> type[RunConfig]:
    """The schema of a run with the sections that were chosen."""
    fields: dict[str, Any] = {key: (section, RunConfig.model_fields[key]) for key, section in chosen}
    return create_model("RunConfig", __base__=RunConfig, **fields)


def _sound_sections(schema: type[RunConfig], values: Any) -> dict[str, Any]:
    """The sections that are valid by themselves: the rules between keys can be checked only on those."""
    sections = {}
    for name, field in schema.model_fields.items():
        if isinstance(values, dict) and name in values and field.annotation is not Any:
            try:
                annotation: Any = Annotated[field.annotation, field]
                sections[name] = TypeAdapter(annotation).validate_python(values[name], strict=True)
            except ValidationError:
                continue  # reported already
    return sections


def _problems_between_keys(sections: Mapping[str, Any], *, with_info: bool = False) -> Iterator[str]:
    """The problems found by the rules whose sections are all valid by themselves.

    Args:
        sections: The sections that are valid by themselves, by name.
        with_info: Whether to try the rules that need the description of the data set, or all others.
    """
    for rule, needed in _NEEDED.items():
        if needed <= sections.keys() and ("info" in needed) is with_info:
            yield from rule(**{name: sections[name] for name in needed})


def _epochs_within_target(name: str, trainer: TrainerConfig, target: Target) -> Iterator[str]:
    if target.max_epochs is not None and trainer.epochs > target.max_epochs:
        rule = f"be at most {target.max_epochs}, the target of {name}"
        advice = "Lower it, or raise target.max_epochs; ~experiment drops the target."
        yield problem("trainer.epochs", rule, trainer.epochs, advice)


def _unaugmented_epochs_within_training(trainer: TrainerConfig) -> Iterator[str]:
    if trainer.unaugmented_epochs > trainer.epochs:
        rule = f"be at most {trainer.epochs}, the number of epochs"
        yield problem("trainer.unaugmented_epochs", rule, trainer.unaugmented_epochs, "Lower it, or train longer.")


def _entries_fit_themselves(key: str, choices: Mapping[str, Section]) -> Iterator[str]:
    for name, section in choices.items():
        if not isinstance(section, Section):  # the transform is unknown: reported already
            continue
        try:
            GROUPS[key].check(entry_of(name, section), section)
        except FieldError as error:
            yield error.at(f"{key}.{name}" if key in LISTED else key)


def _optimizer_fits(optimizer: Choice) -> Iterator[str]:
    yield from _entries_fit_themselves("optimizer", {optimizer.name: optimizer})


def _transforms_fit(augmentation: Augmentation) -> Iterator[str]:
    yield from _entries_fit_themselves("augmentation", augmentation.chosen())


def _loggers_fit(logger: Loggers) -> Iterator[str]:
    yield from _entries_fit_themselves("logger", logger.chosen())


def _transforms_fit_the_images(info: DataInfo, data: DataSection, augmentation: Augmentation) -> Iterator[str]:
    """Makes each transform, which takes no time, to see whether it fits the images and may stand where it does."""
    chosen = augmentation.chosen()
    for number, (name, section) in enumerate(chosen.items(), start=1):
        if not isinstance(section, Section):
            continue
        try:
            transform = GROUPS["augmentation"].make(entry_of(name, section), section, info=info, mean=data.mean)
        except FieldError as error:
            yield error.at(f"augmentation.{name}")
            continue
        if getattr(transform, "is_last", False) and number < len(chosen):
            rule = "be the last transform, since it mixes whole batches after all else"
            yield problem(f"augmentation.{name}", rule, list(chosen), "Move it to the end; use one such transform.")


def _data_fits(data: DataSection) -> Iterator[str]:
    yield from _entries_fit_themselves("data", {data.name: data})


def _schedule_fits(
    info: DataInfo, data: DataSection, scheduler: SchedulerSection, trainer: TrainerConfig
) -> Iterator[str]:
    """Creates the schedule, which takes no time, to see whether it fits the training, and what it watches."""
    steps_per_epoch = trainer.steps_per_epoch(num_train_images(info, data, trainer))
    if steps_per_epoch < 1:
        return
    try:
        SCHEDULERS.check(scheduler.name, scheduler)
        schedule = make_schedule(scheduler, epochs=trainer.epochs, steps_per_epoch=steps_per_epoch, watch=trainer.watch)
    except FieldError as error:
        yield error.at("scheduler")
    else:
        has_val = bool(data.val_size or info.val_size)
        yield from _what_is_watched_exists(watchers(schedule, trainer), trainer.watch, has_val=has_val)


def _what_is_watched_exists(watching: Sequence[str], watch: str, *, has_val: bool) -> Iterator[str]:
    if watching and watch.startswith("val_") and not has_val:
        rule = f"be a value that {' and '.join(watching)} can watch, and there are no validation images"
        train, test = (watch.replace("val", split) for split in ("train", "test"))
        advice = f"Set data.val_size=…, trainer.watch={train} or, to choose on the test set, trainer.watch={test}."
        yield problem("trainer.watch", rule, watch, advice)
    if not watching and watch != TrainerConfig.model_fields["watch"].default:
        rule = "be val_loss, since nothing watches it"
        yield problem("trainer.watch", rule, watch, "Set scheduler=plateau or trainer.early_stopping.patience=…")


def _early_stopping_has_patience(trainer: TrainerConfig) -> Iterator[str]:
    stopping = trainer.early_stopping
    for key in ("min_delta", "min_epochs"):
        value = getattr(stopping, key)
        if stopping.patience is None and value != EarlyStopping.model_fields[key].default:
            rule = "be left out without trainer.early_stopping.patience"
            yield problem(f"trainer.early_stopping.{key}", rule, value, "Set trainer.early_stopping.patience=5.")


def _there_is_a_target_to_stop_at(trainer: TrainerConfig, target: Target) -> Iterator[str]:
    if trainer.stop_at_target and target.test_accuracy is None:
        yield problem(
            "trainer.stop_at_target", "be false without target.test_accuracy", True, "Set target.test_accuracy=…"
        )


def _momentum_can_cycle(optimizer: Choice, scheduler: SchedulerSection) -> Iterator[str]:
    cycled = getattr(scheduler, "max_momentum", None)
    if cycled is None or hasattr(optimizer, "betas") or getattr(optimizer, "momentum", None):
        return
    rule, advice = "be null without momentum", "Set optimizer.momentum=0.9."
    if not hasattr(optimizer, "momentum"):
        rule, advice = f"be null for {optimizer.name}, which has no momentum", "Set scheduler.base_momentum=null too."
    yield problem("scheduler.max_momentum", rule, cycled, advice)


def _there_is_a_run_to_begin_with(
    init_from: str | None, init_from_checkpoint: str, init_from_sha256: str | None
) -> Iterator[str]:
    for key, value, neutral in (
        ("init_from_checkpoint", init_from_checkpoint, "last"),
        ("init_from_sha256", init_from_sha256, None),
    ):
        if init_from is None and value != neutral:
            yield problem(key, "be left out without init_from", value, "Set init_from to the folder of a run.")


def _each_class_has_a_weight(info: DataInfo, trainer: TrainerConfig) -> Iterator[str]:
    weights = trainer.class_weights
    if isinstance(weights, list) and len(weights) != info.num_classes:
        rule = f"have {info.num_classes} weights, one for each class"
        yield problem("trainer.class_weights", rule, weights, "Write it as a list, or set it to balanced.")


def _pixels_fit_the_channels(info: DataInfo, data: DataSection) -> Iterator[str]:
    channels = info.shape[0]
    for key, values in zip(("mean", "std"), data.normalisation, strict=True):
        if len(values) != channels:
            rule = f"have {amount(channels, 'value')}, one for each channel of {data.name}"
            yield problem(f"data.{key}", rule, values, "Write it as a list.")


def _both_sides_of_the_split_have_every_class(info: DataInfo, data: DataSection) -> Iterator[str]:
    largest = info.train_size - info.num_classes
    if data.val_size and info.val_size:
        rule = f"be 0: {data.name} has {info.val_size:,} validation images of its own"
        yield problem("data.val_size", rule, data.val_size, "Set it to 0.")
    elif data.val_size and not info.num_classes <= data.val_size <= largest:
        rule = f"be 0, or from {info.num_classes} to {largest:,}: at least one image of each class on both sides"
        example = min(max(info.num_classes, info.train_size // 12), largest)
        advice = f"Give the number of training images to validate on, {example} for example."
        yield problem("data.val_size", rule, data.val_size, advice)


def _every_part_once(model: ModelConfig) -> Iterator[str]:
    if not is_order(model.order):
        yield problem("model.order", "name every part once", model.order, "Write each part once.")


def _graphs_need_cuda(device: str, trainer: TrainerConfig) -> Iterator[str]:
    if trainer.cuda_graphs and device != "cuda":
        yield problem("trainer.cuda_graphs", "be false unless device is cuda", True, "Set device=cuda.")


def _full_batches_exist_where_needed(info: DataInfo, data: DataSection, trainer: TrainerConfig) -> Iterator[str]:
    images = num_train_images(info, data, trainer)
    for key in ("compile", "drop_last"):
        if getattr(trainer, key) and images < trainer.batch_size:
            rule = f"be false without a full batch: there are {amount(images, 'training image')}"
            yield problem(f"trainer.{key}", rule, True, "Remove it, or lower trainer.batch_size.")


def _portable_arithmetic_is_plain(
    portable: bool, device: str, threads: int, precision: str, optimizer: Choice, trainer: TrainerConfig
) -> Iterator[str]:
    if not portable:
        return
    why = "with portable=true"
    if device not in ("auto", "cpu"):
        yield problem("device", f"be cpu {why}", device, "Set device=cpu.")
    if threads != 1:
        yield problem("threads", f"be 1 {why}: how sums are split among threads varies", threads, "Remove it.")
    if precision != "fp32":
        yield problem("precision", f"be fp32 {why}", precision, "Remove it.")
    if optimizer.name == "muon":
        yield problem("optimizer", f"be another one {why}: Muon computes in bfloat16", "muon", "Set optimizer=adamw.")
    if trainer.compile:
        yield problem("trainer.compile", f"be false {why}: code is compiled for one processor", True, "Remove it.")


RULES: tuple[Callable[..., Iterator[str]], ...] = (
    _epochs_within_target,
    _unaugmented_epochs_within_training,
    _optimizer_fits,
    _transforms_fit,
    _loggers_fit,
    _transforms_fit_the_images,
    _data_fits,
    _schedule_fits,
    _early_stopping_has_patience,
    _there_is_a_target_to_stop_at,
    _momentum_can_cycle,
    _each_class_has_a_weight,
    _there_is_a_run_to_begin_with,
    _pixels_fit_the_channels,
    _both_sides_of_the_split_have_every_class,
    _every_part_once,
    _graphs_need_cuda,
    _full_batches_exist_where_needed,
    _portable_arithmetic_is_plain,
)
"""Rules that involve several keys; the parameters of each are the sections that it needs."""

_NEEDED = {rule: inspect.signature(rule).parameters.keys() for rule in RULES}
"""The sections that each rule needs."""
