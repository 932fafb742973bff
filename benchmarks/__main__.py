"""`python -m benchmarks [PART ...]` measures speed, memory and start-up, and writes what it found into pages.

What is compared takes turns in one run, round after round, each in a process of its own; a ratio is taken within a
round. PART is any of speed, growth, crowd, busy, start, augmentation, large, sweeps, operations (all of these if none
is given) and seeds (a round is a seed; some ten minutes each). Needs MNIST (ERA_CNN_DATA), and an idle machine, but for
operations, which are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks import BATCH_SIZES, ROTATES
from benchmarks.report import write_pages
from benchmarks.seeds import seeds
from benchmarks.sweeps import sweeps
from era_cnn.processor import processor_name

ROOT = Path(__file__).parents[1]
LIGHTNING_PYTHON = ROOT / ".venv-lightning" / "bin" / "python"
DATA = os.environ.get("ERA_CNN_DATA", "data")
CORES = len(os.sched_getaffinity(0))
COMMANDS = {
    "era_cnn": [sys.executable, "-m", "benchmarks.era"],
    "compiled": [sys.executable, "-m", "benchmarks.era", "--compile"],
    "plain": [sys.executable, "benchmarks/plain.py"],
    "lightning": [str(LIGHTNING_PYTHON), "benchmarks/lightning_loop.py"],
    "floor": [sys.executable, "benchmarks/floor.py"],
}
"""What trains the reference networks."""
OTHERS = {part: [sys.executable, "-m", f"benchmarks.{part}"] for part in ("augmentation", "large")}


class Contender:
    """A process that trains a round of images whenever it is asked to."""

    def __init__(
        self,
        name: str,
        *,
        model: str,
        images: int,
        batch_size: int,
        threads: int,
        width: int = 1,
        data: str = DATA,
        **environment: str,
    ) -> None:
        options = {"model": model, "data": data, "images": images, "batch-size": batch_size, "threads": threads}
        words = [f"--{key}={value}" for key, value in {**options, "width": width}.items()]
        self.images = images
        self.process = subprocess.Popen(
            [*{**COMMANDS, **OTHERS}[name], *words], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if name == "lightning" else None, env={**os.environ, **environment},
        )  # fmt: skip
        if (said := self._read()) != "ready":
            raise SystemExit(f"{name} must get ready, got {said!r}.")

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def seconds(self) -> float:
        return float(self._read())

    def round(self) -> float:
        """Images a second."""
        self.begin()
        return self.images / self.seconds()

    def close(self) -> int:
        """Ends it; returns the most memory that it held, in bytes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * 1024

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def in_turn(contenders: dict[str, Contender], rounds: int) -> dict[str, Any]:
    """Images a second of each, and how many times as fast as each the first one is: median, least and most."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            speeds[name].append(contender.round())
    first = next(iter(speeds.values()))
    return {
        name: {
            "images_per_second": round(statistics.median(values)),
            "rounds": [round(value, 1) for value in values],
            "ratio": spread([own / other for own, other in zip(first, values, strict=True)]),
            "peak_bytes": contenders[name].close(),
        }
        for name, values in speeds.items()
    }


def spread(values: Sequence[float]) -> list[float]:
    """Median, least and most."""
    return [round(value, 3) for value in (statistics.median(values), min(values), max(values))]


def speed(rounds: int) -> dict[str, Any]:
    """Each model, every contender, all cores."""
    found = {}
    for model, batch_size in BATCH_SIZES.items():
        steps = 50 if model in ROTATES else 8  # an image of CIFAR takes the plain loop ten times as long
        options = {"model": model, "images": steps * batch_size, "batch_size": batch_size, "threads": CORES}
        found[model] = in_turn({name: Contender(name, **options) for name in COMMANDS}, rounds)
        print(model, json.dumps(found[model]), flush=True)
    return found


def growth(rounds: int) -> dict[str, Any]:
    """How Model-3 grows with the batch, the width and the threads, beside the plain loop and the floor."""
    cases = {
        f"batch size {size}": {"batch_size": size, "images": max(3200, 4 * size)}
        for size in (32, 64, 128, 256, 512, 1024)
    }
    cases |= {f"width × {width}": {"width": width, "images": 3200 // width} for width in (1, 2, 4)}
    cases |= {f"{threads} thread{'s' if threads > 1 else ''}": {"threads": threads} for threads in range(1, CORES + 1)}
    found = {}
    for case, changes in cases.items():
        options = {"model": "model_3", "images": 3200, "batch_size": 64, "threads": CORES, **changes}
        found[case] = in_turn({name: Contender(name, **options) for name in ("era_cnn", "plain", "floor")}, rounds)
        print(case, json.dumps(found[case]), flush=True)
    return found


def crowd(rounds: int) -> dict[str, Any]:
    """How many images a second several runs of Model-3 at once come to, beside one run with all cores."""
    cases = {
        f"1 run, {CORES} threads": (1, CORES),
        **{f"{n} run{'s' if n > 1 else ''}, 1 thread each": (n, 1) for n in (1, 2, 3, 4)},
    }
    options = {"model": "model_3", "images": 3200, "batch_size": 64}
    runs = {
        case: [Contender("era_cnn", threads=threads, **options) for _ in range(number)]
        for case, (number, threads) in cases.items()
    }
    speeds: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, contenders in runs.items():
            started = time.perf_counter()
            for contender in contenders:
                contender.begin()
            for contender in contenders:
                contender.seconds()
            speeds[case].append(len(contenders) * options["images"] / (time.perf_counter() - started))
    for contenders in runs.values():
        for contender in contenders:
            contender.close()
    alone = next(iter(speeds.values()))
    found = {
        case: {
            "images_per_second": round(statistics.median(values)),
            "rounds": [round(value, 1) for value in values],
            "ratio": spread([value / one for value, one in zip(values, alone, strict=True)]),
        }
        for case, values in speeds.items()
    }
    print(json.dumps(found), flush=True)
    return found


WAITING = {
    "as OpenMP does by itself": {"OMP_WAIT_POLICY": ""},  # said so, nothing else is set
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (1_000, 10_000, 30_000, 100_000)},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""How threads wait for each other: rounds for which they spin before they sleep."""


def busy(rounds: int) -> dict[str, Any]:
    """Model-4 on an idle machine and next to one other busy process, by how its threads wait."""
    options: dict[str, Any] = {"model": "model_4", "images": 3200, "batch_size": 64}
    ways = {way: Contender("era_cnn", threads=CORES, **options, **environment) for way, environment in WAITING.items()}
    ways["threads=1"] = Contender("era_cnn", threads=1, **options)
    speeds: dict[str, dict[str, list[float]]] = {way: {"idle": [], "busy": []} for way in ways}
    for number in range(rounds):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]  # none is always the first
        for state in ("idle", "busy"):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if state == "busy" else None
            time.sleep(1)
            for way in order:
                speeds[way][state].append(ways[way].round())
            if other is not None:
                other.kill()
                other.wait()
    for contender in ways.values():
        contender.close()
    found = {way: {state: spread(values) for state, values in both.items()} for way, both in speeds.items()}
    print(json.dumps(found), flush=True)
    return found


def operations(rounds: int) -> dict[str, Any]:
    """How many operators of PyTorch a step of Model-4 calls."""
    from benchmarks.operations import operations as counted  # imports torch

    return counted()


def augmentation(rounds: int) -> dict[str, Any]:
    """What a CIFAR recipe's augmentation takes of a step, and how many images a second come out, beside torchvision."""
    found = {}
    for first, *others in (("step", "pipeline"), ("batches", "loader", "workers")):
        options = {"images": 5120, "batch_size": 128, "threads": CORES}
        contenders = {name: Contender("augmentation", model=name, **options) for name in (first, *others)}
        found |= in_turn(contenders, rounds)
    print(json.dumps(found), flush=True)
    return found


def large(rounds: int, count: int = 200_000) -> dict[str, Any]:
    """An epoch over a folder of images, mapped from the cache and held in memory, and the memory that either takes."""
    from benchmarks.large import SIZE, anonymous_bytes, draw

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as name:
        draw(Path(name), count)
        options = {"images": count, "batch_size": 128, "threads": CORES, "data": name}
        started = time.perf_counter()
        contenders = {"mapped": Contender("large", model="mapped", XDG_CACHE_HOME=name, **options)}
        first = time.perf_counter() - started
        contenders["memory"] = Contender("large", model="memory", XDG_CACHE_HOME=name, **options)
        speeds: dict[str, list[float]] = {way: [] for way in contenders}
        for _ in range(rounds):
            for way, contender in contenders.items():
                speeds[way].append(contender.round())
        anonymous = {way: anonymous_bytes(each.process.pid) for way, each in contenders.items()}
        for contender in contenders.values():
            contender.close()
    found = {
        "pixels_bytes": count * 3 * SIZE * SIZE,
        "first_seconds": first,
        "images_per_second": {way: spread(values) for way, values in speeds.items()},
        "ratio": spread([one / other for one, other in zip(speeds["mapped"], speeds["memory"], strict=True)]),
        "anonymous_bytes": anonymous,
    }
    print(json.dumps(found), flush=True)
    return found


FIRST_STEP = """
import os, sys
from era_cnn.training.objective import Objective
Objective.backward = lambda *arguments: os._exit(0)
sys.argv = ["era-cnn", "experiment=model_3"]
from era_cnn.cli import main
main()
"""
BARE_HYDRA = """
import sys, hydra
sys.argv = ["bare", "--cfg", "job"]
hydra.main(version_base="1.3", config_path="pkg://era_cnn.conf", config_name="config")(lambda config: None)()
"""


def start(rounds: int) -> dict[str, Any]:
    """How long commands take, as whole processes; and the memory and evaluation of a run of Model-3."""
    era = [str(Path(sys.executable).with_name("era-cnn"))]
    commands = {
        "python -c 'import hydra'": [sys.executable, "-c", "import hydra"],
        "a bare Hydra application, --cfg job": [sys.executable, "-c", BARE_HYDRA],
        "era-cnn --help": [*era, "--help"],
        "era-cnn --cfg job": [*era, "--cfg", "job"],
        "era-cnn models": [*era, "models"],
        "era-cnn optimizer.lr=-1 (a wrong config)": [*era, "optimizer.lr=-1"],
        "python -c 'import torch, torchvision'": [sys.executable, "-c", "import torch, torchvision"],
        "era-cnn describe": [*era, "describe"],
        "era-cnn experiment=model_3, to the first step": [sys.executable, "-c", FIRST_STEP],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ERA_CNN_DATA": str(Path(DATA).resolve())}
        for _ in range(rounds + 1):  # the first fills caches
            for name, command in commands.items():
                started = time.perf_counter()
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
                seconds[name].append(time.perf_counter() - started)
                assert done.returncode == (2 if "wrong" in name else 0), (name, done.stderr)
        run = [*era, "experiment=model_3", "trainer.limit_epochs=2", f"threads={CORES}", "hydra.run.dir=run"]
        process = subprocess.Popen(run, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
    found = {
        "seconds": {name: spread(values[1:]) for name, values in seconds.items()},
        "peak_bytes_of_a_run": usage.ru_maxrss * 1024,
        "evaluation": evaluation(rounds),
    }
    print(json.dumps(found), flush=True)
    return found


def evaluation(rounds: int) -> dict[str, float]:
    """Seconds that the 10,000 test images take, beside those of an epoch of training (from a tenth of one)."""
    import torch

    from benchmarks.era import config_of
    from era_cnn.machine import keep_memory
    from era_cnn.runs.parts import make_parts, read_data
    from era_cnn.runs.process import set_up
    from era_cnn.training.evaluate import evaluate
    from era_cnn.training.history import History
    from era_cnn.training.loop import fit

    config = config_of("model_3", f"threads={CORES}", f"data.root={DATA}", "trainer.limit_train_images=6016")
    keep_memory()
    training, evaluating = [], []
    with set_up(config.threads):
        parts = make_parts(config, read_data(config), torch.device("cpu"))
        for _ in range(rounds + 1):
            (metrics,) = fit(parts.state, parts.schedule, parts.train, epochs=1, seed=1, history=History())
            training.append(metrics.seconds * 60_000 / 6016)
            started = time.perf_counter()
            evaluate(parts.state.network, parts.test).scores()
            evaluating.append(time.perf_counter() - started)
    shares = [one / other for one, other in zip(evaluating[1:], training[1:], strict=True)]
    return {"seconds": spread(evaluating[1:]), "share_of_an_epoch": spread(shares)}


PARTS = {
    "speed": speed,
    "growth": growth,
    "crowd": crowd,
    "busy": busy,
    "start": start,
    "augmentation": augmentation,
    "large": large,
    "sweeps": sweeps,
    "operations": operations,
    "seeds": seeds,
}


WITHOUT_LIGHTNING = {"busy", "augmentation", "large", "sweeps", "operations", "seeds"}
"""The parts that do without it."""


COUNTED = {"operations"}
"""The parts that measure nothing, so that neither rounds nor other processes matter."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {args.rounds}")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    parts = args.parts or [part for part in PARTS if part != "seeds"]
    if set(parts) - WITHOUT_LIGHTNING and not LIGHTNING_PYTHON.exists():
        parser.error(f"{LIGHTNING_PYTHON} must exist, got nothing. Use make bench, which sets it up.")
    path = Path(__file__).with_name("record.json")
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    where = machine()  # asked before anything is written: the figures themselves do not make the code dirty
    for part in parts:
        measured = {} if part in COUNTED else {"rounds": args.rounds, "busy": busy_share()}
        print(part, measured, flush=True)
        found = PARTS[part](args.rounds)
        if part not in COUNTED:
            measured["busy"] = [measured["busy"], busy_share()]
        record[part] = {**measured, "found": found, **where}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_pages(record, ROOT)


def busy_share(seconds: float = 2.0) -> float:
    """How much of the processors' time is used now, while no contender works: 0 to 1."""

    def times() -> tuple[int, int]:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        ticks = [int(word) for word in first.split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)  # idle or waiting for a disk, and all

    (idle, total), _ = times(), time.sleep(seconds)
    idle_later, total_later = times()
    return round(1 - (idle_later - idle) / (total_later - total), 3)


def machine() -> dict[str, str]:
    """What was measured, and on what."""
    from importlib import metadata

    ours = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision", "numpy", "hydra-core"))
    asked = (
        'from importlib.metadata import version as v; print(f\'lightning {v("lightning")} with torch {v("torch")}\')'
    )
    theirs = "no lightning"
    if LIGHTNING_PYTHON.exists():
        done = subprocess.run([LIGHTNING_PYTHON, "-c", asked], capture_output=True, text=True, check=True)
        theirs = done.stdout.strip()
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return {
        "machine": f"{CORES} cores of an {processor_name()}, Python {sys.version.split()[0]}, {ours}; {theirs}",
        "code": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
    }


if __name__ == "__main__":
    main()
