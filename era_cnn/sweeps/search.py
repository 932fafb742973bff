"""A search by Optuna, which chooses the values to try next and the trials to stop; the sweep does the rest."""

from __future__ import annotations

import importlib.util
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cnn.compose.composition import Planned
from era_cnn.compose.planner import Planner
from era_cnn.errors import ConfigError, EraCnnError, RunFolderError, problem
from era_cnn.folders.databases import open_database
from era_cnn.folders.ledger import Job
from era_cnn.folders.outcome import DONE, Outcome, read_curve
from era_cnn.folders.sweep import SweepFolder
from era_cnn.output import say
from era_cnn.sweeps.options import OptunaSweeper
from era_cnn.sweeps.space import Space, untyped

if TYPE_CHECKING:
    import optuna


PRUNE_SECONDS = 1.0
"""The time between two checks of the running trials."""


class Search:
    """A source of jobs that Optuna proposes; job N is trial N of the study, which is stored in the sweep's folder.

    A proposal depends only on the seed, its number and the trials known at that time, so a killed search continues as
    it would have without the kill; trials that were running are resumed.

    Args:
        options: The options of the search.
        planner: Composes the trials.
        sweep: The folder of the sweep, locked by this process.
        jobs: The jobs that exist already.
        epochs: The number of epochs of a trial, for the estimate of time.
    """

    def __init__(
        self, options: OptunaSweeper, planner: Planner, sweep: SweepFolder, jobs: Sequence[Job], epochs: int
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._options, self._planner, self._sweep, self._epochs = optuna, options, planner, sweep, epochs
        self._space = Space(planner.task)
        self._looked_at = 0.0
        self._again: deque[Job] = deque()
        known = {job.number: job for job in jobs}
        try:
            self._storage, self._study = self._open(sweep.study)
            self._reopen(known)
            for number in range(len(self._study.get_trials(deepcopy=False)), max(known, default=-1) + 1):
                self._add(known.get(number))
            self._take_up(known)
        except EraCnnError:
            raise
        except Exception as error:  # SQLAlchemy, SQLite and Optuna raise various types
            reason = " ".join(str(error).split())[:200]
            raise RunFolderError(
                f"{sweep.study} must hold the study, got: {reason}. Remove it; it is rebuilt from the jobs."
            ) from error

    def _open(self, path: Path) -> tuple[optuna.storages.RDBStorage, optuna.study.Study]:
        # Not opened by a URL, in which ? and % have a special meaning.
        creator = {"creator": lambda: open_database(path)}
        storage = self._optuna.storages.RDBStorage("sqlite://", engine_kwargs=creator)
        study = self._optuna.create_study(
            storage=storage,
            study_name="era_cnn",
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(self._options),
        )
        return storage, study

    def _reopen(self, known: dict[int, Job]) -> None:
        """Rebuilds the study if ended trials may continue, or the last one has no values for some keys.

        Optuna can neither reopen a trial nor remove one, and stores a proposal key by key: a kill can tear it.
        """
        states = self._optuna.trial.TrialState
        trials = self._study.get_trials()
        ended = [trial for trial in trials if trial.number in known and trial.state.is_finished()]
        again = [
            trial
            for trial in ended
            if trial.state == states.FAIL or self._sweep.outcome(known[trial.number]).state not in DONE
        ]
        for trial in again:
            trial.state, trial.values, trial.datetime_complete = states.RUNNING, None, None
        torn = [trial for trial in trials[-1:] if trial.number not in known and self._is_torn(trial)]
        if again or torn:
            self._rebuild(trials[: len(trials) - len(torn)])

    def _is_torn(self, trial: optuna.trial.FrozenTrial) -> bool:
        is_running = trial.state == self._optuna.trial.TrialState.RUNNING
        return is_running and trial.params.keys() != self._space.distributions.keys()

    def _rebuild(self, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Replaces the study by one with these trials, at once: a kill leaves either of them."""
        path = self._sweep.study
        fresh = path.with_name(f"{path.name}.new")
        for file in (fresh, fresh.with_name(f"{fresh.name}-journal")):
            file.unlink(missing_ok=True)
        storage, study = self._open(fresh)
        study.add_trials(trials)
        for each in (storage, self._storage):
            each.remove_session()
            each.engine.dispose()
        os.replace(fresh, path)
        self._storage, self._study = self._open(path)

    def _take_up(self, known: dict[int, Job]) -> None:
        """Reports to Optuna the trials that ended in the meantime, and queues those that are not done."""
        for trial in self._study.get_trials():
            if trial.state != self._optuna.trial.TrialState.RUNNING:
                continue
            if job := known.get(trial.number):
                outcome = self._sweep.outcome(job)
                if outcome.state in DONE:
                    self.tell(job, outcome)
                else:
                    self._again.append(job)
            elif self._is_torn(trial):
                raise ValueError(f"no values for some keys of trial {trial.number}")
            elif proposed := self._job(trial.number, trial.params):  # killed between the proposal and its folder
                self._again.append(proposed)

    def expected(self) -> tuple[int, int]:
        """The number of remaining trials, and of their epochs."""
        count = len(self._again) + max(0, self._options.n_trials - len(self._study.get_trials(deepcopy=False)))
        return count, count * self._epochs

    def next(self) -> Job | None:
        """The next trial, or None if there are `n_trials`."""
        if self._again:
            return self._again.popleft()
        while (number := len(self._study.get_trials(deepcopy=False))) < self._options.n_trials:
            self._study.sampler = _sampler(self._options, number)
            trial = self._study.ask(self._space.distributions)
            if job := self._job(trial.number, trial.params):
                return job
        return None

    def again(self, job: Job) -> None:
        """Puts a job at the end of the queue."""
        self._again.append(job)

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Reports to Optuna how a trial ended, unless that was reported already or the trial will continue."""
        states = self._optuna.trial.TrialState
        if self._study.get_trials(deepcopy=False)[job.number].state != states.RUNNING:
            return
        self._report(job)
        if outcome.result is not None:
            self._study.tell(job.number, outcome.result[f"final_{self._options.metric}"])
        elif outcome.state in ("pruned", "failed"):
            self._study.tell(job.number, state=states.PRUNED if outcome.state == "pruned" else states.FAIL)

    def hopeless(self, running: Sequence[Job]) -> list[Job]:
        """The running trials that the pruner stops, judged by their epochs so far."""
        if self._options.pruner == "none" or time.monotonic() - self._looked_at < PRUNE_SECONDS:
            return []
        self._looked_at = time.monotonic()
        return [job for job in running if self._is_hopeless(job)]

    def _is_hopeless(self, job: Job) -> bool:
        number_of_new = self._report(job)
        frozen = self._study.get_trials(deepcopy=False)[job.number]
        if not number_of_new or max(frozen.intermediate_values) >= job.epochs:
            return False
        return self._optuna.trial.Trial(self._study, frozen._trial_id).should_prune()

    def _report(self, job: Job) -> int:
        """Reports the new epochs of a trial to Optuna; returns their number."""
        frozen = self._study.get_trials(deepcopy=False)[job.number]
        trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
        curve = read_curve(self._sweep.path / job.folder, self._options.metric)
        new = {epoch: accuracy for epoch, accuracy in curve.items() if epoch not in frozen.intermediate_values}
        for epoch, accuracy in new.items():
            trial.report(accuracy, epoch)
        return len(new)

    def _add(self, job: Job | None) -> None:
        """Adds the trial of a job to a study that was lost; for None, a failed trial, whose config was invalid."""
        states = self._optuna.trial.TrialState
        if job is None:
            self._study.add_trial(self._optuna.trial.create_trial(state=states.FAIL))
            return
        texts = dict(override.split("=", 1) for override in job.overrides if "=" in override)
        params = {name: untyped(texts[name], each) for name, each in self._space.distributions.items()}
        trial = self._optuna.trial.create_trial(
            params=params, distributions=self._space.distributions, state=states.RUNNING
        )
        self._study.add_trial(trial)

    def _job(self, number: int, values: dict[str, Any]) -> Job | None:
        """The job of a trial; None if its config is invalid, which fails the trial."""
        try:
            (planned,) = self._planner.plan([self._space.overrides(values)], first=number)
        except ConfigError as error:
            say(f"Trial {number} is invalid: {' '.join(error.problems)}")
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
            return None
        return self._sweep.add(planned)


def plan_corners(options: OptunaSweeper, planner: Planner) -> list[Planned]:
    """Trials at the bounds of the search space, to be checked before the first trial starts.

    Raises:
        ConfigError: If Optuna is not installed, nothing is searched, a config is wrong, or the choice would be made on
            the test set without consent.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            ["hydra/sweeper=optuna must have Optuna, got none. Install it: pip install 'era_cnn[optuna]'"]
        )
    space = Space(planner.task)
    planned = planner.plan([space.overrides(values) for values in space.corners()])
    has_val = all(job.config.has_val for job in planned)
    if options.metric == "val_accuracy" and not has_val:
        advice = "Give the number of training images to validate on."
        raise ConfigError([problem("data.val_size", "be greater than 0 for a search", 0, advice)])
    if (options.metric == "test_accuracy") != options.optimise_on_test_set:
        rule = f"be {str(options.metric == 'test_accuracy').lower()} with hydra.sweeper.metric={options.metric}"
        advice = "To choose on validation images, set hydra.sweeper.metric=val_accuracy and data.val_size."
        raise ConfigError([problem("hydra.sweeper.optimise_on_test_set", rule, options.optimise_on_test_set, advice)])
    return planned


def _sampler(options: OptunaSweeper, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    from era_cnn.randomness import key

    seed = key(options.seed, "search", number) % 2**32
    if options.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)  # for trials at the same time


def _pruner(options: OptunaSweeper) -> optuna.pruners.BasePruner:
    import optuna

    if options.pruner == "median":
        return optuna.pruners.MedianPruner()
    if options.pruner == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()
