"""Weights & Biases: an offline run in the run folder, or the server that the user's environment names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from era_cnn.config.choices import logger
from era_cnn.folders.plain import check_way
from era_cnn.runs.loggers.sink import LoggedRun, Sink, chart_of, numbers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "wandb"
ANSWER_SECONDS = 20.0
"""How long to wait for an answer; less than a run waits at its end, so that a process that hangs is ended, too."""

NOT_OURS = ("WANDB_SERVICE", "WANDB_RESUME", "WANDB_RUN_ID", "WANDB_SWEEP_ID")
"""Variables that would make this run a part of another one."""

SERVER = "era_cnn.runs.loggers.wandb_process"
"""The module that the process runs."""


@logger("wandb")
class WandB(Sink):
    """Writes figures, the config and images to wandb/ in the run folder, from where `wandb sync` uploads them.

    If the environment variable WANDB_MODE is online, they are uploaded at once; WANDB_PROJECT, WANDB_ENTITY and
    WANDB_BASE_URL say where to. No config or folder can, since it may come from a stranger.

    A resumed run writes its offline run anew; on a server, its run continues. The summary's key `outcome` says whether
    the run was completed, was interrupted, or why it failed and where it diverged.

    wandb works in a process of its own: it replaces `sys.exit`, changes the environment, and may hang.
    """

    packages = ("wandb",)

    def __init__(self, run: LoggedRun) -> None:
        folder = run.folder / FOLDER
        check_way(folder, run.folder)
        folder.mkdir(exist_ok=True)
        for earlier in folder.glob("offline-run-*"):
            shutil.rmtree(earlier)
        self._outcome, self._exit_code = "interrupted", 255
        self._start()
        is_online = os.environ.get("WANDB_MODE") == "online"
        self._num_steps = self._ask(
            "begin",
            {
                "mode": "online" if is_online else "offline",
                "resume": "allow" if is_online else None,
                "project": os.environ.get("WANDB_PROJECT") or "era_cnn",
                "dir": str(run.folder.absolute()),
                "id": run.id,
                "name": run.folder.name[:128],  # a server refuses longer ones
                "config": dict(run.settings),
            },
        )

    def logged_epochs(self) -> Collection[int]:
        """Those before the step with which the server's run continues; an offline run begins anew."""
        return range(self._num_steps)

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """A point in the chart of each figure."""
        self._ask("log", epoch, {chart_of(name): value for name, value in figures.items()})

    def finish(self, result: Mapping[str, Any], images: Mapping[str, NDArray[Any]]) -> None:
        """The numbers of the result in the summary, and the images in a step of their own."""
        pictures = {name: image.transpose(1, 2, 0) for name, image in images.items()}  # (H, W, C)
        self._ask("finish", result["epochs"], numbers_of(result), pictures)
        self._outcome, self._exit_code = "completed", 0

    def fail(self, message: str) -> None:
        """Keeps the message for the end."""
        self._outcome, self._exit_code = message, 1

    def close(self) -> None:
        """Ends W&B's run, and the process."""
        if self._process.poll() is None:
            self._ask("close", self._outcome, self._exit_code)
            self._end(ANSWER_SECONDS)

    def _start(self) -> None:
        """Starts the process, where nothing is read from the current folder: wandb/settings there names a server."""
        self._connection, theirs = Pipe()
        code = f"import sys; sys.path[:] = {sys.path!r}; from {SERVER} import serve; serve({theirs.fileno()})"
        environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=os.sep,
            env={**environment, "WANDB_ERROR_REPORTING": "false"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the run, which then ends this process
        )
        theirs.close()

    def _ask(self, call: str, *arguments: Any) -> Any:
        """The answer to a call; without one, the process is killed."""
        answer, error = None, f"no answer within {ANSWER_SECONDS:g} seconds"
        try:
            self._connection.send((call, arguments))
            if self._connection.poll(ANSWER_SECONDS):
                answer, error = self._connection.recv()
        except (EOFError, OSError):
            error = "its process ended"
        if error is not None:
            self._end(within_seconds=0)
            raise RuntimeError(error)
        return answer

    def _end(self, within_seconds: float) -> None:
        self._connection.close()
        try:
            self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
