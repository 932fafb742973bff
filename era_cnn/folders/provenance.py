"""Reads and writes provenance.json, which records where a result comes from, and compares two of them."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from era_cnn.config.versions import NUMERICS, NUMERICS_CHANGES
from era_cnn.errors import RunFolderError
from era_cnn.folders.run import RunFolder
from era_cnn.processor import is_same_processor

SCHEMA = 2

_PLACES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")
"""Environment variables that differ without effect on results: the device is recorded by its name."""

COMPUTING = re.compile(r"(torch|torchvision|numpy|scipy|scikit-learn|pillow|triton|mkl|intel-|nvidia-|cuda-).*", re.I)
"""The packages that compute. A change of any other package, such as pytest, changes no result."""


def write_origin(folder: RunFolder, origin: dict[str, Any], say: Callable[[str], None]) -> None:
    """Writes provenance.json when a run begins, and adds to it when the run is resumed; reports what differs then."""
    if not folder.has_begun_before:
        folder.write_json("provenance.json", {"schema": SCHEMA, "id": uuid.uuid4().hex, **origin})
        return
    before = folder.read_json("provenance.json")
    changes = list(differences(before, origin))
    if changes:
        say(f"{DIFFERS}{'; '.join(changes)}")
    folder.write_json("provenance.json", {**before, "resumed": [*before.get("resumed", []), origin]})


def run_id(folder: RunFolder) -> str:
    """32 hexadecimal digits that a run keeps when it is resumed or moved; made of the path in folders without any."""
    stored: str = folder.read_json("provenance.json").get("id", "")
    return stored or hashlib.sha256(os.fsencode(folder.path.absolute())).hexdigest()[:32]


DIFFERS = "This differs from the original run, so results may not match bit for bit: "


def check_numerics(folder: RunFolder) -> None:
    """Raises a `RunFolderError` if the run was trained with another numerics version, so it can't be reproduced."""
    version = folder.read_json("provenance.json").get("numerics", 1)
    if version != NUMERICS:
        newer = isinstance(version, int) and version > NUMERICS
        reasons = "; ".join(f"{number}: {what}" for number, what in NUMERICS_CHANGES.items() if number > 1)
        advice = "Update era_cnn." if newer else "Use it as it is, or start a new run."
        raise RunFolderError(
            f"{folder.path} must have numerics version {NUMERICS} to be reproduced bit for bit, got {version}"
            f"{f' ({reasons})' if reasons and not newer else ''}. {advice}"
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """The differences that may change a result, the likeliest cause of different bits first."""
    names = {
        "data": ("data_sha256",),
        "config": ("config_sha256",),
        "code of era_cnn": ("code", "sha256"),
        "device": ("machine", "device"),
        "threads": ("machine", "threads"),
        "processor": ("machine", "processor"),
        "instruction set": ("machine", "cpu_capability"),
        "CUDA": ("machine", "cuda"),
        "compiler": ("machine", "compiler"),
        "compiler command": ("machine", "compiler_command"),
        "compiler flags": ("machine", "compiler_flags"),
        "Python": ("python",),
    }
    pairs = [(name, _at(before, path), _at(now, path)) for name, path in names.items()]
    for section in ("environment", "packages"):
        pairs += [
            (name, one, other)
            for name, one, other in _in_section(section, before, now)
            if (COMPUTING.match(name) if section == "packages" else name not in _PLACES)
        ]
    behind_code = list(names).index("code of era_cnn") + 1
    pairs[behind_code:behind_code] = [(f"plugin {name}", *both) for name, *both in _in_section("plugins", before, now)]
    for name, old, new in pairs:
        if name in ("compiler command", "compiler flags") and None in (old, new):
            continue  # earlier versions did not record them; whether there is a compiler is said above
        if name == "compiler flags":
            old, new = _only_in(old, new), _only_in(new, old)
        if not (is_same_processor(old, new) if name == "processor" else old == new):
            yield f"{name} {_shortened(old)} → {_shortened(new)}"


def _only_in(one: object, other: object) -> str:
    """The words of a string that another one lacks."""
    return " ".join(word for word in str(one).split() if word not in str(other).split()) or "none"


def _in_section(section: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each name of a section with what both have of it, torch first."""
    one, other = before.get(section, {}), now.get(section, {})
    for name in sorted({*one, *other}, key=lambda name: (name != "torch", name)):
        yield name, one.get(name), other.get(name)


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _shortened(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
