"""The options of a sweep, typed: the sections `sweep`, `hydra.launcher` and `hydra.sweeper` of its config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from era_cnn.compose.composition import plain
from era_cnn.compose.hydra_door import Composed
from era_cnn.compose.launchers import Launcher, launcher_of
from era_cnn.config.messages import field_problems
from era_cnn.config.sections import Name, Section
from era_cnn.errors import ConfigError, problem


class SweepConfig(Section):
    """How a sweep handles failures, and whether it reuses existing results."""

    name: Name
    on_error: Literal["continue", "stop"] = Field(description="what to do with the remaining jobs after one failed")
    retries: int = Field(ge=0, le=100, description="the number of times to try a failed job again, 0 to 100")
    reuse: bool = Field(description="true or false: whether to reuse the results of equal runs that are complete")
    reuse_from: list[str] = Field(description="the folders to search for equal runs, as [outputs,multirun]")


class OptunaSweeper(Section):
    """A search by Optuna."""

    name: Literal["optuna"]
    n_trials: int = Field(ge=1, le=10_000, description="the number of trials")
    metric: Literal["val_accuracy", "test_accuracy"] = Field(description="the final accuracy to maximize")
    optimise_on_test_set: bool = Field(
        description="true or false: whether you accept that the choice is made on the test set"
    )
    sampler: Literal["tpe", "random"] = Field(description="the method that chooses values")
    pruner: Literal["none", "median", "successive_halving"] = Field(description="the method that stops poor trials")
    seed: int = Field(ge=0, lt=2**32, description="the seed of the choices, a whole number from 0 to 2^32 - 1")
    params: dict[str, Any] = Field(description="the search space by key, as {model.dropout: 'interval(0, 0.2)'}")


class _Hydra(Section):
    sweeper: OptunaSweeper | None


class _Options(Section):
    sweep: SweepConfig
    hydra: _Hydra


@dataclass(frozen=True)
class SweepOptions:
    """All options of a sweep. A `search` of None is a grid."""

    sweep: SweepConfig
    launcher: Launcher
    search: OptunaSweeper | None

    def sections(self) -> dict[str, Section]:
        """Its sections, by the keys under which they stand in the config."""
        searched = {} if self.search is None else {"hydra.sweeper": self.search}
        return {"sweep": self.sweep, "hydra.launcher": self.launcher, **searched}


def sweep_options(composed: Composed, *, is_used: bool = True) -> SweepOptions:
    """Takes the options of a sweep from its composed config.

    Args:
        composed: The config.
        is_used: Whether this machine must have what the launcher needs.

    Raises:
        ConfigError: If they are wrong; lists every problem.
    """
    values = plain(composed)
    sweeper = values["hydra"]["sweeper"]
    problems = list(_problems_of_sweeper(sweeper))
    own = {"sweeper": sweeper if "_target_" not in sweeper else None}
    try:
        launcher = launcher_of(composed, is_used=is_used)
    except ConfigError as error:
        problems += error.problems
    try:
        options = _Options.model_validate({"sweep": values.get("sweep"), "hydra": own})
        problems += _problems_of_reuse(options.sweep, values["hydra"]["overrides"]["task"])
    except ValidationError as error:
        problems += field_problems(error, _Options)
    if problems:
        raise ConfigError(problems)
    return SweepOptions(options.sweep, launcher, options.hydra.sweeper)


def check_reuse(sweep: SweepConfig, typed: Sequence[str]) -> None:
    """Raises a `ConfigError` if overrides say where to search for equal runs, and none is searched for."""
    if problems := list(_problems_of_reuse(sweep, typed)):
        raise ConfigError(problems)


def _problems_of_reuse(sweep: SweepConfig, typed: Sequence[str]) -> Iterator[str]:
    for text in typed:
        if text.startswith("sweep.reuse_from=") and not sweep.reuse:
            yield problem("sweep.reuse_from", "be used with sweep.reuse=true", text, "Add it, or leave this out.")


def _problems_of_sweeper(sweeper: dict[str, Any]) -> Iterator[str]:
    if "_target_" not in sweeper:
        return
    for key in sweeper.keys() - {"_target_", "max_batch_size", "params"}:
        yield problem(f"hydra.sweeper.{key}", "be a key of hydra/sweeper=basic (params)", sweeper[key], "Remove it.")
    if sweeper.get("max_batch_size") is not None:
        advice = "With hydra/launcher=local, set hydra.launcher.n_jobs."
        rule = "be null: a job starts as soon as there is room for it"
        yield problem("hydra.sweeper.max_batch_size", rule, sweeper["max_batch_size"], advice)
