"""A run as a process carries it out: whatever happens is recorded in the run's folder, and becomes an exit code."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from era_cnn.compose.planner import plain
from era_cnn.config.schema import parse
from era_cnn.config.versions import digest
from era_cnn.errors import EraCnnError, OutputError, StorageError
from era_cnn.folders.claims import shown
from era_cnn.folders.run import RunFolder
from era_cnn.folders.stored import StoredConfig
from era_cnn.runs.listeners.console import Console, log_to
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, stop_requests
from era_cnn.training.listeners import Listener


def job(composed: DictConfig, command: Sequence[str]) -> int:
    """A run as Hydra starts it: config in, exit code out."""
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    try:
        with folder.locked():
            config = parse(plain(composed))
            return carry_out(StoredConfig(config, digest(config)), folder, command)
    except EraCnnError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def carry_out(
    stored: StoredConfig,
    folder: RunFolder,
    command: Sequence[str],
    listeners: Sequence[Listener] = (),
    console: Console | None = None,
) -> int:
    """Runs, or goes on with, what a locked folder is for; returns the exit code.

    Once the run has begun, no error is raised, whatever happens: a sweep goes on, and whoever looks at the folders
    knows all.

    Raises:
        EraCnnError: If the run can't begin; then nothing was touched.
    """
    console = console or Console()
    to_go_on = f"era-cnn resume {shlex.quote(str(shown(folder.path)))}"
    with log_to(folder.path / "run.log"), stop_requests() as stop:
        try:
            run(stored, folder, console, stop, command, listeners)
            stop.check()  # what came too late to stop this run still stops the sweep
        except Interrupted as interrupted:
            if folder.is_complete:
                console.complain("Interrupted, as the run was complete.")
                return interrupted.exit_code
            return _ended(folder, console, "interrupted", str(interrupted), interrupted.exit_code,
                          say=f"Interrupted. To go on: {to_go_on}")  # fmt: skip
        except KeyboardInterrupt:
            _record(folder, "interrupted", "stopped at once by a second SIGINT")
            raise
        except EraCnnError as error:
            if not folder.has_begun:
                raise
            then = f" Then go on: {to_go_on}" if isinstance(error, StorageError | OutputError) else ""
            return _ended(folder, console, "failed", str(error), error.exit_code, say=f"{error}{then}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a job's last resort: recorded, and the sweep goes on
            text = traceback.format_exc()
            return _ended(folder, console, "failed", f"{type(error).__name__}: {error}", 1, say=text, traceback=text)
        finally:
            console.close()
    return 0


def _ended(
    folder: RunFolder, console: Console, state: str, message: str, code: int, *, say: str = "", **details: str
) -> int:
    console.complain(say or message)
    _record(folder, state, message, **details)
    return code


def _record(folder: RunFolder, state: str, message: str, **details: str) -> None:
    with suppress(StorageError):  # of a full disk, nobody can be told but on the terminal, where it stands already
        folder.end(state, message, **details)
