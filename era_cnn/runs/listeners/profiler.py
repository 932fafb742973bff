"""Lets PyTorch's profiler watch a few steps of a run."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from era_cnn.errors import amount
from era_cnn.folders.run import RunFolder
from era_cnn.training.listeners import Listener, Training
from era_cnn.training.loop import Step

WARMUP_STEPS, NUM_STEPS = 5, 5
"""The steps before the profile, which allocate memory, and those in it: a trace grows by megabytes with each step."""

MOST_BYTES = 2**28
"""The most bytes of a trace before compression; viewers fail on larger ones."""

NUM_ROWS = 40


class Profiler(Listener):
    """Writes profile.txt, a table of operations, and profile.json.gz, a trace that Perfetto and chrome://tracing show.

    It watches steps of one epoch, without recording stacks and shapes.

    Args:
        folder: The folder of the run.
        say: Called with a line about what was written.
        warn: Called with the reason if nothing was.
    """

    def __init__(self, folder: RunFolder, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._folder, self._say, self._warn = folder, say, warn
        self._steps_seen = 0
        self._profile: Any = None
        self._first: Step | None = None
        self._is_done = False

    def on_start(self, training: Training) -> None:
        """Stores the device."""
        self._device = training.config.device

    def on_step(self, step: Step) -> None:
        """Starts the profile after the warm-up; writes it after some steps, or with the last one of the epoch."""
        is_last = step.step + 1 == step.num_steps
        self._steps_seen += 1
        if self._first is None:
            if self._steps_seen >= WARMUP_STEPS and not is_last:
                self._start(step)
        elif not self._is_done and (is_last or step.step == self._first.step + NUM_STEPS):
            self._write(self._first, step)

    def on_end(self, result: dict[str, Any]) -> None:
        """Says so if no step could be profiled."""
        if not self._is_done:
            rule = f"have two steps of an epoch after {WARMUP_STEPS} others"
            got = amount(self._steps_seen, "step")
            self._warn(f"trainer.profile must {rule}, got {got}. Train on more images, or for more epochs.")

    def close(self) -> None:
        """Stops a profile that an interruption left running."""
        if self._profile is not None:
            self._profile.__exit__(None, None, None)
        self._profile = None

    def _start(self, step: Step) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it prints onto the progress bar
        # torch.profiler.profile would import the compiler.
        on_cuda = self._device == "cuda"
        self._profile = torch.autograd.profiler.profile(use_device="cuda" if on_cuda else None)
        self._profile.__enter__()
        self._first = step

    def _write(self, first: Step, last: Step) -> None:
        profile = self._profile
        self.close()
        self._is_done = True
        order = "self_device_time_total" if self._device == "cuda" else "self_cpu_time_total"
        table = profile.key_averages().table(sort_by=order, row_limit=NUM_ROWS, max_name_column_width=50)
        steps = f"Steps {first.step + 2} to {last.step + 1} of epoch {last.epoch} on {self._device}"
        self._folder.write_text("profile.txt", f"{steps}, sorted by their own time.\n{table}")
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "trace.json")
            profile.export_chrome_trace(str(path))
            size = path.stat().st_size
            if size > MOST_BYTES:
                self._warn(f"The trace of the profile must have at most {MOST_BYTES:,} bytes, got {size:,}.")
                return
            content = gzip.compress(path.read_bytes(), mtime=0)
        self._folder.write_bytes("profile.json.gz", content)
        self._say(f"{steps} are in profile.txt and profile.json.gz ({len(content):,} bytes)")
