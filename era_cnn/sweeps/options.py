"""What a sweep is asked to be: the sections `sweep`, `hydra.launcher` and `hydra.sweeper` of its config, typed."""

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
    """How a sweep takes failures, and whether it takes results from elsewhere."""

    name: Name
    on_error: Literal["continue", "stop"] = Field(description="what a job that failed means for those to come")
    retries: int = Field(ge=0, le=100, description="how often a job that failed is tried again, 0 to 100")
    reuse: bool = Field(description="true or false: whether equal runs that are complete are taken from where they lie")
    reuse_from: list[str] = Field(description="folders in which equal runs are looked for, as [outputs,multirun]")


class LocalLauncher(Section):
    """A process for each job, as many at once as the cores can take."""

    name: Literal["local"]
    n_jobs: int | None = Field(ge=1, le=1024, description="the most jobs at a time, null for as many as the cores take")


class OptunaSweeper(Section):
    """A search by Optuna."""

    name: Literal["optuna"]
    n_trials: int = Field(ge=1, le=10_000, description="the number of trials")
    metric: Literal["val_accuracy", "test_accuracy"] = Field(
        description="the final accuracy that is to be as high as can be"
    )
    optimise_on_test_set: bool = Field(
        description="true or false: whether you accept that the test set makes the choice"
    )
    sampler: Literal["tpe", "random"] = Field(description="how values are chosen")
    pruner: Literal["none", "median", "successive_halving"] = Field(description="how hopeless trials are recognised")
    seed: int = Field(ge=0, lt=2**32, description="the seed of the choices, a whole number from 0 to 2^32 - 1")
    params: dict[str, Any] = Field(description="what is searched, by key, as {model.dropout: 'interval(0, 0.2)'}")


class _Hydra(Section):
    launcher: LocalLauncher | None
    sweeper: OptunaSweeper | None


class SweepOptions(Section):
    """All of them. Where `launcher` is none, it is Hydra's basic one or a plugin's; where `sweeper` is, a grid."""

    sweep: SweepConfig
    hydra: _Hydra

    @property
    def launcher(self) -> LocalLauncher | None:
        """The launcher, if it is one of era_cnn's own."""
        return self.hydra.launcher

    @property
    def search(self) -> OptunaSweeper | None:
        """The search, if it is one."""
        return self.hydra.sweeper


def sweep_options(composed: Composed) -> SweepOptions:
    """Takes the options of a sweep from its composed config.

    Raises:
        ConfigError: With every problem that they have.
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
