"""Going on with a run where it stopped, in its own folder, from what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from era_cnn.folders.claims import shown
from era_cnn.folders.stored import read_config, run_folder
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.output import say


def resume(path: Path, command: Sequence[str], data_root: str | None = None) -> int:
    """Goes on with the run in a folder; returns its exit code. A completed run is left as it is.

    Args:
        path: The run's folder.
        command: The words that asked for it, for the record.
        data_root: Where the data lie by now, if not where they lay.

    Raises:
        ConfigError: If there is no such folder.
        RunFolderError: If the folder does not hold a run that can go on, or another process is at it.
    """
    folder = run_folder(path)
    config = read_config(folder, data_root)  # before the lock: what is no run's folder is left as it is
    with folder.locked():
        if folder.result() is not None:
            say(f"Nothing to do: the run is complete. Run folder: {shown(folder.path)}")
            return 0
        return carry_out(config, folder, command)
