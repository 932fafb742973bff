"""Real runs in processes of their own, which can be killed, starved of disk space, or led astray.

A campaign forks each run from a process that has imported everything and computed nothing: so a run starts in a
fraction of a second, and is a process as any other, from the first line of the command to its exit code.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from era_cnn import cli
from era_cnn.folders.result import TIMES

RUN = (
    "experiment=model_4_digits",
    "threads=1",
    "trainer.limit_epochs=3",
    "trainer.limit_train_images=160",
    "trainer.limit_test_images=100",
)
"""Real digits, nine steps with momentum, rotation, dropout and batch norm, three evaluations: about half a second."""

TIMEOUT_SECONDS = 120.0
"""After which a run counts as stuck."""


STUCK = f"did not end within {TIMEOUT_SECONDS:.0f} seconds"


@dataclass
class Report:
    """What a campaign tried and found; a failure is a sentence that says how to repeat it."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Adds up what parts of a campaign found; figures that are lists or counts are joined."""
        self.tried += other.tried
        self.failures += other.failures
        for name, value in other.figures.items():
            self.figures[name] = self.figures[name] + value if name in self.figures else value


class Child:
    """A command in a process of its own, with its output in `out.txt` and `err.txt` of the folder where it stands."""

    def __init__(self, words: Sequence[str], where: Path, before: Callable[[], None] = lambda: None) -> None:
        where.mkdir(parents=True, exist_ok=True)
        self.where, self.exit_code, self.is_stuck, self.max_memory_bytes = where, None, False, 0
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_command(words, where, before)

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        if self.exit_code is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            self.exit_code = os.waitstatus_to_exitcode(status) if pid else None
            self.max_memory_bytes = used.ru_maxrss * 1024  # in KiB on Linux
        return self.exit_code is None

    def send(self, number: int) -> bool:
        """Sends a signal; False if the process had ended before."""
        if not self.is_alive():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
        """Its exit code; minus the number of the signal that killed it. One that does not end is killed."""
        deadline = time.monotonic() + timeout_seconds
        while self.is_alive():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                self.is_stuck = True
            time.sleep(0.001)
        assert self.exit_code is not None
        return self.exit_code

    @property
    def err(self) -> str:
        """What it wrote to standard error."""
        return (self.where / "err.txt").read_text(encoding="utf-8", errors="replace")


def _be_the_command(words: Sequence[str], where: Path, before: Callable[[], None]) -> None:
    code = 70
    try:
        os.chdir(where)
        for descriptor, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        # The streams of a test runner are not those of a command.
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["era-cnn", *words]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a campaign may run under nohup
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # as it was forked of one
        before()
        code = cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would show it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def outcome(folder: Path) -> dict[str, Any]:
    """All of a run's folder that must be the same whatever happened on the way.

    The fingerprints hold a digest of each tensor of the model and of the optimizer, and of the order of the images.
    """
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        metrics = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return {
        "result": {name: value for name, value in result.items() if name not in TIMES},
        "metrics": metrics,
        "steps": (folder / "steps.csv").read_text(encoding="utf-8"),
        "fingerprints": (folder / "fingerprints.jsonl").read_text(encoding="utf-8"),
        "state": json.loads((folder / "status.json").read_text(encoding="utf-8"))["state"],
    }


def once(words: Sequence[str]) -> list[str]:
    """The last word for each key: a key that is given twice would be refused."""
    return list({word.partition("=")[0]: word for word in words}.values())


@dataclass
class Attempts:
    """One run that is started, and gone on with, until it is complete."""

    where: Path
    words: Sequence[str]
    count: int = 0
    folder: Path = Path("none")

    def go_on(self, before: Callable[[], None] = lambda: None) -> Child:
        """Resumes the run; starts it, in a new folder, as long as it has not begun: its config is its first file."""
        if not (self.folder / "config.yaml").exists():
            self.count += 1
            self.folder = self.where / f"run{self.count}"
            return Child([*once(self.words), f"hydra.run.dir={self.folder}"], self.where, before)
        return Child(["resume", str(self.folder)], self.where, before)

    def difference(self, expected: dict[str, Any], before: Callable[[], None] = lambda: None) -> str:
        """Goes on to the end without disturbance; says what is wrong then, if anything."""
        child = self.go_on(before)
        code = child.wait()
        if child.is_stuck:
            return STUCK
        if code != 0:
            return f"ended with {code}: {(self.where / 'err.txt').read_text(encoding='utf-8')[-500:]}"
        found = outcome(self.folder)
        return ", ".join(f"other {name}" for name in expected if found[name] != expected[name])


def reference(where: Path, *words: str) -> dict[str, Any]:
    """The outcome of a run that nothing disturbs."""
    attempts = Attempts(where, [*RUN, *words])
    code = attempts.go_on().wait()
    assert code == 0, (where / "err.txt").read_text(encoding="utf-8")
    return outcome(attempts.folder)


def in_parallel(part: Callable[..., Report], arguments: Iterable[tuple[Any, ...]], workers: int) -> Report:
    """Runs the parts of a campaign in `workers` processes, and adds up what they found.

    Forked, so that what was preloaded is there; and before anything was computed.
    """
    total = Report()
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for report in pool.starmap(part, arguments, chunksize=1):
            total.add(report)
    return total
