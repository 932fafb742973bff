"""Harm to whole sweeps: drivers that are killed, and jobs that fail in eight different ways."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_cnn.folders.result import TIMES
from era_cnn.folders.sweep import SweepFolder
from tests.faults.campaigns import workplace
from tests.faults.harness import RUN, Child, Report, in_parallel
from tests.faults.sabotage import SABOTAGES

SABOTAGE_DIR = Path(__file__).parents[1] / "sweeps" / "sabotage"
WAYS = ("raise", "sys.exit", "os._exit", "SIGKILL", "SIGSEGV", "SIGABRT", "memory", "diverge")

SHORT = [word for word in RUN if "limit_epochs" not in word] + ["trainer.limit_epochs=2"]
GRID = ["-m", *SHORT, "seed=1,2", "model.dropout=0,0.1"]
LAUNCHERS = {
    "basic": ["hydra/launcher=basic"],
    "local": ["hydra/launcher=local"],
    "Slurm": ["hydra/launcher=slurm", "hydra.launcher.timeout_min=5"],
    "Ray": ["hydra/launcher=ray_cluster"],
}
SEARCH = [
    "-m", *SHORT, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "data.val_size=100", "model.activation=relu,gelu",
    "model.dropout=interval(0,0.3)", "optimizer.lr=tag(log,interval(0.001,0.3))",
]  # fmt: skip
SETUPS = {"search": SEARCH, **{name: [*GRID, *words] for name, words in LAUNCHERS.items()}}
"""What is killed, by name."""


def sweep_kills(
    kills: int,
    setups: Sequence[str] = ("basic", "local", "search"),
    *,
    seed: int = 1,
    workers: int = 2,
    sabotage: str = "none",
    not_before: str = "",
) -> Report:
    """SIGKILL to the driver at instants that are uniform over a sweep's duration; up to four times before it may end.

    Afterwards every job has the result that it has in a sweep that nothing disturbed, and none was completed twice.

    Args:
        kills: How many, at least.
        setups: Names from `SETUPS`.
        seed: Of the choices.
        workers: Processes that kill at the same time.
        sabotage: What does not work in the drivers, a name from `SABOTAGES`.
        not_before: A pattern of files in the sweep's folder, one of which must be there before a kill.
    """
    with workplace() as where:
        expected, seconds = {}, {}
        for name in setups:
            started = time.monotonic()
            child = Child([*SETUPS[name], "hydra.sweep.dir=sweep"], where / name)
            assert child.wait() == 0, child.err
            seconds[name] = time.monotonic() - started
            expected[name] = _table(where / name / "sweep")
        tables = [table for name, table in expected.items() if name != "search"]
        assert all(table == tables[0] for table in tables), "the launchers came to different bits"
        share = -(-kills // (2 * workers))
        parts = [
            (_Killer(where / str(part), seed * 1000 + part, expected, seconds, sabotage, not_before), share)
            for part in range(2 * workers)
        ]
        report = in_parallel(_Killer.kill, parts, workers)
        report.figures["setups"] = list(setups)
        return report


@dataclass
class _Killer:
    """Kills the drivers of sweeps; afterwards, looks whether anything was lost or done twice."""

    where: Path
    seed: int
    expected: dict[str, list[dict[str, Any]]]
    seconds: dict[str, float]
    sabotage: str
    not_before: str

    def kill(self, kills: int) -> Report:
        chance, report, chains = random.Random(self.seed), Report(), 0
        while report.tried < kills:
            setup = chance.choice(list(self.expected))
            folder = self.where / str(chains)
            chain = f"chain {chains} of seed {self.seed}, {setup}"
            moments = [chance.uniform(0, self.seconds[setup]) for _ in range(chance.randint(1, 4))]
            hits, complaints = self._chain(setup, folder, moments[: kills - report.tried])
            report.tried += hits
            report.failures += [f"{chain}, after {hits} kills: {complaint}" for complaint in complaints]
            chains += 1
            shutil.rmtree(folder, ignore_errors=True)  # launchers may still close their files
        report.figures = {"chains": chains}
        return report

    def _chain(self, setup: str, folder: Path, moments: Sequence[float]) -> tuple[int, list[str]]:
        sweep, hits, complaints = folder / "sweep", 0, []
        completed: dict[Path, tuple[int, int]] = {}
        for moment in moments:
            child = self._go_on(setup, folder)
            time.sleep(moment)
            while self.not_before and child.is_alive() and not any(sweep.glob(self.not_before)):
                time.sleep(0.01)
            hits += child.send(signal.SIGKILL)
            child.wait()
            complaints += _completed_again(sweep, completed)
        child = self._go_on(setup, folder)
        if (code := child.wait()) != 0:
            return hits, [*complaints, f"ended with {code}: {child.err[-500:]}"]
        complaints += _completed_again(sweep, completed)
        if _table(sweep) != self.expected[setup]:
            complaints.append("other results")
        return hits, complaints

    def _go_on(self, setup: str, folder: Path) -> Child:
        """Resumes the sweep; starts it, as long as it is not planned to the end."""
        if (folder / "sweep" / "ledger.jsonl").exists():
            return Child(["resume", "sweep"], folder, SABOTAGES[self.sabotage])
        shutil.rmtree(folder / "sweep", ignore_errors=True)
        return Child([*SETUPS[setup], "hydra.sweep.dir=sweep"], folder)


def _completed_again(sweep: Path, completed: dict[Path, tuple[int, int]]) -> list[str]:
    """The jobs that have completed more than once; notes those that have."""
    found = []
    for path in sweep.glob("*/result.json"):
        times = path.with_name("run.log").read_text(encoding="utf-8").count("Run folder: ")
        file = path.stat().st_ino, path.stat().st_mtime_ns
        if times != 1 or completed.setdefault(path, file) != file:
            found.append(f"{path.parent.name} was completed again")
    return found


def _table(path: Path) -> list[dict[str, Any]]:
    """What the final table of a sweep is made of, but for the times."""
    sweep = SweepFolder(path)
    return [
        {
            "number": outcome.number, "overrides": outcome.overrides, "state": outcome.state,
            **{name: value for name, value in (outcome.result or {}).items() if name not in TIMES},
        }
        for outcome in sweep.outcomes(sweep.jobs())
    ]  # fmt: skip


def sweep_failures(launchers: Sequence[str]) -> Report:
    """A sweep of 32 jobs, eight of which fail in eight different ways, on each launcher: 24 results, 8 outcomes."""
    report = Report()
    with workplace() as where:
        results: dict[str, list[str]] = {}
        for name in launchers:
            environment = {
                **os.environ, "PYTHONPATH": str(SABOTAGE_DIR), "SABOTAGE": json.dumps(dict(enumerate(WAYS))),
            }  # fmt: skip
            own = ["seed=" + ",".join(map(str, range(32))), f"hydra.sweep.dir={where / name}"]
            command = [sys.executable, "-m", "era_cnn", "-m", *SHORT, *own, *LAUNCHERS[name]]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=where, check=False)
            table = _table(where / name)
            failed = [row for row in table if row["state"] == "failed"]
            completed = [row["weights_sha256"] for row in table if row["state"] == "completed"]
            report.tried += len(table)
            report.figures[name] = [len(completed), len(failed)]
            if done.returncode != 1 or (len(completed), len(failed)) != (24, 8):
                report.failures.append(f"{name}: {len(completed)} results, {len(failed)} outcomes, {done.returncode}")
            outcomes = [json.loads(path.read_text(encoding="utf-8")) for path in (where / name).glob("*/status.json")]
            if sum(bool(outcome.get("message")) for outcome in outcomes if outcome["state"] == "failed") != 8:
                report.failures.append(f"{name}: a failure without a reason")
            results[name] = completed
        if len({tuple(each) for each in results.values()}) > 1:
            report.failures.append("the launchers came to different bits")
    return report
