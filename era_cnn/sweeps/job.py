"""A job of a sweep, wherever it is done: whatever happens stands in its folder afterwards."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from era_cnn.errors import EraCnnError, StorageError
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import read_config
from era_cnn.runs.carry_out import carry_out
from era_cnn.runs.listeners.console import Console
from era_cnn.sweeps.executor import Manner
from era_cnn.sweeps.reuse import take_over


def do(path: Path, manner: Manner, *, quiet: bool) -> int:
    """Does what a folder is for, from where it stands; returns the exit code. A completed one is left as it is.

    Args:
        path: The job's folder, with its config.
        manner: What all jobs of the sweep have in common.
        quiet: Whether to leave the terminal to others.
    """
    folder = RunFolder(path)
    try:
        with folder.locked():
            if folder.result() is not None:
                return 0
            try:
                stored = read_config(folder, manner.data_root)
                if manner.reuse_from and take_over(folder, stored.config, manner.reuse_from):
                    return 0
                return carry_out(stored, folder, manner.command, console=Console(quiet=quiet))
            except EraCnnError as error:  # before the run had begun
                with suppress(StorageError):
                    folder.end("failed", str(error))
                return error.exit_code
    except EraCnnError as error:  # another process has it, or the result is damaged
        return error.exit_code
