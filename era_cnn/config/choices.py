"""Registries of what a config chooses by name: blocks, data sets, transforms, optimizers, schedulers and the like.

An entry is a decorated class or function, built in or from a plugin. The program passes its positional parameters:

- a block, a class of `nn.Module`: any of `in_channels`, `in_size` (height, width) and `num_classes`; if it also takes
  flattened input, `in_shape`, (C, H, W) or (F,); if it takes several inputs, `in_shapes`, the shape of each by name;
- a data set, a class with the methods `info() -> DataInfo` and `read() -> Arrays`: nothing; one that is read from a
  folder calls that field `root`, so that `--data-root` and relative paths work; one that can be described only from its
  files has the field `contents`, which is filled in when a config is composed;
- a transform, a function that returns a `Transform` or a `Mix`: any of `info`, the `DataInfo`, and `mean`, that of each
  channel, scaled to [0, 1];
- an optimizer, a function that returns one of PyTorch's: the parameters;
- a scheduler, a function that returns a `Schedule` or just the function of the step that gives the factor: any of
  `epochs`, `steps_per_epoch` and `watch`, the name of the watched value;
- a launcher, a function that returns the config of one of Hydra's launcher plugins, with its `_target_`: `sweep_dir`,
  the only folder that the plugin may write to;
- a logger, a class of `era_cnn.Sink`: `run`, the `LoggedRun`.

Its keyword parameters are its fields in YAML. Their annotations hold ranges and descriptions (noun phrases, since a
message about a field ends in "Give <description>."). A rule that needs more than one field raises a `FieldError`,
either when the entry is created or, without any import, in the `check` that the decorator takes.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from era_cnn.config import plugins
from era_cnn.config.groups import KINDS
from era_cnn.config.schedule import Schedule
from era_cnn.config.sections import Choice, Section
from era_cnn.config.signatures import given_parameters, is_own, keyword_parameters, place_of, section_of
from era_cnn.config.synonyms import suggestion
from era_cnn.errors import ConfigError, PluginError, described, one_of, problem

E = TypeVar("E", bound=Callable[..., Any])
Check = Callable[[Any], None]


class Made(NamedTuple):
    """What the entries of one kind make, in words, and whether something is that; no class is."""

    what: str
    holds: Callable[[Any], bool]


class Registry(Mapping[str, E], Generic[E]):
    """The entries of one kind by name. Listing the names imports no plugin.

    Args:
        kind: The kind of entry, such as block; the prefix of entry point names.
        built_in: The module that registers the built-in entries.
        base: The section that the schemas of entries extend.
        given: What the program gives an entry by position, by name.
        made: What an entry makes of its fields; None for anything.
    """

    def __init__(
        self, kind: str, built_in: str, base: type[Section], given: tuple[str, ...] = (), made: Made | None = None
    ) -> None:
        self.kind, self.base, self.given, self._made = kind, base, given, made
        self._built_in = built_in
        self._entries: dict[str, E] = {}
        self._checks: dict[tuple[str, E], Check | None] = {}  # so that a check goes with its entry

    def register(self, name: str, *, check: Check | None = None) -> Callable[[E], E]:
        """Registers the decorated class or function under `name`.

        Args:
            name: As it is written in YAML.
            check: Takes the section of the entry's fields, and raises a `FieldError` if they contradict each other.

        Raises:
            ConfigError: If the name is taken or invalid. In an interactive session, a class that is defined again
                replaces the earlier one.
        """
        if not isinstance(name, str):
            advice = f'Write @era_cnn.{self.kind}("NAME").'
            raise ConfigError([problem(f"era_cnn.{self.kind}", "be called with a name, as a string", name, advice)])
        if not re.fullmatch(plugins.NAME, name) or hasattr(BaseModel, name) or name == "chosen":
            rule = "be lower-case letters, digits and _, and no method of pydantic's"
            raise ConfigError([problem(f"The name of a {self.kind}", rule, name, "Rename it.")])

        def enter(entry: E) -> E:
            if not is_own(entry):
                importlib.import_module(self._built_in)  # so that their names are taken
            before = self._entries.get(name)
            if before is not None and not _is_redefinition(before, entry):
                both = f"{place_of(before)} and {place_of(entry)}"
                raise ConfigError([f"{self.kind}.{name} must be registered once, got {both}. Rename one of the two."])
            self._entries[name] = entry
            self._checks[name, entry] = check
            return entry

        return enter

    def __getitem__(self, name: str) -> E:
        importlib.import_module(self._built_in)
        point = plugins.entry_point(self.kind, name)
        if name in self._entries and point and point.module != self._entries[name].__module__:
            package = plugins.package_of(point)
            both = f"{place_of(self._entries[name])} and {point.value} of {package}"
            advice = f"{'U' if is_own(self._entries[name]) else 'Rename one of the two, or u'}ninstall {package}."
            raise ConfigError([f"{self.kind}.{name} must be registered once, got {both}. {advice}"])
        if name not in self._entries and point:
            with _all_or_nothing():
                plugins.import_entry_point(point)
            if name not in self._entries:
                got = f"{point.value} of {plugins.package_of(point)}, which does not"
                raise ConfigError([f"The plugin of {self.kind}.{name} must register it, got {got}. Uninstall it."])
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        importlib.import_module(self._built_in)
        return iter(sorted({*self._entries, *plugins.entry_points(self.kind)}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        importlib.import_module(self._built_in)
        return name in self._entries or name in plugins.entry_points(self.kind)

    def section(self, name: str) -> type[Section]:
        """The schema of an entry's fields.

        Raises:
            KeyError: If there is no such entry.
            ConfigError: If it comes from a plugin that can't be imported, or a field has no range.
        """
        return section_of(self.kind, self.base, self.given, name, self[name])

    def built_in_sections(self) -> dict[str, type[Section]]:
        """The schemas of the built-in entries by name, whatever plugins are installed."""
        importlib.import_module(self._built_in)
        own = {name: entry for name, entry in sorted(self._entries.items()) if is_own(entry)}
        return {name: section_of(self.kind, self.base, self.given, name, entry) for name, entry in own.items()}

    def check(self, name: str, section: Section) -> None:
        """Raises a `FieldError` if the fields of an entry contradict each other."""
        check = self._checks.get((name, self[name]))
        if check is not None:
            check(section)

    def unknown(self, key: str, name: object) -> str:
        """The message about an unknown name."""
        known = list(self)
        near = suggestion(str(name), known, f"Choose one: {key}={known[0]}")
        return problem(key, one_of(known), name, near)

    def make(self, name: str, section: Section, **given: Any) -> Any:
        """Calls an entry with the fields of its section and with those of `given` that it takes.

        Raises:
            ConfigError: If it makes something else than its kind does.
        """
        entry = self[name]
        wanted = {parameter: given[parameter] for parameter in given_parameters(entry) if parameter in given}
        made = entry(**wanted, **section.model_dump(include={each.name for each in keyword_parameters(entry)}))
        if self._made and (isinstance(made, type) or not self._made.holds(made)):
            raise ConfigError([self.fault(name, f"make {self._made.what}", made)])
        return made

    def fault(self, name: str, rule: str, got: object) -> str:
        """The message about an entry whose code breaks a rule, with the file to fix."""
        return f"{self.kind}.{name} must {rule}, got {described(got)}. {self.where_to_fix(name)}"

    def where_to_fix(self, name: str) -> str:
        """The advice about an entry whose code is wrong."""
        file = file_of(self[name])
        return f"Fix {self.kind}.{name}{f' in {file}' if file else ''}."

    def imported(self) -> dict[str, E]:
        """The entries that are registered so far; imports no plugin."""
        return dict(self._entries)

    def restore(self, entries: Mapping[str, E]) -> None:
        """Removes all that was registered since `imported` returned `entries`, except the built-in entries.

        The built-in module may have been imported since then, and would not be imported again.
        """
        own = {name: entry for name, entry in self._entries.items() if is_own(entry)}
        self._entries = {**own, **entries}


def _is_redefinition(before: Any, entry: Any) -> bool:
    return bool(entry.__module__ == "__main__" and place_of(before) == place_of(entry))


def file_of(entry: Any) -> str:
    """The file of an entry; empty if it was typed at a prompt."""
    return getattr(sys.modules.get(entry.__module__), "__file__", None) or ""


@contextmanager
def before_training() -> Iterator[None]:
    """Turns the fault of a plugin into a fault of the config that names it: within the context, nothing trains yet."""
    try:
        yield
    except PluginError as error:
        raise ConfigError([str(error)]) from error


# The kinds. A module with built-in entries is imported only when one of its entries is named.

Fraction = Annotated[float, Field(ge=-1e6, le=1e6)]
Channels = BeforeValidator(lambda value: [value] if isinstance(value, int | float) else value)


class DataSection(Choice):
    """The fields that every data set has."""

    mean: Annotated[list[Fraction] | None, Channels] = Field(
        default=None,
        min_length=1,
        description="the mean of each channel of the training images, scaled to [0, 1], null to compute it",
    )
    std: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]] | None, Channels] = Field(
        default=None,
        min_length=1,
        description="the deviation of each channel of the training images, scaled to [0, 1], null to compute it",
    )
    val_size: int = Field(
        default=0,
        ge=0,
        le=2**31,
        description="the number of training images that are split off for validation, 0 for none",
    )

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """The mean and the standard deviation of each channel, which a config has from its composition on."""
        assert self.mean is not None
        assert self.std is not None
        return self.mean, self.std


class TransformSection(Section):
    """The fields that every transform has."""

    transform: str | None = Field(
        default=None,
        min_length=1,
        description="the kind of transform if it has another name, so that one kind can be used twice, else null",
    )
    probability: float = Field(
        default=1.0, ge=0, le=1, description="the probability that an image is transformed, from 0 to 1"
    )


def entry_of(name: str, section: Section) -> str:
    """The name of the entry that a section in a mapping by name belongs to: a transform may have a name of its own."""
    return getattr(section, "transform", None) or name


class SchedulerSection(Choice):
    """The fields that every schedule has."""

    update: Literal["step", "epoch"] = Field(
        default="step",
        description="when the learning rate changes: with each step, or only with each epoch, in whole epochs",
    )


def _has(*methods: str) -> Callable[[Any], bool]:
    return lambda made: all(callable(getattr(made, each, None)) for each in methods)


def _is_transform(made: Any) -> bool:
    num_draws = getattr(made, "num_draws", None)
    has_form = is_dataclass(made) and hasattr(made, "is_last") and _has("change")(made)
    return has_form and isinstance(num_draws, Integral) and int(num_draws) >= 0


def _is_optimizer(made: Any) -> bool:
    if not _has("step", "state_dict", "load_state_dict")(made) or not hasattr(made, "state"):
        return False
    try:
        inspect.signature(made.step).bind()
    except TypeError:  # as LBFGS, whose step() takes a closure
        return False
    groups = getattr(made, "param_groups", None)
    return isinstance(groups, list) and all(
        isinstance(each, dict) and {"params", "lr"} <= {*each} and isinstance(each["params"], list) for each in groups
    )


def _is_schedule(made: Any) -> bool:
    first, *others = (made.lr, made.momentum, made.after) if isinstance(made, Schedule) else (made,)
    return callable(first) and all(each is None or callable(each) for each in others)


BLOCKS: Registry[Any] = Registry(
    "block",
    "era_cnn.models.blocks",
    Section,
    ("in_channels", "in_size", "in_shape", "in_shapes", "num_classes"),
    # A module has `training` once super().__init__() was called.
    Made("an nn.Module, by super().__init__()", lambda made: hasattr(made, "training") and _has("forward")(made)),
)
DATASETS: Registry[Any] = Registry(
    "dataset",
    "era_cnn.data.sets",
    DataSection,
    made=Made("a data set with info() and read()", _has("info", "read")),
)
TRANSFORMS: Registry[Any] = Registry(
    "transform",
    "era_cnn.data.transforms",
    TransformSection,
    ("info", "mean"),
    Made("a Transform or a Mix of a number of draws and a function", _is_transform),
)
OPTIMIZERS: Registry[Any] = Registry(
    "optimizer",
    "era_cnn.training.optimizers",
    Choice,
    ("parameters",),
    Made("an optimizer as PyTorch's, with an lr in each group and a step() without arguments", _is_optimizer),
)
SCHEDULERS: Registry[Any] = Registry(
    "scheduler",
    "era_cnn.training.schedulers",
    SchedulerSection,
    ("epochs", "steps_per_epoch", "watch"),
    Made("a Schedule of functions, or a function of the step", _is_schedule),
)
LAUNCHERS: Registry[Any] = Registry(
    "launcher",
    "era_cnn.sweeps.launchers",
    Choice,
    ("sweep_dir",),
    Made("a dict with a _target_", lambda made: isinstance(made, Mapping) and "_target_" in made),
)
LOGGERS: Registry[Any] = Registry(
    "logger",
    "era_cnn.runs.loggers",
    Section,
    ("run",),
    Made("a Sink", _has("logged_epochs", "log", "finish", "fail", "close")),
)

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (BLOCKS, DATASETS, TRANSFORMS, OPTIMIZERS, SCHEDULERS, LAUNCHERS, LOGGERS)
}

block, dataset, transform = BLOCKS.register, DATASETS.register, TRANSFORMS.register
optimizer, scheduler = OPTIMIZERS.register, SCHEDULERS.register
launcher, logger = LAUNCHERS.register, LOGGERS.register

GROUPS = {group: REGISTRIES[kind] for group, kind in KINDS.items() if not group.startswith("hydra/")}
"""The config groups of a run whose options are entries of a registry."""


def load_plugins(paths: Sequence[str]) -> None:
    """Imports Python files, each once, so that configs can name the entries that they register.

    Raises:
        ConfigError: If one can't be imported, registers a name that is taken, or has a field without a range. Its
            entries are then removed.
    """
    for path in map(Path, paths):
        with _all_or_nothing() as before:
            plugins.import_file(path)
            try:
                _check_sections(before)
            except ConfigError as error:
                plugins.forget(path)
                raise ConfigError([f"In the plugin {path}: {each}" for each in error.problems]) from error


@contextmanager
def _all_or_nothing() -> Iterator[dict[str, dict[str, Any]]]:
    """Removes what was registered within the context if it raises; yields what was registered before."""
    before = {kind: registry.imported() for kind, registry in REGISTRIES.items()}
    try:
        yield before
    except BaseException:
        for kind, registry in REGISTRIES.items():
            registry.restore(before[kind])
        raise


def _check_sections(before: Mapping[str, Mapping[str, Any]]) -> None:
    problems: list[str] = []
    for kind, registry in REGISTRIES.items():
        for name, entry in registry.imported().items():
            if name in before[kind] or not entry.__module__.startswith(plugins.PREFIX):
                continue
            try:
                registry.section(name)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)
