"""Going on with a run where it stopped, in its own folder, from what lies there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import ValidationError

from era_cnn.config import RunConfig
from era_cnn.errors import ConfigError, RunFolderError, problem
from era_cnn.runs.folder import RunFolder, shown
from era_cnn.runs.job import carry_out
from era_cnn.validation import field_problems

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def resume(path: Path, command: Sequence[str]) -> int:
    """Goes on with the run in a folder; returns its exit code. A completed run is left as it is.

    Raises:
        ConfigError: If there is no such folder.
        RunFolderError: If the folder does not hold a run that can go on, or another process is at it.
    """
    if not path.is_dir():
        raise ConfigError([problem("RUN", "be the folder of a run", str(path), "Give the path that it ended with.")])
    folder = RunFolder(path.absolute())
    with folder.locked():
        if (folder.path / "result.json").exists():
            folder.write_json("status.json", {**folder.read_json("status.json"), "state": "completed"})
            print(f"Nothing to do: the run is complete. Run folder: {shown(folder.path)}")
            return 0
        config = read_config(folder.path / "config.yaml")
        with _logging_to(folder.path / "run.log"):
            return carry_out(config, folder, command)


def read_config(path: Path) -> RunConfig:
    """The config that a run wrote down.

    Raises:
        RunFolderError: If it is not there, or is no longer what a run writes.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path} must hold the run's config, got: {reason}. Start the run anew.") from error
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        reason = field_problems(error, RunConfig)[0]
        raise RunFolderError(f"{path} must hold the run's config, got: {reason} Start the run anew.") from error


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Adds to the log of the run, as Hydra's own handler did before."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
