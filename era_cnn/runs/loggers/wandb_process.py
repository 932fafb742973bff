"""The process in which wandb works for one run."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from era_cnn.signals import SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMIT_SECONDS = 30
"""After which a call, or the end, is given up, and this process with it: nobody may be left to do so."""


def serve(descriptor: int) -> None:
    """Answers calls, each a name and its arguments, with a value and an error, until the run or its process ends.

    Args:
        descriptor: Of the connection to the process of the run.
    """
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    calls = Calls()
    with Connection(descriptor) as connection, suppress(EOFError, OSError):
        while not calls.is_closed:
            signal.alarm(0)
            name, arguments = connection.recv()
            signal.alarm(LIMIT_SECONDS)
            try:
                connection.send((getattr(calls, name)(*arguments), None))
            except BaseException as error:  # noqa: BLE001 - a library may even raise SystemExit
                connection.send((None, f"{type(error).__name__}: {error}"))
    signal.alarm(LIMIT_SECONDS)
    if not calls.is_closed:
        calls.close("its process ended", 1)


class Calls:
    """What a run asks of wandb."""

    is_closed = False

    def begin(self, options: Mapping[str, Any]) -> int:
        """Begins W&B's run, and returns its first step: 0, or where the server's run continues.

        Of what wandb would collect by itself, only versions and the name of the machine are: no console, code or git.
        """
        import wandb

        quiet = wandb.Settings(
            console="off",
            silent=True,
            symlink=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        config = {key: _typed(value) for key, value in options["config"].items()}
        self._run = wandb.init(**{**options, "config": config}, settings=quiet)
        return self._run.step

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Logs an epoch as a step."""
        self._run.log(dict(figures), step=epoch, commit=True)

    def finish(self, epoch: int, numbers: Mapping[str, float], images: Mapping[str, NDArray[Any]]) -> None:
        """Logs images uint8 (H, W, C) in a step after that of the last epoch, which can't be added to."""
        import wandb

        self._run.summary.update(dict(numbers))
        pictures = {name: wandb.Image(image) for name, image in images.items()}
        self._run.log(pictures, step=epoch + 1, commit=True)

    def close(self, outcome: str, exit_code: int) -> None:
        """Ends W&B's run, if it began: 0 for completed, 255 for killed, else failed."""
        self.is_closed = True
        if hasattr(self, "_run"):
            self._run.summary["outcome"] = outcome
            self._run.finish(exit_code)


def _typed(text: str) -> Any:
    """A value of the config with its type, so that W&B can draw charts over numbers."""
    with suppress(ValueError):
        return json.loads(text, parse_constant=str)
    return text
