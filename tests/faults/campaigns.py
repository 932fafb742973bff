"""The campaigns: each does one kind of harm to real runs, many times, and compares with the run that nothing disturbed."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from era_cnn.folders.checkpoints import CheckpointFolder
from tests.faults.disk import Act, Disk, last_at, power_cut_at, refuse, write_down
from tests.faults.harness import RUN, STUCK, Attempts, Report, in_parallel, reference
from tests.faults.sabotage import SABOTAGES

SAVING = {
    "every step": ("trainer.checkpoint_every_seconds=1e-9",),
    "20 times a second": ("trainer.checkpoint_every_seconds=0.05",),
    "every epoch": ("trainer.checkpoint_every_seconds=null",),
}
"""How often the runs of a campaign are saved."""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder that is removed at the end, whatever lies in it."""
    path = Path(tempfile.mkdtemp(prefix="faults_"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def kills(trials: int, *, seed: int = 1, sabotage: str = "none", workers: int = 2) -> Report:
    """SIGKILL at instants that are uniform over a run's duration; up to five times before a run may end."""
    with workplace() as where:
        expected, seconds = {}, {}
        for name, words in SAVING.items():
            started = time.monotonic()
            expected[name] = reference(where / name, *words)
            seconds[name] = time.monotonic() - started
        share = -(-trials // (4 * workers))  # small parts, so that no worker waits long for another
        parts = [
            (where / str(part), min(share, trials - part * share), seed * 1000 + part, sabotage, expected, seconds)
            for part in range(4 * workers)
            if part * share < trials
        ]
        return in_parallel(_kills, parts, workers)


def _kills(
    where: Path, trials: int, seed: int, sabotage: str, expected: dict[str, Any], seconds: dict[str, float]
) -> Report:
    chance, report, chains = random.Random(seed), Report(), 0
    before = SABOTAGES[sabotage]
    while report.tried < trials:
        saving = chance.choice(list(SAVING))
        length = min(chance.choice([1, 1, 2, 3, 5]), trials - report.tried)
        chain = f"chain {chains} of seed {seed}, saved {saving}"
        attempts = Attempts(where / str(chains), [*RUN, *SAVING[saving]])
        chains += 1
        hits = 0
        while hits < length:
            child = attempts.go_on(before)
            time.sleep(chance.uniform(0, seconds[saving]))
            hits += child.send(signal.SIGKILL)
            code = child.wait()
            if code not in (0, -signal.SIGKILL):
                report.failures.append(f"{chain}, after {hits} kills: ended with {code}: {child.err[-500:]}")
            if code != -signal.SIGKILL:
                break
        report.tried += hits
        if difference := attempts.difference(expected[saving], before):
            report.failures.append(f"{chain}, after {hits} kills: {difference}")
        shutil.rmtree(attempts.where)
    report.figures = {"chains": chains, "stuck": sum(STUCK in failure for failure in report.failures)}
    return report


SHORT = ("trainer.limit_epochs=2", *SAVING["every step"])
"""Two epochs that are saved at every step: what happens later happens the same way."""


@dataclass(frozen=True)
class Scene:
    """How a run is about to be disturbed: from its start, or gone on with; and the operations that it will make."""

    name: str
    interrupted: Path | None
    operations: list[str]

    def attempts(self, where: Path) -> Attempts:
        """The run in this scene, in a folder of its own."""
        if self.interrupted is None:
            return Attempts(where, [*RUN, *SHORT])
        shutil.copytree(self.interrupted, where / "run")
        return Attempts(where, [*RUN, *SHORT], folder=where / "run")


def scenes(where: Path) -> list[Scene]:
    """A run from its start, and one that was killed in its second epoch and whose newest checkpoint was damaged then."""
    start = Scene("from the start", None, [])
    interrupted = start.attempts(where / "interrupted")
    child = interrupted.go_on(lambda: Disk(interrupted.where, last_at(110, "before")).install())
    assert child.wait() == -signal.SIGKILL, child.err
    newest = max((interrupted.folder / "checkpoints").glob("epoch-*.pt"), key=lambda path: path.name)
    newest.write_bytes(_flipped(newest.read_bytes(), 1000))
    found = []
    for scene in (start, Scene("gone on with", interrupted.folder, [])):
        listed = where / f"{scene.name}.txt"
        attempts = scene.attempts(where / scene.name)
        child = attempts.go_on(lambda watched=attempts.where, out=listed: Disk(watched, write_down(out)).install())
        assert child.wait() == 0, child.err
        found.append(replace(scene, operations=listed.read_text(encoding="utf-8").splitlines()))
    return found


@functools.cache
def undisturbed() -> tuple[dict[str, Any], list[Scene]]:
    """The outcome of a short run and its scenes; made once for all campaigns of a process and of its forks."""
    where = Path(tempfile.mkdtemp(prefix="faults_"))
    atexit.register(shutil.rmtree, where, ignore_errors=True)
    return reference(where / "reference", *SHORT), scenes(where / "scenes")


def crash_points(
    trials: int | None = None, *, seed: int = 1, sabotage: str = "none", workers: int = 2, only: str = ""
) -> Report:
    """Death, or a power cut, before each operation on the run's folder, and half-way through each write.

    What is so after an operation is so before the next one. `only` picks the crashes whose name holds it.
    """
    crashes = [name for name in CRASHES if only in name]
    return _at_every_operation(_crashes, crashes, trials, seed=seed, sabotage=sabotage, workers=workers)


def disk_failures(trials: int | None = None, *, seed: int = 1, sabotage: str = "none", workers: int = 2) -> Report:
    """Each operation on the run's folder fails: once, or from then on; the disk is full, broken, or read-only."""
    return _at_every_operation(_refusals, list(REFUSALS), trials, seed=seed, sabotage=sabotage, workers=workers)


CRASHES: dict[str, Callable[[int], Act]] = {
    **{f"killed {phase}": (lambda n, p=phase: last_at(n, p)) for phase in ("before", "half-way")},
    **{
        f"power cut {phase}, new names {names}": (lambda n, p=phase, m=names: power_cut_at(n, p, m))
        for phase in ("before", "half-way")
        for names in ("kept", "lost")
    },
}

READ_ONLY = f"{os.strerror(errno.EROFS)}, from then on"
STAYED = "results that a read-only disk kept"

REFUSALS: dict[str, Callable[[int], Act]] = {
    f"{os.strerror(code)}{', from then on' if forever else ', once'}": (
        lambda n, c=code, f=forever: refuse(n, c, forever=f)
    )
    for code, forever in (
        (errno.ENOSPC, False), (errno.ENOSPC, True), (errno.EIO, False), (errno.EROFS, True),
    )
}  # fmt: skip


def _at_every_operation(
    part: Callable[..., Report], names: list[str], trials: int | None, *, seed: int, sabotage: str, workers: int
) -> Report:
    expected, found = undisturbed()
    with workplace() as where:
        cases = [
            (scene, number, name)
            for scene in found
            for number, operation in enumerate(scene.operations, start=1)
            for name in names
            if "half-way" not in name or operation.startswith("write")
        ]
        if trials is not None:
            cases = random.Random(seed).sample(cases, min(trials, len(cases)))
        chunks = [cases[start :: 4 * workers] for start in range(4 * workers)]
        arguments = [
            (where / f"part{number}", chunk, expected, sabotage) for number, chunk in enumerate(chunks) if chunk
        ]
        report = in_parallel(part, arguments, workers)
    operations = {f"operations {scene.name}": len(scene.operations) for scene in found}
    return Report(report.tried, report.failures, {**operations, **report.figures})


Case = tuple[Scene, int, str]


def _crashes(where: Path, cases: list[Case], expected: dict[str, Any], sabotage: str) -> Report:
    report = Report(figures=dict.fromkeys(CRASHES, 0))
    for case_number, (scene, number, name) in enumerate(cases):
        attempts = scene.attempts(where / str(case_number))

        def before(number: int = number, name: str = name, folder: Path = attempts.where) -> None:
            Disk(folder, CRASHES[name](number)).install()
            SABOTAGES[sabotage]()

        code = attempts.go_on(before).wait()
        report.tried += 1
        report.figures[name] += 1
        case = f"{scene.name}, {name} operation {number} ({scene.operations[number - 1]})"
        if code != -signal.SIGKILL:
            report.failures.append(f"{case}: the run was to die, and ended with {code}")
        elif difference := attempts.difference(expected, SABOTAGES[sabotage]):
            report.failures.append(f"{case}: {difference}")
        shutil.rmtree(attempts.where)
    return report


def _refusals(where: Path, cases: list[Case], expected: dict[str, Any], sabotage: str) -> Report:
    report = Report(figures={**dict.fromkeys(REFUSALS, 0), STAYED: 0})
    for case_number, (scene, number, name) in enumerate(cases):
        attempts = scene.attempts(where / str(case_number))

        def before(number: int = number, name: str = name, folder: Path = attempts.where) -> None:
            SABOTAGES[sabotage]()
            Disk(folder, REFUSALS[name](number)).install()

        child = attempts.go_on(before)
        code = child.wait()
        report.tried += 1
        report.figures[name] += 1
        # Only the name of the result is left to be synchronised, and nothing can be unlinked: then it stays, and is whole.
        may_stay = name == READ_ONLY and number == len(scene.operations)
        report.figures[STAYED] += (stayed := may_stay and (attempts.folder / "result.json").exists())
        wrong = _what_is_wrong_with_a_refusal(code, child.err, None if stayed else attempts.folder)
        wrong = wrong or attempts.difference(expected)
        if wrong:
            report.failures.append(
                f"{scene.name}, {name}, operation {number} ({scene.operations[number - 1]}): {wrong}"
            )
        shutil.rmtree(attempts.where)
    return report


def _what_is_wrong_with_a_refusal(code: int, err: str, folder: Path | None) -> str:
    if code not in (1, 4):
        return f"ended with {code}: {err[-500:]}"
    if folder and (folder / "result.json").exists():
        return "a result, though a write had failed"
    lines = [line for line in err.splitlines() if not line.endswith(".damaged.")]  # of the scene's damaged checkpoint
    if len(lines) != 1 or " must " not in err or "Traceback" in err:
        return f"not one clear line: {err[-500:]}"
    return ""


def damage(flips: int, truncations: int, resumes: int, *, seed: int = 1, sabotage: str = "none") -> Report:
    """Flips a bit, or cuts off the end, of the newest checkpoint of an interrupted run.

    Every damaged file is given to what reads checkpoints, which must name it and take the one before; every so many
    also to a whole resumed run. And to plain `torch.load`, to see what that takes without a word.
    """
    import torch  # here, since the other campaigns fork and must not have computed anything

    chance, report = random.Random(seed), Report()
    plain: dict[str, int] = {"refused": 0, "accepted": 0, "accepted, with other tensors": 0}
    with workplace() as where:
        expected = reference(where / "reference", *SAVING["every step"])
        base = _interrupted_with_two_checkpoints(where)
        newest = max((base / "checkpoints").glob("epoch-*.pt"), key=lambda path: path.name)
        before_it = min((base / "checkpoints").glob("epoch-*.pt"), key=lambda path: path.name)
        content, fallback = newest.read_bytes(), before_it.read_bytes()
        sound = _tensors(torch.load(io.BytesIO(content), weights_only=True))
        SABOTAGES[sabotage]()
        damages = [("bit", chance.randrange(8 * len(content))) for _ in range(flips)]
        damages += [("length", chance.randrange(len(content))) for _ in range(truncations)]
        end_to_end = set(chance.sample(range(len(damages)), min(resumes, len(damages))))
        for number, (kind, position) in enumerate(damages):
            report.tried += 1
            damaged = _flipped(content, position) if kind == "bit" else content[:position]
            newest.write_bytes(damaged)
            found = CheckpointFolder(base / "checkpoints").newest()
            if found is None or found.content != fallback or newest not in found.damaged:
                report.failures.append(f"{kind} {position} of {newest.name}: not detected")
            newest.write_bytes(content)
            plain[_plain_load(damaged, sound)] += 1
            if number in end_to_end:
                copy = Attempts(where / f"copy{number}", RUN, folder=where / f"copy{number}" / "run")
                shutil.copytree(base, copy.folder)
                (copy.folder / "checkpoints" / newest.name).write_bytes(damaged)
                if difference := _resumed_in_a_process(copy, expected, newest.name):
                    report.failures.append(f"{kind} {position} of {newest.name}: {difference}")
                shutil.rmtree(copy.where)
    report.figures = {"flips": flips, "truncations": truncations, "resumed": len(end_to_end), **plain}
    return report


def _interrupted_with_two_checkpoints(where: Path) -> Path:
    """The folder of a run that was killed late, and not just after it removed the checkpoint before the last one."""
    for operation in range(200, 220):
        attempts = Attempts(where / f"run{operation}", [*RUN, *SAVING["every step"]])
        child = attempts.go_on(
            lambda attempts=attempts, at=operation: Disk(attempts.where, last_at(at, "before")).install()
        )
        assert child.wait() == -signal.SIGKILL
        if len(list((attempts.folder / "checkpoints").glob("epoch-*.pt"))) == 2:
            return attempts.folder
    raise AssertionError("none of these runs had two checkpoints when it was killed")


def _resumed_in_a_process(copy: Attempts, expected: dict[str, Any], damaged: str) -> str:
    import subprocess
    import sys

    from tests.faults.harness import outcome

    done = subprocess.run(
        [sys.executable, "-m", "era_cnn", "resume", str(copy.folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or damaged not in done.stderr:
        return f"ended with {done.returncode}: {done.stderr[-500:]}"
    found = outcome(copy.folder)
    return ", ".join(f"other {name}" for name in expected if found[name] != expected[name])


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def _plain_load(content: bytes, sound: str) -> str:
    import torch

    try:
        loaded = torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # noqa: BLE001 - whatever it raises, it refuses
        return "refused"
    return "accepted" if _tensors(loaded) == sound else "accepted, with other tensors"


def _tensors(value: Any) -> str:
    """A digest of all that a checkpoint holds."""
    import torch

    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode() + part.contiguous().numpy().tobytes())
        elif isinstance(part, dict):
            for name, each in part.items():
                digest.update(repr(name).encode())
                add(each)
        elif isinstance(part, list | tuple):
            for each in part:
                add(each)
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()


SIGNALS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGUSR2: 143}


LONG = ("trainer.limit_epochs=12", *SAVING["every epoch"])
"""So that most signals meet a run that has begun, and what is saved is saved because of them."""


def signals(trials: int, *, seed: int = 1, workers: int = 2) -> Report:
    """Signals at instants that are uniform over a run's duration, until `trials` of them met one that had begun.

    It is saved, says so, and goes on to the same.
    """
    with workplace() as where:
        words = LONG
        started = time.monotonic()
        expected = reference(where / "reference", *words)
        seconds = time.monotonic() - started
        share = -(-trials // (2 * workers))
        parts = [
            (where / str(part), min(share, trials - part * share), seed * 1000 + part, expected, seconds)
            for part in range(2 * workers)
            if part * share < trials
        ]
        report = in_parallel(_signals, parts, workers)
    report.figures["signals"] = [number.name for number in SIGNALS]
    waits = sorted(report.figures.pop("waits"))
    report.figures["median_seconds_to_exit"] = round(waits[len(waits) // 2], 4)
    report.figures["p99_seconds_to_exit"] = round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 4)
    return report


def _signals(where: Path, trials: int, seed: int, expected: dict[str, Any], seconds: float) -> Report:
    chance, report = random.Random(seed), Report()
    ended = {"saved": 0, "before anything had begun": 0, "as it was complete": 0}
    waits: list[float] = []
    while ended["saved"] < trials and not report.failures[10:]:
        attempts = Attempts(where / str(report.tried), [*RUN, *LONG])
        number = chance.choice(list(SIGNALS))
        child = attempts.go_on()
        delay = chance.uniform(0.05, seconds)
        time.sleep(delay)
        if not child.send(number):
            shutil.rmtree(attempts.where)
            continue
        sent = time.monotonic()
        code = child.wait()
        waits.append(time.monotonic() - sent)
        report.tried += 1
        case = f"{signal.Signals(number).name} after {delay:.4f} s (seed {seed})"
        state = _state(attempts.folder)
        expected_code = SIGNALS[signal.Signals(number)]
        if state == "completed" and code in (0, expected_code):
            ended["as it was complete"] += 1
        elif code != expected_code:
            report.failures.append(f"{case}: ended with {code}: {child.err[-500:]}")
        elif state == "none":
            ended["before anything had begun"] += 1
        elif state != "interrupted" or "Interrupted. To resume: era-cnn resume " not in child.err:
            report.failures.append(f"{case}: left the state {state}: {child.err[-500:]}")
        else:
            ended["saved"] += 1
        if difference := attempts.difference(expected):
            report.failures.append(f"{case}: {difference}")
        shutil.rmtree(attempts.where)
    report.figures = {**ended, "waits": waits}
    return report


def _state(folder: Path) -> str:
    if (folder / "result.json").exists():
        return "completed"
    path = folder / "status.json"
    return json.loads(path.read_text(encoding="utf-8"))["state"] if path.exists() else "none"
