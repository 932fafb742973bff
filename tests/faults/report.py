"""The records of the campaigns as a page for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = """# Reliability

What was done to real runs, and what came of it. A run counts as equal if its result, its metrics (but for the seconds)
and the digest of every tensor of model and optimizer, and of the order of the images, in every epoch, are those of the
run that nothing disturbed. The runs are short (digits, {steps}),
so that there can be many.

`make faults` repeats all of it, what is called after Slurm if one is up; what is called after Ray is repeated in the
environment of `make test-ray`: `.venv-ray/bin/python -m tests.faults sweep_kills_ray sweep_failures_ray`.
`python -m tests.faults CAMPAIGN` repeats one. What stands here took {minutes:.0f} minutes on
{machine}. Zero failures in n random trials (kills, damage, signals, sweep_kills, fuzz) mean: with 95% confidence, fewer than
3 / n fail. The other campaigns are lists of all that there is to try. `code` is the commit that was tried.

| campaign | code | tried | failed | what it is |
|---|---|---|---|---|
"""

STEPS = "three epochs of five steps each, with momentum, rotation, dropout and batch norm"


def write_readme(records: Path) -> None:
    """Writes the README beside the folder of the records, from those that are there."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(records.glob("*.json"))}
    rows = [
        f"| {name} | `{found[name]['code']}` | {found[name]['tried']:,} | {len(found[name]['failures']):,} | {describe(found[name]['figures'])} |"
        for name, describe in DESCRIPTIONS.items()
        if name in found
    ]
    machines = sorted({values["machine"] for values in found.values()})
    head = HEAD.format(
        steps=STEPS, minutes=sum(values["minutes"] for values in found.values()), machine=" and ".join(machines)
    )
    failures = [f"- {name}: {failure}" for name in found for failure in found[name]["failures"]]
    text = head + "\n".join(rows) + "\n"
    if failures:
        text += "\n## Failures\n\n" + "\n".join(failures) + "\n"
    text += CONTROLS
    (records.parent / "README.md").write_text(text, encoding="utf-8")


CONTROLS = """
Would the campaigns notice? With the restoration of momentum, of the step counter or of the records (and with them the
best accuracy) switched off, the crash points fail; without fsync, the power cuts fail; without the digest check, the damage
goes unnoticed; with failed writes ignored, the disk failures are complained of; with jobs begun anew on resume, the killed sweeps are;
with links followed, the hostile folders are; with characters that a terminal lacks, or closed streams, left as they are, the
environments are. The tests hold them to that: `tests/faults/test_campaigns.py`.

What this can't show: that a disk keeps what it says it has synchronised. The power cut is a model (half of each file
that was not synchronised is lost; a name given since the folder was last synchronised is, or is not, there), not a
pulled plug.
"""


def _kills(figures: dict[str, Any]) -> str:
    return (
        f"SIGKILL at random instants, {figures['stuck']} runs stuck, in {figures['chains']:,} chains of up to five before a run may end; saved at every "
        "step, 20 times a second, or at each epoch"
    )


def _crash_points(figures: dict[str, Any]) -> str:
    operations = sum(count for name, count in figures.items() if name.startswith("operations"))
    killed = sum(count for name, count in figures.items() if name.startswith("killed"))
    cut = sum(count for name, count in figures.items() if name.startswith("power"))
    return (
        f"each of the {operations} operations (open, write, fsync, rename, unlink) on the folder of a run"
        f"{', and of one that goes on past a damaged checkpoint' if 'operations gone on with' in figures else ''}: killed before it or half-way through a write ({killed:,}), or a power cut there ({cut:,})"
    )


def _disk_failures(figures: dict[str, Any]) -> str:
    others = ("operations", "results")
    kinds = ", ".join(f"{name} ({count})" for name, count in figures.items() if not name.startswith(others))
    kept = figures.get("results that a read-only disk kept", 0)
    return (
        f"each of those operations fails: {kinds}. Each time: exit code not 0, one line, resumed to the same bits, and no "
        f"`result.json`{f' (but {kept}, whole, where the disk became read-only after its very last rename)' if kept else ''}"
    )


def _damage(figures: dict[str, Any]) -> str:
    total = figures["flips"] + figures["truncations"]
    accepted = figures["accepted"] + figures["accepted, with other tensors"]
    return (
        f"{figures['flips']:,} flipped bits and {figures['truncations']:,} truncations of a checkpoint: named, and the one "
        f"before taken ({figures['resumed']} of them resumed to the end). Plain `torch.load(weights_only=True)` takes "
        f"{accepted:,} of these {total:,} files ({100 * accepted / total:.0f}%) without a word, "
        f"{figures['accepted, with other tensors']:,} of them with other values in them"
    )


def _signals(figures: dict[str, Any]) -> str:
    *names, last = figures["signals"]
    return (
        f"{', '.join(names)} or {last} at random instants: {figures['saved']} saved, "
        f"{figures['before anything had begun']} before anything had begun, {figures['as it was complete']} as the run "
        f"was complete; to the exit: median {1000 * figures['median_seconds_to_exit']:.0f} ms, 99th percentile "
        f"{1000 * figures['p99_seconds_to_exit']:.0f} ms"
    )


def _every_step(figures: dict[str, Any]) -> str:
    return (
        f"resumed from every position of a short training: {figures['combinations']} combinations of network "
        f"({', '.join(figures['networks'])}), SGD or Adam, each schedule, each augmentation"
    )


def _variations(figures: dict[str, Any]) -> str:
    return f"{figures['digests']} digest from runs that differ in what must not matter: {', '.join(figures['names'])}"


def _sweep_kills(figures: dict[str, Any]) -> str:
    return (
        f"SIGKILL to the driver of a sweep of four jobs at random instants, in {figures['chains']} chains of up to four "
        f"({', '.join(figures['setups'])}). Resumed: every job's result is that of a sweep that nothing disturbed, and no "
        "job was completed twice"
    )


def _sweep_failures(figures: dict[str, Any]) -> str:
    launchers = ", ".join(
        f"{name}: {completed} results, {failed} records" for name, (completed, failed) in figures.items()
    )
    return (
        "a sweep of 32 jobs, eight of which raise, call sys.exit or os._exit, are killed, crash, abort, run out of memory or "
        f"diverge, on each launcher ({launchers}); the others come to the same bits on each"
    )


def _hostile_folders(figures: dict[str, Any]) -> str:
    return (
        "every entry of a completed run, an interrupted run and a sweep replaced by a link, a pipe, a device, a socket, a "
        "folder, a terabyte of nothing and the like, cut off, or changed within (checkpoints with names that match "
        "among them), and then resumed, replayed, compared, listed, reported and evaluated: "
        f"{figures['refused']:,} refused with a message, {figures['carried out']:,} carried out, with the same result"
        ". No traceback, no hang, nothing outside the folder read or changed, less than 2 GiB of memory"
    )


def _environments(figures: dict[str, Any]) -> str:
    return (
        f"commands in {figures['environments']} odd environments: names, kinds and contents of folders, TMPDIR, homes, "
        "caches, owners; encodings, locales, terminals, closed, full and non-blocking streams, ignored signals; variables of "
        "libraries, clusters, proxies and clocks; options of Python; checkouts, their settings and damage, and what git may "
        "answer; limits, containers and file systems. "
        f"{figures['carried out']} carried out, the runs with the same weights, and {figures['refused']} refused with one "
        "message and nothing left behind. No traceback, no hang"
    )


def _fuzz(figures: dict[str, Any]) -> str:
    return (
        f"generated command lines and YAML files, most of them hostile: {figures['refused']:,} refused with a message, "
        f"{figures['accepted']:,} accepted, {figures['tracebacks']} tracebacks, {figures['hangs']} hangs; the slowest "
        f"took {figures['slowest_seconds']:.2f} s"
    )


def _cost(figures: dict[str, Any]) -> str:
    return (
        f"share of an epoch of Model-3 on MNIST that safety costs: {figures['share_percent']:.2f}% "
        f"({figures['share_in_steps_percent']:.2f}% determinism, seeding and checks in each step: with / without = "
        f"{figures['step_ratio_median']:.3f}, {figures['step_ratio_min']:.3f} to {figures['step_ratio_max']:.3f} over "
        f"{figures['rounds']} rounds in turn; {figures['share_in_saving_percent']:.2f}% digests, fsync and reading back: "
        f"{figures['milliseconds_of_saving_per_epoch']:.0f} ms an epoch)"
    )


DESCRIPTIONS = {
    "kills": _kills,
    "crash_points": _crash_points,
    "disk_failures": _disk_failures,
    "damage": _damage,
    "signals": _signals,
    "every_step": _every_step,
    "variations": _variations,
    "sweep_kills": _sweep_kills,
    "sweep_kills_slurm": _sweep_kills,
    "sweep_kills_ray": _sweep_kills,
    "sweep_failures": _sweep_failures,
    "sweep_failures_slurm": _sweep_failures,
    "sweep_failures_ray": _sweep_failures,
    "hostile_folders": _hostile_folders,
    "environments": _environments,
    "fuzz": _fuzz,
    "cost": _cost,
}
