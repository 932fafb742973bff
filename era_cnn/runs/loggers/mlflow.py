"""MLflow: a local SQLite file, or the store that the user's environment names."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cnn.config.choices import logger
from era_cnn.folders.claims import locked
from era_cnn.folders.databases import check_journal
from era_cnn.paths import current_folder
from era_cnn.runs.loggers.sink import LoggedRun, Sink, numbers_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray

FILE = "mlflow.db"
LOCK_SECONDS = 60.0
"""How long to wait for other processes: the first one creates the store, which takes seconds."""

MOST_PARAMS = 100
"""The most parameters of one call; MLflow refuses more."""

ID, FAILURE = "era_cnn.id", "era_cnn.failure"


@logger("mlflow")
class MLflow(Sink):
    """Writes figures, the config and images to MLflow, by default to mlflow.db in the current folder.

    The environment variables MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME name another store, and another experiment
    than era_cnn. No config can, since it may come from a stranger.

    A resumed run continues its MLflow run, which is found by the tag era_cnn.id. Parameters can't be changed there: a
    setting that differs since then becomes a tag, `resumed.KEY`. The tag era_cnn.failure says why a run failed, and
    where it diverged.
    """

    packages = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, run: LoggedRun) -> None:
        with _silent():
            from mlflow.tracking import MlflowClient

        default = f"sqlite:///{current_folder() / FILE}"
        address = os.environ.get("MLFLOW_TRACKING_URI") or default
        path = address.removeprefix("sqlite:///")
        self._file = Path(path).absolute() if path != address else None
        self._status = "KILLED"
        with self._alone():
            if self._file is not None:
                check_journal(self._file)  # the current folder may hold the files of a stranger
                if not self._file.exists():
                    _create(self._file)
            self._client = MlflowClient(address)
            self._run_id = self._find_or_create(run)
            self._send_settings(run.settings)
        self._client.log_artifact(self._run_id, str(run.folder / "config.yaml"))

    def logged_epochs(self) -> set[int]:
        """Those of the learning rate, which is finite in every epoch; an epoch is written as a whole."""
        with self._alone():
            return {point.step for point in self._client.get_metric_history(self._run_id, "lr")}

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """A point in the chart of each figure."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._alone():
            self._client.log_batch(self._run_id, [Metric(name, value, now, epoch) for name, value in figures.items()])

    def finish(self, result: Mapping[str, Any], images: Mapping[str, NDArray[Any]]) -> None:
        """The numbers of the result as metrics without a chart, and the images as artifacts."""
        with self._alone():
            known = self._client.get_run(self._run_id).data.metrics
        numbers = numbers_of(result)
        self.log(result["epochs"], {name: numbers[name] for name in numbers if name not in known})
        for name, image in images.items():
            self._client.log_image(self._run_id, image.transpose(1, 2, 0), f"{name}.png")  # (H, W, C)
        self._status = "FINISHED"

    def fail(self, message: str) -> None:
        """The message as a tag."""
        with self._alone():
            self._client.set_tag(self._run_id, FAILURE, message)
        self._status = "FAILED"

    def close(self) -> None:
        """Sets how the run ended: FINISHED, FAILED, or KILLED if it was interrupted."""
        with self._alone():
            self._client.set_terminated(self._run_id, self._status)

    def _alone(self) -> AbstractContextManager[None]:
        """Keeps other runs from using a SQLite store, which would else be "locked", or created twice."""
        if self._file is None:
            return nullcontext()
        return locked(self._file.parent, f"{self._file.name}.lock", wait_seconds=LOCK_SECONDS)

    def _find_or_create(self, run: LoggedRun) -> str:
        """The id of the MLflow run; one that is continued runs again, without what it said of its failure."""
        experiment_id = _experiment(self._client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or "era_cnn")
        for found in self._client.search_runs([experiment_id], f"tags.`{ID}` = '{run.id}'", max_results=1):
            self._client.update_run(found.info.run_id, status="RUNNING")
            if FAILURE in found.data.tags:
                self._client.delete_tag(found.info.run_id, FAILURE)
            return str(found.info.run_id)
        tags = {ID: run.id, "era_cnn.folder": str(run.folder)}
        created = self._client.create_run(experiment_id, tags=tags, run_name=run.folder.name)
        return str(created.info.run_id)

    def _send_settings(self, settings: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self._run_id).data.params
        new = [Param(key, value) for key, value in settings.items() if key not in known]
        for start in range(0, len(new), MOST_PARAMS):
            self._client.log_batch(self._run_id, params=new[start : start + MOST_PARAMS])
        for key in known.keys() & settings.keys():
            if known[key] != settings[key]:
                self._client.set_tag(self._run_id, f"resumed.{key}", settings[key])


def _create(file: Path) -> None:
    """Creates a store; a process that is killed meanwhile leaves no half of it under this name."""
    from mlflow.tracking import MlflowClient

    partial = file.with_name(f"{file.name}.partial")
    for left in (partial, partial.with_name(f"{partial.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.replace(file)


def _experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # on a server, another run may have been first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps MLflow from sending statistics of its use, which it decides when it is imported, and from chatting."""
    name = "MLFLOW_DISABLE_TELEMETRY"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
