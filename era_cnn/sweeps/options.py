"""The options of a sweep, typed: the sections `sweep`, `hydra.launcher` and `hydra.sweeper` of its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, ValidationError

from era_cnn.compose.composition import plain
from era_cnn.compose.hydra_door import BASIC_LAUNCHER, BASIC_SWEEPER, Composed
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


class LocalLauncher(Section):
    """A process for each job, as many at a time as there are cores for."""

    name: Literal["local"]
    n_jobs: int | None = Field(ge=1, le=1024, description="the most jobs at a time, null for one per available core")


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
    launcher: LocalLauncher | None
    sweeper: OptunaSweeper | None


class SweepOptions(Section):
    """All options. A `launcher` of None is Hydra's basic one or a plugin; a `sweeper` of None is a grid."""

    sweep: SweepConfig
    hydra: _Hydra

    @property
    def launcher(self) -> LocalLauncher | None:
        """The launcher, if it is era_cnn's own."""
        return self.hydra.launcher

    @property
    def search(self) -> OptunaSweeper | None:
        """The search, if the sweep is one."""
        return self.hydra.sweeper


def sweep_options(composed: Composed) -> SweepOptions:
    """Takes the options of a sweep from its composed config.

    Raises:
        ConfigError: If they are wrong; lists every problem.
    """
    values = plain(composed)
    launcher, sweeper = values["hydra"]["launcher"], values["hydra"]["sweeper"]
    problems = [*_problems_of_launcher(launcher), *_problems_of_sweeper(sweeper)]
    own = {
        "launcher": launcher if "_target_" not in launcher else None,
        "sweeper": sweeper if "_target_" not in sweeper else None,
    }
    try:
        options = SweepOptions.model_validate({"sweep": values.get("sweep"), "hydra": own})
    except ValidationError as error:
        problems += field_problems(error, SweepOptions)
    if problems:
        raise ConfigError(problems)
    return options


def _problems_of_launcher(launcher: dict[str, Any]) -> Iterator[str]:
    if launcher.get("_target_") == BASIC_LAUNCHER:
        for key in launcher.keys() - {"_target_"}:
            yield problem(
                f"hydra.launcher.{key}", "not be given: hydra/launcher=basic has no keys", launcher[key], "Remove it."
            )


def _problems_of_sweeper(sweeper: dict[str, Any]) -> Iterator[str]:
    if "_target_" not in sweeper:
        return
    if sweeper["_target_"] != BASIC_SWEEPER:
        advice = "Choose one: hydra/sweeper=basic"
        yield problem("hydra/sweeper", "be one of basic, optuna", sweeper["_target_"], advice)
    elif sweeper.get("max_batch_size") is not None:
        advice = "With hydra/launcher=local, set hydra.launcher.n_jobs."
        rule = "be null: a job starts as soon as there is room for it"
        yield problem("hydra.sweeper.max_batch_size", rule, sweeper["max_batch_size"], advice)
