"""record.json, the evidence for an experiment: what its runs gave, on which machines, and how to repeat them.

Each figure is stored as the run computed it; only pages round. A record may come from a stranger, as a run folder may.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from era_cnn.config.parsing import parse
from era_cnn.config.schema import RunConfig
from era_cnn.config.settings import setting_of
from era_cnn.config.versions import SCHEMA as CONFIG_SCHEMA
from era_cnn.config.versions import digest_without_seed, schema_of, upgraded
from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.folders.description import Description
from era_cnn.folders.plain import read_plain
from era_cnn.folders.result import Count, Fraction, Sha256
from era_cnn.folders.schemas import checked

SCHEMA = 1
RECORD = "record.json"
MOST_BYTES = 2**24
"""More than a record of a thousand runs takes."""

COMPUTED_BY = ("device", "trainer.cuda_graphs")
"""The keys in which runs of one record may differ: devices compute other bits, but expectedly the same statistics."""

_STRICT = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
Text = Annotated[str, Field(max_length=4_000)]


@dataclass(frozen=True)
class Part:
    """The machine and the versions of the process that began a run, or of one that resumed it.

    `code` is the commit, or the digest of the code if it had no commit or differed from it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    processor: Text | None
    cpu_capability: Text | None
    cores: int | None
    threads: int
    device: Text
    python: Text
    torch: Text
    torchvision: Text | None
    numpy: Text
    era_cnn: Text
    numerics: int
    code: Text

    @classmethod
    def of(cls, origin: Mapping[str, Any]) -> Part:
        """The part that provenance.json describes, of a start or of a resume.

        Raises:
            ValueError: If something is missing there.
        """
        machine, packages, code = (origin.get(key, {}) for key in ("machine", "packages", "code"))
        git = code.get("git") or {}
        is_commit = isinstance(git, dict) and git.get("commit") and not (git.get("diff") or git.get("untracked"))
        values = {
            **{key: machine.get(key) for key in ("processor", "cpu_capability", "cores", "threads", "device")},
            **{key: packages.get(key) for key in ("torch", "torchvision", "numpy")},
            "python": origin.get("python"),
            "numerics": origin.get("numerics", 1),
            "era_cnn": code.get("version"),
            "code": git["commit"] if is_commit else f"sha256:{code.get('sha256')}",
        }
        found: Part = checked(lambda: TypeAdapter(cls).validate_json(json.dumps(values)))
        return found

    def kind(self, *, portable: bool) -> tuple[object, ...]:
        """Equal for parts that compute the same bits; those of a portable run do so on any processor."""
        packages = (self.device, self.torch, self.torchvision, self.numpy, self.numerics)
        return packages if portable else (*packages, self.processor, self.cpu_capability, self.threads)


CONFIG_DIR, PLUGIN = ("--config-dir", "-cd"), ("--plugin",)
OWN_FILES = (*CONFIG_DIR, *PLUGIN)
"""The options of a command that name files of one's own."""


def own_files(command: Sequence[str], options: Sequence[str] = OWN_FILES) -> list[str]:
    """The words of a command that name a config folder and plugins of one's own, or one of these with their options."""
    pairs = pairwise(("", *command))
    return [word for last, word in pairs if word.partition("=")[0] in options or last in options]


@dataclass(frozen=True)
class RecordedRun:
    """A run of a record.

    `best_test_accuracy` is None if the test set was looked at only once, after the last epoch. `first_epoch_sha256` is
    the digest of all fingerprints after the first epoch: of the weights, the optimizer and the order of the images.
    `curves` has a column of metrics.csv for each key, and in it a value for each epoch; None without an evaluation.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    seed: Count
    best_test_accuracy: Fraction | None
    best_test_epoch: Count | None
    final_test_accuracy: Fraction
    ema_test_accuracy: Fraction | None
    best_train_accuracy: Fraction
    final_train_accuracy: Fraction
    weights_sha256: Sha256
    first_epoch_sha256: Sha256
    seconds: Annotated[float, Field(ge=0)]
    end_reason: Text | None
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=1_000)]
    command: Annotated[tuple[Text, ...], Field(max_length=1_000)]
    curves: Annotated[dict[Text, tuple[float | None, ...]], Field(max_length=50)]

    @property
    def device(self) -> str:
        """The device as it is typed: parts name a GPU by its model, and nothing else so."""
        name = self.parts[0].device
        return name if name in ("cpu", "mps") else "cuda"

    def kind(self, *, portable: bool) -> frozenset[tuple[object, ...]]:
        """The kinds of machines that it ran on; see `Part.kind`."""
        return frozenset(part.kind(portable=portable) for part in self.parts)

    def ran_only_on(self, kind: tuple[object, ...] | None, *, portable: bool) -> bool:
        """Whether all of its parts ran on machines of one kind."""
        return all(part.kind(portable=portable) == kind for part in self.parts)

    @property
    def own_files(self) -> list[str]:
        """The words of its command that name a config folder and plugins of one's own."""
        return own_files(self.command)

    @property
    def epochs(self) -> int:
        """The number of its epochs."""
        return len(self.curves["train_accuracy"])

    @property
    def log(self) -> list[dict[str, float | None]]:
        """A row for each epoch."""
        columns = self.curves.items()
        return [{"epoch": i + 1.0, **{key: values[i] for key, values in columns}} for i in range(self.epochs)]


@dataclass(frozen=True)
class Record:
    """The content of record.json.

    `overrides` compose the config of the runs that were recorded first, except for the seed; `config` is what they
    composed. `superseded` says why they no longer do. `config_sha256` is the digest of that config without the seed.
    `plugins` has the digest of each plugin that the config uses.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    schema: Annotated[int, Field(ge=1)]
    experiment: Text
    superseded: Text | None
    overrides: Annotated[tuple[Text, ...], Field(max_length=1_000)]
    config_sha256: Sha256
    data_sha256: Sha256
    plugins: dict[Text, Text]
    runs: Annotated[tuple[RecordedRun, ...], Field(min_length=1, max_length=1_000)]
    config: dict[str, Any]
    network: Description

    @cached_property
    def parsed(self) -> RunConfig:
        """The config of the runs that were recorded first, with the seed of the first run.

        Raises:
            ConfigError: If it is wrong, or names an entry of a plugin that is not loaded.
            ValueError: If a newer version wrote it.
        """
        seed = self.runs[0].seed if self.runs else 0  # while it is being made it has no runs yet
        return parse({**upgraded(self.config), "seed": seed}, is_stored=True)

    @property
    def own_files(self) -> list[str]:
        """The words that name a config folder and plugins of one's own, of the first run that needed any."""
        return next((run.own_files for run in self.runs if run.own_files), [])

    @property
    def portable(self) -> bool:
        """Whether its bits are the same on every x86-64 processor with AVX2."""
        return self.parsed.portable

    @property
    def watches_test(self) -> bool:
        """Whether the test set decided on the schedule or the end of the training, and so on the final accuracy."""
        return self.parsed.trainer.watch.startswith("test_")

    @property
    def effective(self) -> dict[str, str]:
        """All that its results depend on, except the seed, as text, by the keys as they are typed."""
        plugins = {f"plugin {name}": sha256 for name, sha256 in self.plugins.items()}
        origin = {"data_sha256": self.data_sha256, "numerics": str(self.runs[0].parts[0].numerics), **plugins}
        return {**setting_of(self.parsed.model_dump(), type(self.parsed)).values, **origin}

    def to_text(self) -> str:
        """The file: JSON, with each list of numbers on a line of its own.

        Raises:
            RunFolderError: If it could not be read again, since it is too large, or has a number that is not finite.
        """
        try:
            text = json.dumps({**asdict(self), "network": self.network.model_dump()}, indent=1, allow_nan=False)
            text = re.sub(r'\[[^\[\]{}"]*\]', lambda found: f"[{' '.join(found[0][1:-1].split())}]", text) + "\n"
            parse_record(text)
        except ValueError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise RunFolderError(
                f"A record must hold what can be read again, got: {reason}. Leave that run out."
            ) from error
        if len(text) > MOST_BYTES:
            rule = f"have at most {MOST_BYTES:,} bytes"
            raise RunFolderError(f"A record must {rule}, got {len(text):,}. Record fewer runs.")
        return text


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def read_record(folder: Path) -> Record:
    """The record in a folder.

    Raises:
        RunFolderError: If its record.json is missing, damaged, or was written by a newer version.
    """
    path = folder / RECORD
    try:
        return parse_record(read_plain(path, MOST_BYTES).decode())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split()).rstrip(".")
        rule = "must hold a record that era-cnn record wrote"
        is_entry = isinstance(error, ConfigError) and "must be one of" in str(error)
        advice = "If a plugin has it, give --plugin." if is_entry else "Get it again from where it came from."
        raise RunFolderError(f"{path} {rule}, got: {reason}. {advice}") from error


def parse_record(text: str) -> Record:
    """The record in a text.

    Raises:
        ValueError: If it is damaged, or was written by a newer version.
    """
    values = json.loads(text)
    schema = values.get("schema") if isinstance(values, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"schema {schema}, which a newer version of era_cnn wrote: update era_cnn")
    record: Record = checked(lambda: _RECORD.validate_json(text))
    _check_runs(record.runs)
    config = record.parsed
    if schema_of(record.config) == CONFIG_SCHEMA and digest_without_seed(config) != record.config_sha256:
        raise ValueError("a config with another digest than config_sha256")
    return record


def _check_runs(runs: Sequence[RecordedRun]) -> None:
    """Raises a `ValueError` if runs are not in order, or figures contradict their curves."""
    if [run.seed for run in runs] != sorted(run.seed for run in runs):
        raise ValueError("runs that are not sorted by seed")
    if len({(run.seed, run.weights_sha256) for run in runs}) < len(runs):
        raise ValueError("a run that is recorded twice")
    for run in runs:
        if reason := contradiction(run):
            raise ValueError(f"seed {run.seed}: {reason}")


def contradiction(run: RecordedRun) -> str | None:
    """Why the figures of a run can't be those of its curves; None if they can."""
    needed = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    if not all(run.curves.get(key) for key in needed) or len({len(values) for values in run.curves.values()}) > 1:
        return "curves without an accuracy for each epoch"
    train, test = run.curves["train_accuracy"], run.curves["test_accuracy"]
    if None in train or not all(0 <= value <= 1 for value in (*train, *test) if value is not None):
        return "an accuracy outside 0 to 1"
    best, epoch = best_of(test)
    figures = (run.best_test_accuracy, run.best_test_epoch, run.final_test_accuracy, run.final_train_accuracy)
    if figures != (best, epoch, test[-1], train[-1]) or run.best_train_accuracy != max(filter(None, train), default=0):
        return "accuracies that differ from its curves"
    return None


def best_of(accuracies: Sequence[float | None]) -> tuple[float | None, int | None]:
    """The best accuracy and its epoch, the first of equal ones; None if there was only one evaluation."""
    evaluated = [(value, -epoch) for epoch, value in enumerate(accuracies, start=1) if value is not None]
    if len(evaluated) < 2:
        return None, None
    value, epoch = max(evaluated)
    return value, -epoch
