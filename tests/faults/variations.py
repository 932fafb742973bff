"""What must not matter: the same run under other names, in other places, at other times, seen and saved otherwise."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.campaigns import workplace
from tests.faults.harness import RUN, Report

WORDS = tuple("threads=2" if word.startswith("threads") else word for word in RUN)

LATER = """
import time
_now = time.time
time.time = lambda: _now() + 10 * 365 * 86400.0
"""


@dataclass(frozen=True)
class Variation:
    """How a command is started: words after the command's, environment, and what is set up in the new process."""

    words: Sequence[str] = ()
    environment: dict[str, str | None] = field(default_factory=dict)
    where: str = "."
    set_up: Callable[[], Any] | None = None
    python: Sequence[str] = ()
    run_dir: str = "run"
    sweep: bool = False
    terminal: bool = False


VARIATIONS: dict[str, Variation] = {
    "as it is": Variation(),
    "again": Variation(),
    "a folder with spaces": Variation(run_dir="a folder with spaces"),
    "a folder with other letters": Variation(run_dir="ordner äöü 数字 🙂"),
    "a folder with signs": Variation(run_dir="a+b (c) [d] #e"),
    "a long path": Variation(run_dir="/".join(["deep" * 10] * 5)),
    "another working folder": Variation(where="else where"),
    "HOME elsewhere": Variation(environment={"HOME": "/nonexistent"}),
    "no HOME": Variation(environment={"HOME": None}),
    "TZ east": Variation(environment={"TZ": "Pacific/Kiritimati"}),
    "TZ west": Variation(environment={"TZ": "America/Adak"}),
    "LC_ALL=C": Variation(environment={"LC_ALL": "C", "LANG": "C"}),
    "LC_ALL=tr_TR": Variation(environment={"LC_ALL": "tr_TR.UTF-8"}),
    "no UTF-8 mode": Variation(environment={"PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}),
    "umask 077": Variation(set_up=lambda: os.umask(0o077)),
    "umask 000": Variation(set_up=lambda: os.umask(0o000)),
    "PYTHONHASHSEED=0": Variation(environment={"PYTHONHASHSEED": "0"}),
    "PYTHONHASHSEED=1": Variation(environment={"PYTHONHASHSEED": "1"}),
    "PYTHONHASHSEED=random": Variation(environment={"PYTHONHASHSEED": "random"}),
    "python -O": Variation(python=["-O"]),
    "python -B -u": Variation(python=["-B", "-u"]),
    "the clock ten years ahead": Variation(environment={"PYTHONPATH": "later"}),
    "OMP_NUM_THREADS=1": Variation(environment={"OMP_NUM_THREADS": "1"}),
    "OMP_NUM_THREADS=7": Variation(environment={"OMP_NUM_THREADS": "7"}),
    "MKL_NUM_THREADS=1": Variation(environment={"MKL_NUM_THREADS": "1"}),
    "one processor core": Variation(set_up=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    "low priority": Variation(set_up=lambda: os.nice(15)),
    "a terminal with its bar": Variation(terminal=True),
    "a narrow terminal": Variation(terminal=True, environment={"COLUMNS": "20"}),
    "saved at every step": Variation(words=["trainer.checkpoint_every_seconds=1e-9"]),
    "saved at each epoch only": Variation(words=["trainer.checkpoint_every_seconds=null"]),
    "evaluated every second epoch": Variation(words=["trainer.eval_every_epochs=2"]),
    "evaluated at the end only": Variation(words=["trainer.eval_every_epochs=100"]),
    "evaluated 7 images at a time": Variation(words=["trainer.eval_batch_size=7"]),
    "another name": Variation(words=["name=another"]),
    "more is logged": Variation(words=["hydra.verbose=true"]),
    "first of a sweep": Variation(words=["seed=1,2"], sweep=True),
    "third of a sweep": Variation(words=["seed=3,2,1"], sweep=True),
}


def variations(names: Sequence[str] = tuple(VARIATIONS)) -> Report:
    """Runs each; all must come to the same order of images, weights and optimizer in every epoch."""
    report, digests = Report(), {}
    with workplace() as where:
        for number, name in enumerate(names):
            report.tried += 1
            folder, said = _run(where / str(number), VARIATIONS[name])
            if folder is None:
                report.failures.append(f"{name}: {said}")
                continue
            digests[name] = (folder / "fingerprints.jsonl").read_text(encoding="utf-8")
        first = next(iter(digests.values()), "")
        report.failures += [f"{name}: other bits" for name, digest in digests.items() if digest != first]
    report.figures = {"digests": len(set(digests.values())), "names": list(names)}
    return report


def _run(place: Path, how: Variation) -> tuple[Path | None, str]:
    """The folder of the run with seed 1, or None and what was said instead."""
    where = place / how.where
    where.mkdir(parents=True)
    (place / "later").mkdir()
    (place / "later" / "sitecustomize.py").write_text(LATER, encoding="utf-8")
    environment = {**os.environ, **how.environment}
    if "PYTHONPATH" in how.environment:
        environment["PYTHONPATH"] = str(place / "later")
    target = where / how.run_dir
    key = "hydra.sweep.dir" if how.sweep else "hydra.run.dir"
    command = [
        sys.executable, *how.python, "-m", "era_cnn", *(["-m"] if how.sweep else []), *WORDS, *how.words,
        f"{key}='{target}'",
    ]  # fmt: skip
    options: dict[str, Any] = {
        "cwd": where,
        "env": {name: value for name, value in environment.items() if value is not None},
        "preexec_fn": how.set_up,
    }
    done = _in_a_terminal(command, options) if how.terminal else _with_pipes(command, options)
    results = [path.parent for path in target.rglob("result.json") if json.loads(path.read_text())["seed"] == 1]
    return (results[0], "") if len(results) == 1 else (None, done)


def _with_pipes(command: Sequence[str], options: dict[str, Any]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return f"ended with {done.returncode}: {done.stderr[-500:]}"


def _in_a_terminal(command: Sequence[str], options: dict[str, Any]) -> str:
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, **options) as process:
        os.close(follower)
        said = b""
        try:
            while chunk := os.read(leader, 4096):
                said += chunk
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal says that nobody writes to it any more
                raise
    os.close(leader)
    return f"ended with {process.returncode}: {said.decode(errors='replace')[-500:]}"
