"""Folders from a stranger: every file of a run and of a sweep, replaced by something else or changed within.

After each command: no traceback, no hang, one line that names the file if it is refused, bounded memory, nothing outside
the folder read or changed, and where a run could be resumed, the result of the run that nothing disturbed.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.faults.campaigns import workplace
from tests.faults.disk import Disk, last_at
from tests.faults.harness import RUN, Attempts, Child, Report, in_parallel, once, outcome, reference
from tests.faults.sabotage import SABOTAGES

SHORT = ("trainer.limit_epochs=2", "trainer.checkpoint_every_seconds=1e-9")
TIMEOUT_SECONDS = 60.0
MAX_MEMORY_BYTES = 2**31
"""More than any command here needs, much less than a file that is read without a bound."""

SECRET = "the content of a file outside the folder"

Harm = Callable[[Path, Path], None]
"""Changes the entry at a path; the second path is the folder outside, with things that a link may lead to."""


# What an entry may be instead of a plain file


def _in_place_of(make: Callable[[Path, Path], object]) -> Harm:
    def harm(path: Path, outside: Path) -> None:
        _remove(path)
        make(path, outside)

    return harm


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_to_a_copy(path: Path, outside: Path) -> None:
    """Moves what was there outside, and links to it: all would be well if links were followed."""
    if path.exists():
        target = outside / "moved"
        path.rename(target)
        path.symlink_to(target)


def _socket(path: Path, outside: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the whole path may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s")
        os.rename("s", path.name)
    finally:
        os.chdir(before)


def _sparse(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


KINDS: dict[str, Harm] = {
    "missing": _in_place_of(lambda path, outside: None),
    "a link to a file outside": _in_place_of(lambda path, outside: path.symlink_to(outside / "secret")),
    "a link to a folder outside": _in_place_of(lambda path, outside: path.symlink_to(outside / "folder")),
    "a link to itself, moved outside": _link_to_a_copy,
    "a link to nothing": _in_place_of(lambda path, outside: path.symlink_to(outside / "created")),
    "a link to itself": _in_place_of(lambda path, outside: path.symlink_to(path.name)),
    "a link to an endless device": _in_place_of(lambda path, outside: path.symlink_to("/dev/zero")),
    "a pipe": _in_place_of(lambda path, outside: os.mkfifo(path)),
    "a socket": _in_place_of(_socket),
    "a folder": _in_place_of(lambda path, outside: path.mkdir()),
    "empty": _in_place_of(lambda path, outside: path.write_bytes(b"")),
    "a sparse file of a terabyte": _in_place_of(_sparse),
    "zeros": _in_place_of(lambda path, outside: path.write_bytes(bytes(1000))),
    "noise": _in_place_of(lambda path, outside: path.write_bytes(random.Random(1).randbytes(1000))),
    "a second name of a file outside": _in_place_of(lambda path, outside: os.link(outside / "secret", path)),
}
if os.geteuid() == 0:
    ZERO = stat.S_IFCHR | 0o666, os.makedev(1, 5)
    KINDS["an endless device"] = _in_place_of(lambda path, outside: os.mknod(path, *ZERO))

PARTIALS = tuple(name for name in KINDS if name.startswith(("a link", "a pipe", "a folder", "a second")))
"""What a file with the suffix .partial may be, which a run would write to."""


# What may be in a file of the right kind

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**9, 10**30, 1e308, "", "x", "../../outside/folder", "\x1b[2J\nEqual, bit for bit", [], {},
    [[]], {"a": {}}, "=HYPERLINK(0)", "<script>", "9" * 5000,
)  # fmt: skip


def _changed_json(seed: int) -> Harm:
    """One value of an object, at any depth, is replaced, removed or added to; in a file of lines, of one line."""

    def harm(path: Path, outside: Path) -> None:
        chance = random.Random(seed)
        lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        number = chance.randrange(len(lines))
        values = _mutated(json.loads(lines[number]), chance)
        lines[number] = json.dumps(values)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return harm


def _mutated(values: Any, chance: random.Random) -> Any:
    if not isinstance(values, dict | list) or not values or chance.random() < 0.15:
        return chance.choice(ODD)
    key = chance.choice(sorted(values)) if isinstance(values, dict) else chance.randrange(len(values))
    if chance.random() < 0.2:
        return {each: values[each] for each in values if each != key} if isinstance(values, dict) else values[:key]
    values[key] = _mutated(values[key], chance)
    return values


def _changed_text(seed: int) -> Harm:
    """One word of a text is replaced: a number in a table, a value or a key in YAML."""

    def harm(path: Path, outside: Path) -> None:
        chance = random.Random(seed)
        words = path.read_text(encoding="utf-8").replace(",", " , ").split(" ")
        odd = [
            "nan",
            "-1",
            "1e999",
            "9" * 5000,
            "",
            "\x00",
            "\x1b[2J",
            "'",
            "*a",
            "&a",
            "{",
            "${oc.env:HOME}",
            "!!python/x",
        ]
        words[chance.randrange(len(words))] = chance.choice(odd)
        path.write_text(" ".join(words).replace(" , ", ","), encoding="utf-8")

    return harm


def _bytes(change: Callable[[bytes], bytes]) -> Harm:
    def harm(path: Path, outside: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return harm


CHANGES: dict[str, Harm] = {
    "cut off": _bytes(lambda content: content[: len(content) // 2]),
    "not UTF-8": _bytes(lambda content: content[:20] + b"\xff\xfe" + content[20:]),
    "with zero bytes": _bytes(lambda content: content[:20] + bytes(3) + content[20:]),
    "a list": _bytes(lambda content: b"[]\n"),
    "an empty object": _bytes(lambda content: b"{}\n"),
    "nested a thousand times": _bytes(lambda content: b"[" * 1000 + b"]" * 1000 + b"\n"),
    "twice": _bytes(lambda content: content + content),
    "100 MiB of lines": _bytes(lambda content: content[:1000] + b"x,\n" * 35_000_000),
    "60 MiB of lines": _bytes(lambda content: content[:1000] + b"x,\n" * 20_000_000),  # few enough bytes to be read
}


# Arrays


def _changed_arrays(change: Callable[[dict[str, Any]], object]) -> Harm:
    def harm(path: Path, outside: Path) -> None:
        with np.load(path) as stored:
            arrays = dict(stored)
        change(arrays)
        np.savez_compressed(path, **arrays)

    return harm


def _all_to(value: Callable[[Any], Any]) -> Harm:
    return _changed_arrays(lambda arrays: arrays.update({name: value(array) for name, array in arrays.items()}))


ARRAYS: dict[str, Harm] = {
    "cut off": CHANGES["cut off"],
    "with zero bytes": CHANGES["with zero bytes"],
    "without arrays": _changed_arrays(dict.clear),
    "one array less": _changed_arrays(dict.popitem),
    "arrays of objects": _all_to(lambda array: np.array([print], dtype=object)),
    "arrays of text": _all_to(lambda array: array.astype(str)),
    "flat arrays": _all_to(np.ravel),
    "empty arrays": _all_to(lambda array: array[:0] if array.ndim else array),
    "arrays one longer": _all_to(lambda array: np.concatenate([array, array[:1]]) if array.ndim else array),
    "numbers that are not finite": _all_to(lambda array: np.full(array.shape, np.nan)),
    "negative numbers": _all_to(lambda array: -1 - array.astype(np.int64)),
    "a gigabyte of zeros": _changed_arrays(
        lambda arrays: arrays.update({min(arrays): np.zeros(2**30 + 1, dtype=np.uint8)})
    ),
}
"""What an archive of arrays may hold instead."""


# Checkpoints whose names match their contents


def _changed_checkpoint(change: Callable[[dict[str, Any]], object]) -> Harm:
    def harm(path: Path, outside: Path) -> None:
        values = torch.load(path, weights_only=True)
        change(values)
        buffer = io.BytesIO()
        torch.save(values, buffer)
        _replace_checkpoint(path, buffer.getvalue())

    return harm


def _replace_checkpoint(path: Path, content: bytes) -> None:
    path.unlink()
    path.with_name(f"{path.stem.rpartition('_')[0]}_{sha256(content).hexdigest()}.pt").write_bytes(content)


def _bomb(path: Path, outside: Path) -> None:
    """The same archive, compressed, with two more gigabytes of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry))
        with new.open("archive/data/9999", "w", force_zip64=True) as file:
            for _ in range(64):
                file.write(bytes(2**25))
    _replace_checkpoint(path, buffer.getvalue())


def _moments(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = values["state"]["optimizer"]["state"][0]
    return found


def _weights(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = values["state"]["network"]
    return found


def _momentum(make: Callable[[torch.Tensor], Any]) -> Harm:
    def change(values: dict[str, Any]) -> None:
        moments = _moments(values)
        moments["momentum_buffer"] = make(moments["momentum_buffer"])

    return _changed_checkpoint(change)


def _weight(make: Callable[[torch.Tensor], Any]) -> Harm:
    def change(values: dict[str, Any]) -> None:
        weights = _weights(values)
        weights["conv2.conv.weight"] = make(weights["conv2.conv.weight"])

    return _changed_checkpoint(change)


def _entry(name: str, value: Any) -> Harm:
    return _changed_checkpoint(lambda values: values.update({name: value}))


def _group(name: str, value: Any) -> Harm:
    return _changed_checkpoint(lambda values: values["state"]["optimizer"]["param_groups"][0].update({name: value}))


CHECKPOINTS: dict[str, Harm] = {
    "a bomb": _bomb,
    "no archive": lambda path, outside: _replace_checkpoint(path, b"\x80\x02}q\x00."),
    "a momentum of one value": _momentum(lambda tensor: tensor.flatten()[:1].clone()),
    "a momentum of one value, expanded": _momentum(lambda tensor: tensor.flatten()[:1].expand(2**40)),
    "a momentum with other strides": _momentum(lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0]),
    "a momentum of doubles": _momentum(lambda tensor: tensor.double()),
    "a momentum that is a number": _momentum(lambda tensor: 1.0),
    "no momentum": _changed_checkpoint(lambda values: _moments(values).clear()),
    "a sparse momentum": _momentum(lambda tensor: tensor.to_sparse()),
    "moments of a parameter that is not there": _changed_checkpoint(
        lambda values: values["state"]["optimizer"]["state"].update({999: {}})
    ),
    "a weight of one value": _weight(lambda tensor: tensor.flatten()[:1].clone()),
    "a weight of integers": _weight(lambda tensor: tensor.long()),
    "a weight that is a string": _weight(lambda tensor: "x"),
    "no weights": _changed_checkpoint(lambda values: _weights(values).clear()),
    "another weight": _changed_checkpoint(lambda values: _weights(values).update({"x": torch.zeros(1)})),
    "no state": _entry("state", {}),
    "a state of lists": _entry("state", []),
    "another learning rate": _group("lr", 7.0),
    "another momentum": _group("momentum", 0.0),
    "weight decay": _group("weight_decay", 0.5),
    "no groups": _changed_checkpoint(lambda values: values["state"]["optimizer"]["param_groups"].clear()),
    **{
        f"{name} {value!r}"[:60]: _entry(name, value)
        for name in ("schema", "origin", "epoch", "steps_done", "tally", "seconds", "history")
        for value in (None, -1, 10**9, 2**70, 1.5, "x", [], {}, [{}])
        if (name, value) != ("tally", None)
    },
}


# Trying all of it


@dataclass(frozen=True)
class Case:
    """A folder, the entry in it that is changed, how, and the command that is then given."""

    base: str
    entry: str
    harm_name: str
    harm: Harm
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.base}, {self.entry} {self.harm_name}"


def _cases(bases: Path, seed: int, only: str) -> list[Case]:
    """The cases whose name holds `only`, in random order."""
    cases = [case for case in _all_cases(bases, 6, seed) if only in str(case)]
    random.Random(seed).shuffle(cases)
    return cases


VERBS = {
    "completed": ("resume", "replay", "compare", "list", "report", "eval", "predict"),
    "interrupted": ("resume", "replay", "compare", "list"),
    "sweep": ("resume", "compare", "list", "report"),
}
"""The commands that each of the folders is given to."""


def _all_cases(bases: Path, changes: int, seed: int) -> Iterator[Case]:
    for base in sorted(bases.iterdir()):
        for entry, name, harm in _harms(base, changes, seed):
            for verb in VERBS[base.name]:
                yield Case(base.name, entry, name, harm, verb)


def _harms(base: Path, changes: int, seed: int) -> Iterator[tuple[str, str, Harm]]:
    for path in sorted(base.rglob("*")):
        entry = path.relative_to(base).as_posix()
        for name, harm in KINDS.items():
            yield entry, name, harm
        if path.is_dir():
            continue
        for name in PARTIALS:
            yield f"{entry}.partial", name, KINDS[name]
        if path.suffix in (".json", ".jsonl", ".yaml", ".csv", ".md"):
            yield from ((entry, name, harm) for name, harm in CHANGES.items())
            change = _changed_json if path.suffix in (".json", ".jsonl") else _changed_text
            yield from ((entry, f"with change {seed + n}", change(seed + n)) for n in range(changes))
        if path.suffix == ".pt":
            yield from ((entry, name, harm) for name, harm in CHECKPOINTS.items())
        if path.suffix == ".npz":
            yield from ((entry, name, harm) for name, harm in ARRAYS.items())


def hostile_folders(
    trials: int | None = None, *, seed: int = 1, sabotage: str = "none", workers: int = 2, only: str = ""
) -> Report:
    """Every entry of four folders, replaced by every other kind of thing, and changed within; then each command."""
    with workplace() as where:
        expected = _make_bases(where / "bases", where / "made")
        cases = _cases(where / "bases", seed, only)[:trials]
        chunks = [cases[start :: 4 * workers] for start in range(4 * workers)]
        # Harms are functions, which processes can't be sent: each part draws the same cases again.
        arguments = [
            (where, number, len(chunks), trials, seed, only, sabotage, expected)
            for number, chunk in enumerate(chunks)
            if chunk
        ]
        return in_parallel(_part, arguments, workers)


def _make_bases(bases: Path, made: Path) -> dict[str, Any]:
    """A completed and an interrupted run, and a sweep of three jobs, one of which was interrupted."""
    bases.mkdir(parents=True)
    expected = reference(made / "completed", *SHORT)
    shutil.copytree(made / "completed" / "run1", bases / "completed")
    killed = Attempts(made / "interrupted", [*RUN, *SHORT])
    child = killed.go_on(lambda: Disk(killed.where, last_at(110, "before")).install())
    assert child.wait() == -signal.SIGKILL, child.err
    shutil.copytree(killed.folder, bases / "interrupted")
    words = [
        "-m",
        *once([*RUN, *SHORT]),
        "seed=1,2",
        f"hydra.sweep.dir={made / 'sweep'}",
        "hydra.sweep.subdir=job${hydra.job.num}",
    ]
    sweep = Child(words, made)
    assert sweep.wait() == 0, sweep.err
    shutil.copytree(made / "sweep", bases / "sweep")
    (bases / "sweep" / "job1" / "result.json").unlink()
    for base in bases.iterdir():
        (base / "notes.md").write_text("Tags: a, b\n\n- 2026-11-26 11:31 A note.\n", encoding="utf-8")
    return expected


def _part(
    where: Path,
    part: int,
    parts: int,
    trials: int | None,
    seed: int,
    only: str,
    sabotage: str,
    expected: dict[str, Any],
) -> Report:
    cases = _cases(where / "bases", seed, only)
    report = Report(figures={"refused": 0, "carried out": 0})
    for number, case in enumerate(cases[:trials][part::parts]):
        place = where / f"part{part}" / str(number)
        _try(case, where / "bases" / case.base, place, sabotage, expected, report)
        shutil.rmtree(place)
    return report


def _try(case: Case, base: Path, place: Path, sabotage: str, expected: dict[str, Any], report: Report) -> None:
    outside = place / "outside"
    _make_outside(outside)
    folder = place / "inside" / "folder"
    shutil.copytree(base, folder)
    case.harm(folder / case.entry, outside)
    (outside / "secret").touch()
    os.utime(outside / "secret", (0, 10**9))
    is_inside = "second name" in case.harm_name  # a file of the folder as well: it may be read, but not written to
    before = _seen(outside, with_reads=not is_inside)
    words = [case.verb, str(folder)]
    if case.verb == "predict":
        words.append(str(place / "image.png"))
        Image.new("L", (28, 28)).save(words[-1])
    child = Child(words, place / "inside", SABOTAGES[sabotage])
    code = child.wait(TIMEOUT_SECONDS)
    report.tried += 1
    text = child.err + (child.where / "out.txt").read_text(encoding="utf-8", errors="replace")
    report.figures["carried out" if code == 0 else "refused"] += 1
    wrong = _wrong(case, child, code, text.replace(SECRET, "") if is_inside else text, folder, expected)
    after = _seen(outside, with_reads=not is_inside)
    if after != before:
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        wrong.append(f"outside was touched: {', '.join(changed)}")
    report.failures += [f"{case}: {each}" for each in wrong]


def _make_outside(outside: Path) -> None:
    (outside / "folder").mkdir(parents=True)
    (outside / "secret").write_text(SECRET, encoding="utf-8")
    (outside / "folder" / "secret").write_text(SECRET, encoding="utf-8")


def _seen(outside: Path, *, with_reads: bool) -> dict[str, object]:
    """All that lies outside: names and contents, and when the files that links lead to were last read."""
    found: dict[str, object] = {}
    for path in sorted(outside.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[path.relative_to(outside).as_posix()] = (content, status.st_mode, status.st_mtime_ns)
        if with_reads and path == outside / "secret":
            found[f"{path.relative_to(outside)}, when it was read"] = status.st_atime_ns
        if path.is_file():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return found


ALLOWED = {
    "compare": (0, 4),
    "list": (0, 4),
    "report": (0, 4),
    "eval": (0, 1, 2, 3, 4),
    "predict": (0, 2, 4),
    "replay": (0, 1, 2, 4),
    "resume": (0, 1, 2, 3, 4),
}


def _wrong(case: Case, child: Child, code: int, text: str, folder: Path, expected: dict[str, Any]) -> list[str]:
    wrong = []
    if child.is_stuck:
        wrong.append(f"did not end within {TIMEOUT_SECONDS:.0f} seconds")
    elif code not in ALLOWED[case.verb]:
        wrong.append(f"ended with {code}: {text[-400:]}")
    if "Traceback" in text:
        wrong.append(f"a traceback: {text[-600:]}")
    if SECRET in text:
        wrong.append("the content of a file outside was shown")
    if "\x1b[2J" in text:
        wrong.append("a control character reached the terminal")
    if child.max_memory_bytes > MAX_MEMORY_BYTES:
        wrong.append(f"took {child.max_memory_bytes / 2**30:.1f} GiB")
    if code in (2, 3, 4) and len(child.err.strip().splitlines()) > 3:
        wrong.append(f"more than a message: {child.err[-600:]}")
    if case.verb == "resume" and code == 0 and case.base == "interrupted" and "twice" not in case.harm_name:
        found = outcome(folder)
        wrong += [f"other {name}" for name in expected if found[name] != expected[name]]
    return wrong
