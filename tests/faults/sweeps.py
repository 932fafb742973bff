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
from pathlib import Path
from typing import Any

from era_cnn.runs.result import TIMES
from era_cnn.sweeps.folder import SweepFolder
from tests.faults.campaigns import workplace
from tests.faults.harness import RUN, Child, Report, in_parallel

SABOTAGE_DIR = Path(__file__).parents[1] / "sweeps" / "sabotage"
WAYS = ("raise", "sys.exit", "os._exit", "SIGKILL", "SIGSEGV", "SIGABRT", "memory", "diverge")

SHORT = [word for word in RUN if "limit_epochs" not in word] + ["trainer.limit_epochs=2"]
SWEEP = ["-m", *SHORT, "seed=1,2", "model.dropout=0,0.1"]
LAUNCHERS = {"basic": ["hydra/launcher=basic"], "local": ["hydra/launcher=local"]}


def sweep_kills(kills: int, *, seed: int = 1, workers: int = 2) -> Report:
    """SIGKILL to the driver at instants that are uniform over a sweep's duration; up to four times before it may end.

    Afterwards every job has the result that it has in a sweep that nothing disturbed, and none was completed twice.
    """
    with workplace() as where:
        expected, seconds = {}, {}
        for launcher in LAUNCHERS:
            started = time.monotonic()
            child = Child([*SWEEP, *LAUNCHERS[launcher], "hydra.sweep.dir=sweep"], where / launcher)
            assert child.wait() == 0, child.err
            seconds[launcher] = time.monotonic() - started
            expected[launcher] = _table(where / launcher / "sweep")
        assert expected["basic"] == expected["local"]
        share = -(-kills // (2 * workers))
        parts = [
            (where / str(part), share, seed * 1000 + part, expected["basic"], seconds) for part in range(2 * workers)
        ]
        return in_parallel(_sweep_kills, parts, workers)


def _sweep_kills(
    where: Path, kills: int, seed: int, expected: list[dict[str, Any]], seconds: dict[str, float]
) -> Report:
    chance, report, chains = random.Random(seed), Report(), 0
    while report.tried < kills:
        launcher = chance.choice(list(LAUNCHERS))
        length = min(chance.randint(1, 4), kills - report.tried)
        chain, folder = f"chain {chains} of seed {seed}, {launcher}", where / str(chains)
        words, hits = [*SWEEP, *LAUNCHERS[launcher], "hydra.sweep.dir=sweep"], 0
        done: dict[str, int] = {}
        for _ in range(length):
            child = Child(words, folder)
            time.sleep(chance.uniform(0, seconds[launcher]))
            hits += child.send(signal.SIGKILL)
            child.wait()
            if not (folder / "sweep" / "ledger.jsonl").exists():  # killed before all was planned
                shutil.rmtree(folder / "sweep", ignore_errors=True)
                words = [*SWEEP, *LAUNCHERS[launcher], "hydra.sweep.dir=sweep"]
            else:
                words = ["resume", "sweep"]
            for path in (folder / "sweep").glob("*/result.json"):
                if done.setdefault(str(path), path.stat().st_ino) != path.stat().st_ino:
                    report.failures.append(f"{chain}: {path.parent.name} was completed twice")
        report.tried += hits
        child = Child(words, folder)
        code = child.wait()
        if code != 0:
            report.failures.append(f"{chain}, after {hits} kills: ended with {code}: {child.err[-500:]}")
        elif _table(folder / "sweep") != expected:
            report.failures.append(f"{chain}, after {hits} kills: other results")
        for path in (folder / "sweep").glob("*/run.log"):
            completions = path.read_text(encoding="utf-8").count("Run folder: ")
            if completions > 1 or done.get(str(path.with_name("result.json")), 0) not in (
                0, path.with_name("result.json").stat().st_ino,
            ):  # fmt: skip
                report.failures.append(f"{chain}: {path.parent.name} was completed {completions} times")
        chains += 1
        shutil.rmtree(folder)
    report.figures = {"chains": chains}
    return report


def _table(path: Path) -> list[dict[str, Any]]:
    """What the final table of a sweep is made of, but for the times."""
    sweep = SweepFolder(path)
    return [
        {
            "number": record.number, "overrides": record.overrides, "state": record.state,
            **{name: value for name, value in (record.result or {}).items() if name not in TIMES},
        }
        for record in sweep.records(sweep.jobs())
    ]  # fmt: skip


def sweep_failures(launchers: dict[str, list[str]]) -> Report:
    """A sweep of 32 jobs, eight of which fail in eight different ways, on each launcher: 24 results, 8 records."""
    report = Report()
    with workplace() as where:
        results: dict[str, list[str]] = {}
        for name, words in launchers.items():
            environment = {
                **os.environ, "PYTHONPATH": str(SABOTAGE_DIR), "SABOTAGE": json.dumps(dict(enumerate(WAYS))),
            }  # fmt: skip
            own = ["seed=" + ",".join(map(str, range(32))), f"hydra.sweep.dir={where / name}"]
            command = [sys.executable, "-m", "era_cnn", "-m", *SHORT, *own, *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=where, check=False)
            table = _table(where / name)
            failed = [row for row in table if row["state"] == "failed"]
            completed = [row["weights_sha256"] for row in table if row["state"] == "completed"]
            report.tried += len(table)
            report.figures[name] = [len(completed), len(failed)]
            if done.returncode != 1 or (len(completed), len(failed)) != (24, 8):
                report.failures.append(f"{name}: {len(completed)} results, {len(failed)} records, {done.returncode}")
            records = [json.loads(path.read_text(encoding="utf-8")) for path in (where / name).glob("*/status.json")]
            if sum(bool(record.get("message")) for record in records if record["state"] == "failed") != 8:
                report.failures.append(f"{name}: a failure without a reason")
            results[name] = completed
        if len({tuple(each) for each in results.values()}) > 1:
            report.failures.append("the launchers came to different bits")
    return report
