"""The catalogue: every experiment with the size of its network and its target."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import era_cnn
from era_cnn.compose.words import CONFIG_MODULE, Words
from era_cnn.config.plugins import config_folders
from era_cnn.errors import ConfigError, StorageError, harmless
from era_cnn.folders.storage import files_sha256, write_atomically
from era_cnn.paths import expanded

if TYPE_CHECKING:
    from era_cnn.config.schema import RunConfig  # torch is imported only if nothing is cached
    from era_cnn.models.summary import Summary


@dataclass(frozen=True)
class Entry:
    """An experiment: `receptive_field` in pixels, `mult_adds` for one image, `test_accuracy` as a fraction."""

    experiment: str
    params: int
    max_params: int | None
    epochs: int
    max_epochs: int | None
    test_accuracy: float | None
    receptive_field: int
    mult_adds: int

    def to_json(self) -> dict[str, Any]:
        """The entry as plain values."""
        return asdict(self)


def catalogue(words: Words) -> tuple[list[Entry], list[str]]:
    """Composes and builds every experiment, or reads the cached entries if nothing has changed since.

    With the user's own config folder, or with plugins, nothing is cached.

    Returns:
        An entry for each experiment, and the problems of those that can't be composed or built.

    Raises:
        ConfigError: If this holds for all of them.
    """
    if words.config_dir or words.plugins or config_folders():
        return _entries(words)
    path = _cache_dir() / f"models_{_digest()}.json"
    with suppress(OSError, ValueError):  # missing or damaged
        sha256, _, text = path.read_text(encoding="utf-8").partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() == sha256:
            return [Entry(**values) for values in json.loads(text)], []
    entries, problems = _entries(words)
    if problems:
        return entries, problems
    text = json.dumps([entry.to_json() for entry in entries])
    with suppress(OSError, StorageError):  # without a cache, the next call is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())
    return entries, []


def _cache_dir() -> Path:
    """The cache folder of the user."""
    for place in (os.environ.get("XDG_CACHE_HOME", ""), os.path.join(expanded("~"), ".cache")):
        if os.path.isabs(place):  # by the XDG specification, others are to be ignored
            return Path(place, "era_cnn")
    return Path(os.devnull)


def _digest() -> str:
    """The digest of all that the catalogue depends on: the code, the configs, and the packages that it uses."""
    versions = [metadata.version(name) for name in ("torch", "torchinfo", "hydra-core", "omegaconf", "pydantic")]
    code = files_sha256(Path(era_cnn.__file__).parent, "*.py")
    configs = files_sha256(Path(*import_module(CONFIG_MODULE).__path__), "*.yaml")
    return hashlib.sha256("\0".join([*versions, code, configs]).encode()).hexdigest()


def _entries(words: Words) -> tuple[list[Entry], list[str]]:
    from era_cnn.compose.composition import compose, experiments, validated

    entries: list[Entry] = []
    problems: dict[str, list[str]] = {}  # maps each problem to the experiments that have it
    for name in experiments(words):
        try:
            config = validated(compose(words.with_overrides([*words.overrides, f"experiment={name}"])))
            entries.append(_entry(name, config, describe(config)))
        except ConfigError as error:
            for each in error.problems:
                problems.setdefault(each, []).append(name)
    if problems and not entries:  # then the experiments are not at fault
        raise ConfigError(list(problems))
    return entries, [f"In experiment {', '.join(names)}: {text}" for text, names in problems.items()]


def _entry(name: str, config: RunConfig, summary: Summary) -> Entry:
    return Entry(
        experiment=name,
        params=summary.params,
        max_params=config.target.max_params,
        epochs=config.trainer.epochs,
        max_epochs=config.target.max_epochs,
        test_accuracy=config.target.test_accuracy,
        receptive_field=summary.receptive_field,
        mult_adds=summary.mult_adds,
    )


def describe(config: RunConfig) -> Summary:
    """The rows and totals of a config's network.

    Raises:
        ConfigError: If it can't be built, or is too large.
    """
    from era_cnn.models.build import build_from_config, check_network
    from era_cnn.models.summary import summarise

    check_network(config)  # before memory for the weights is allocated
    return summarise(build_from_config(config), config.info.shape)


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
    head = ("experiment", "params", "max", "epochs", "max", "target", "field", "multiply-adds")
    rows = [
        (
            harmless(entry.experiment),
            f"{entry.params:,}",
            f"{entry.max_params:,}" if entry.max_params else "-",
            str(entry.epochs),
            str(entry.max_epochs or "-"),
            f"{100 * entry.test_accuracy:.2f}%" if entry.test_accuracy is not None else "-",
            f"{entry.receptive_field} px",
            f"{entry.mult_adds:,}",
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
