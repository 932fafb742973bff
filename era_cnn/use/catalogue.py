"""The catalogue: every experiment with the size of its network and its target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import era_cnn
from era_cnn.compose.words import CONFIG_MODULE, Words
from era_cnn.config.plugins import GROUP, config_folders
from era_cnn.errors import ConfigError, StorageError, harmless
from era_cnn.folders.storage import files_sha256, write_atomically
from era_cnn.paths import cache_dir

if TYPE_CHECKING:
    from era_cnn.config.schema import RunConfig  # torch is imported only if nothing is cached
    from era_cnn.models.summary import Summary


@dataclass(frozen=True)
class Entry:
    """An experiment: `receptive_field` in pixels, `mult_adds` for one image, `test_accuracy` as a fraction.

    `misses` holds a message for each part of the target that the network misses.
    """

    experiment: str
    params: int
    max_params: int | None
    epochs: int
    max_epochs: int | None
    test_accuracy: float | None
    receptive_field: int
    mult_adds: int
    misses: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The entry as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Catalogue:
    """The experiments.

    `problems` are those of all: what can't be composed or built, and where a network misses its target. `open` maps the
    experiments whose network depends on the user's own images to the keys that they need.
    """

    entries: list[Entry]
    open: dict[str, list[str]]
    problems: list[str]

    @property
    def notes(self) -> list[str]:
        """A line for each experiment that needs more."""
        return [
            f"{harmless(name)} needs {' and '.join(keys)}: "
            f"era-cnn describe experiment={name} {' '.join(f'{key}=…' for key in keys)}"
            for name, keys in self.open.items()
        ]


def catalogue(words: Words, *, is_check: bool = False) -> Catalogue:
    """Composes and builds every experiment, or reads the cached entries if nothing has changed since.

    With the user's own config folder, with plugins, or for a check, nothing is taken from the cache.

    Raises:
        ConfigError: If none can be built.
    """
    if is_check or words.config_dir or words.plugins or config_folders():
        return _entries(words)
    path = cache_dir() / f"models_{_digest()}.json"
    with suppress(OSError, ValueError):  # missing or damaged
        sha256, _, text = path.read_text(encoding="utf-8").partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() == sha256:
            stored = json.loads(text)
            return Catalogue([Entry(**values) for values in stored["entries"]], stored["open"], [])
    found = _entries(words)
    if found.problems:
        return found
    text = json.dumps({"entries": [entry.to_json() for entry in found.entries], "open": found.open})
    with suppress(OSError, StorageError):  # without a cache, the next call is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())
    return found


def _digest() -> str:
    """The digest of all that the catalogue depends on: code, configs, the packages that it uses, and entry points."""
    versions = [metadata.version(name) for name in ("torch", "torchinfo", "hydra-core", "omegaconf", "pydantic")]
    points = [f"{point.name}={point.value}" for point in metadata.entry_points(group=GROUP)]
    code = files_sha256(Path(era_cnn.__file__).parent, "*.py")
    configs = files_sha256(Path(*import_module(CONFIG_MODULE).__path__), "*.yaml")
    return hashlib.sha256("\0".join([*versions, *points, code, configs]).encode()).hexdigest()


def _entries(words: Words) -> Catalogue:
    from era_cnn.compose.composition import compose, experiments, keys_to_give, validated

    entries: list[Entry] = []
    needed: dict[str, list[str]] = {}
    problems: dict[str, list[str]] = {}  # maps each problem to the experiments that have it
    for name in experiments(words):
        try:
            composed = compose(words.with_overrides([*words.overrides, f"experiment={name}"]))
            if keys := keys_to_give(composed):
                needed[name] = keys
                continue
            config = validated(composed)
            summary, misses = describe(config)
            entries.append(_entry(name, config, summary, misses))
            for miss in misses:
                problems.setdefault(miss, []).append(name)
        except ConfigError as error:
            for each in error.problems:
                problems.setdefault(each, []).append(name)
    if problems and not entries:  # then the experiments are not at fault
        raise ConfigError(list(problems))
    said = [f"In experiment {', '.join(names)}: {text}" for text, names in problems.items()]
    return Catalogue(entries, needed, said)


def _entry(name: str, config: RunConfig, summary: Summary, misses: list[str]) -> Entry:
    return Entry(
        experiment=name,
        params=summary.params,
        max_params=config.target.max_params,
        epochs=config.trainer.epochs,
        max_epochs=config.target.max_epochs,
        test_accuracy=config.target.test_accuracy,
        receptive_field=summary.receptive_field,
        mult_adds=summary.mult_adds,
        misses=tuple(misses),
    )


def describe(config: RunConfig) -> tuple[Summary, list[str]]:
    """The rows and totals of a config's network, and where it misses the target.

    Raises:
        ConfigError: If it can't be built.
    """
    from era_cnn.models.build import build_from_config, check_network
    from era_cnn.models.summary import summarise
    from era_cnn.models.targets import target_problems

    check_network(config, may_miss_target=True)  # before memory for the weights is allocated
    network = build_from_config(config, may_miss_target=True)
    return summarise(network, config.info.shape), list(target_problems(network, config))


def describe_decay(config: RunConfig) -> list[str]:
    """The line that lists which parameters decay, if not all of them do."""
    from era_cnn.models.build import build_from_config
    from era_cnn.training.optimizers import decays

    if getattr(config.optimizer, "weight_decay_on", "all") == "all":
        return []
    parameters = dict(build_from_config(config).named_parameters())
    names = [name for name, parameter in parameters.items() if decays(parameter)]
    return [f"Weight decay on {len(names)} of {len(parameters)} parameters: {', '.join(names)}"]


def catalogue_table(entries: Sequence[Entry]) -> str:
    """The table of experiments, a row for each."""
    head = ("experiment", "params", "limit", "epochs", "max", "target", "field", "mult-adds")
    rows = [
        (
            harmless(entry.experiment),
            f"{entry.params:,}",
            f"{entry.max_params:,}" if entry.max_params else "-",
            str(entry.epochs),
            str(entry.max_epochs or "-"),
            f"{100 * entry.test_accuracy:.2f}%" if entry.test_accuracy is not None else "-",
            f"{entry.receptive_field} px",
            f"{entry.mult_adds / 1e6:,.1f} M",
        )
        for entry in entries
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, tuple("-" * width for width in widths), *rows)
    )
