"""A run as a process carries it out: whatever happens is recorded in the run's folder, and becomes an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from era_cnn.config import RunConfig, parse
from era_cnn.errors import EraCnnError
from era_cnn.runs.console import Console
from era_cnn.runs.folder import RunFolder, shown
from era_cnn.runs.run import run
from era_cnn.runs.stopping import Interrupted, stop_requests


def job(composed: DictConfig, command: Sequence[str]) -> int:
    """A run as Hydra's launchers start it: config in, exit code out."""
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    try:
        with folder.locked():
            return carry_out(parse(composed), folder, command)
    except EraCnnError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def carry_out(config: RunConfig, folder: RunFolder, command: Sequence[str]) -> int:
    """Runs, or goes on with, what a locked folder is for; returns the exit code.

    No error is raised, whatever happens: a sweep goes on, and whoever looks at the folders knows all.
    """
    started = _now()
    folder.write_json("status.json", _status("running", started))
    console = Console()
    try:
        with stop_requests() as stop:
            run(config, folder, console, stop, command)
    except Interrupted as interrupted:
        folder.write_json("status.json", _status("interrupted", started, message=str(interrupted)))
        console.complain(f"Interrupted. To go on: era-cnn resume '{shown(folder.path)}'")
        return interrupted.exit_code
    except EraCnnError as error:
        console.complain(str(error))
        folder.write_json("status.json", _status("failed", started, message=str(error)))
        return error.exit_code
    except BrokenPipeError:
        return _output_closed(folder, started)
    except Exception as error:  # noqa: BLE001 - a job's last resort: recorded, and the sweep goes on
        text = traceback.format_exc()
        console.complain(text)
        message = f"{type(error).__name__}: {error}"
        folder.write_json("status.json", _status("failed", started, message=message, traceback=text))
        return 1
    finally:
        console.close()
    folder.write_json("status.json", _status("completed", started))
    console.say(f"Run folder: {shown(folder.path)}")
    return 0


def _output_closed(folder: RunFolder, started: str) -> int:
    """Nobody reads on, so nothing more can be said there; the folder and standard error still take it."""
    message = "Standard output was closed before the run had ended."
    folder.write_json("status.json", _status("failed", started, message=message))
    print(message, file=sys.stderr)
    return 1


def _status(state: str, started: str, **details: str) -> dict[str, object]:
    ended = {} if state == "running" else {"ended": _now()}
    return {"state": state, "started": started, **ended, "pid": os.getpid(), **details}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
