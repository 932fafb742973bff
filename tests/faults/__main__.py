"""`python -m tests.faults [CAMPAIGN ...]` runs campaigns at full length, one after the other, and keeps what they found.

Each leaves `experiments/reliability/records/CAMPAIGN.json`; the README beside them is written from those that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from era_cnn.processor import processor_name
from tests.faults import campaigns
from tests.faults.harness import RUN, Report
from tests.faults.report import write_readme
from tests.process import preload
from tests.sweeps.test_plugins import HAS_RAY, HAS_SUBMITIT, has_slurm

RECORDS = Path(__file__).parents[2] / "experiments" / "reliability" / "records"


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--out", type=Path, default=RECORDS, help="the folder of the records")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if unknown := set(args.campaigns) - set(CAMPAIGNS):
        parser.error(f"CAMPAIGN must be one of {', '.join(CAMPAIGNS)}, got {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in args.campaigns or CAMPAIGNS:
        print(f"{name} …", flush=True)
        started = time.monotonic()
        report = _in_a_process(name, args.seed)
        values = {**report, "minutes": round((time.monotonic() - started) / 60, 1), "seed": args.seed, **_machine()}
        (args.out / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {values['tried']} tried, {len(values['failures'])} failed, {values['minutes']} minutes")
        print("\n".join(f"  {failure}" for failure in values["failures"][:20]), flush=True)
        failed |= bool(values["failures"])
    write_readme(args.out)
    sys.exit(failed)


def _in_a_process(name: str, seed: int) -> dict[str, Any]:
    """Each campaign has a process of its own: some fork it, which one that has computed must not be."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        program = f"from tests.faults.__main__ import run; run({name!r}, {seed}, {str(out)!r})"
        subprocess.run([sys.executable, "-c", program], check=True)
        values: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return values


def run(name: str, seed: int, out: str) -> None:
    """Runs a campaign in this process; writes what it found as JSON."""
    preload(*RUN, fork_workers=name == "hostile_folders")
    report = CAMPAIGNS[name](seed)
    values = {"tried": report.tried, "failures": report.failures, "figures": report.figures}
    Path(out).write_text(json.dumps(values), encoding="utf-8")


def _every_step(seed: int) -> Report:
    from tests.faults.steps import every_step  # imports what computes

    return every_step()


def _variations(seed: int) -> Report:
    from tests.faults.variations import variations

    return variations()


def _sweep_kills(seed: int) -> Report:
    from tests.faults.sweeps import sweep_kills

    return sweep_kills(100, seed=seed)


def _sweep_kills_on(launcher: str) -> Callable[[int], Report]:
    def campaign(seed: int) -> Report:
        from tests.faults.sweeps import sweep_kills

        return sweep_kills(20, [launcher], seed=seed, workers=1)

    return campaign


def _sweep_failures(*launchers: str) -> Callable[[int], Report]:
    def campaign(seed: int) -> Report:
        from tests.faults.sweeps import sweep_failures

        return sweep_failures(launchers)

    return campaign


def _hostile_folders(seed: int) -> Report:
    from tests.faults.hostile import hostile_folders  # imports torch

    return hostile_folders(2500, seed=seed)


def _environments(seed: int) -> Report:
    from tests.faults.environments import environments

    return environments()


def _fuzz(seed: int) -> Report:
    from tests.faults import fuzz

    found = fuzz.campaign(10_000, seed)
    failures = [str(failure) for failure in found.pop("failures")]
    return Report(found["examples"], failures, found)


def _cost(seed: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cost.json"
        subprocess.run([sys.executable, "-m", "benchmarks.safety", "--rounds", "20", "--out", str(out)], check=True)
        figures = json.loads(out.read_text(encoding="utf-8"))
    too_much = [f"{figures['share_percent']}% of an epoch"] if figures["share_percent"] >= 2 else []
    return Report(figures["rounds"], too_much, figures)


CAMPAIGNS: dict[str, Callable[[int], Report]] = {
    "kills": lambda seed: campaigns.kills(1000, seed=seed),
    "crash_points": lambda seed: campaigns.crash_points(seed=seed),
    "disk_failures": lambda seed: campaigns.disk_failures(seed=seed),
    "damage": lambda seed: campaigns.damage(2000, 500, 20, seed=seed),
    "signals": lambda seed: campaigns.signals(300, seed=seed),
    "every_step": _every_step,
    "variations": _variations,
    "sweep_kills": _sweep_kills,
    "sweep_failures": _sweep_failures("basic", "local"),
    "hostile_folders": _hostile_folders,
    "environments": _environments,
    "fuzz": _fuzz,
    "cost": _cost,
}


for launcher, is_there in {"Slurm": HAS_SUBMITIT and has_slurm(), "Ray": HAS_RAY}.items():
    if is_there:
        CAMPAIGNS[f"sweep_kills_{launcher.lower()}"] = _sweep_kills_on(launcher)
        CAMPAIGNS[f"sweep_failures_{launcher.lower()}"] = _sweep_failures("basic", launcher)


def _machine() -> dict[str, str]:
    from importlib import metadata

    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    code = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "hydra-core"))
    return {
        "code": code,
        "machine": f"{os.cpu_count()} cores of an {processor_name()}, Python {platform.python_version()}, {versions}",
    }


if __name__ == "__main__":
    main()
