"""The golden digests: on which processors and with which PyTorch the trainings came to which digests.

experiments/portability/golden.json is a list of outcomes. Processors that came to the same digests share an outcome.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from era_cnn.portable import SETTINGS
from era_cnn.processor import cache_size, processor_features
from tests.portability.trainings import HEADLINE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "portability"

Digests = dict[str, dict[str, str]]


@dataclass
class Outcome:
    """Digests, and the processors that came to them.

    Attributes:
        torch: The version of PyTorch, with its build.
        portable: Whether the trainings were portable.
        digests: Of each training: of its weights and logits.
        processors: Each processor, with when it was tried.
    """

    torch: str
    portable: bool
    digests: Digests
    processors: list[dict[str, Any]] = field(default_factory=list)

    def has(self, processor: str, features: str = "") -> bool:
        """Whether a processor came to it; with features, whether one with the same features did."""
        names = (each["processor"] for each in self.processors if features in ("", each.get("features")))
        return processor in names

    def differing(self, digests: Mapping[str, Mapping[str, str]]) -> list[str]:
        """The trainings of both whose weights or logits differ."""
        common = self.digests.keys() & digests.keys()
        return [name for name in self.digests if name in common and self.digests[name] != digests[name]]


def read_outcomes(folder: Path = FOLDER) -> list[Outcome]:
    """The outcomes so far."""
    path = folder / "golden.json"
    return [Outcome(**each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


@dataclass(frozen=True)
class Verdict:
    """What a comparison with the outcomes says: `is_equal` is None without a reference."""

    is_equal: bool | None
    text: str


def compare(
    outcomes: Sequence[Outcome], torch: str, processor: str, digests: Digests, *, portable: bool, features: str = ""
) -> Verdict:
    """Compares the digests of this machine with those of others.

    Libraries choose their code by the features that a virtual machine shows, so they count unless that choice is fixed.

    A processor that was tried before must come to the same digests. Another one may confirm a portable outcome; that
    it differs is a finding, and no failure.
    """
    of_torch = [each for each in outcomes if (each.torch, each.portable) == (torch, portable)]
    if not of_torch:
        return Verdict(None, f"no reference for PyTorch {torch}")
    for outcome in of_torch:
        if outcome.has(processor, "" if portable else features):
            differing = outcome.differing(digests)
            text = f"differs in {', '.join(differing)}" if differing else "as before"
            return Verdict(not differing, f"{processor}: {text}")
    if not portable:
        return Verdict(None, f"no reference for {processor}")
    differing = min((outcome.differing(digests) for outcome in of_torch), key=len)
    if differing:
        return Verdict(None, f"no reference for {processor}, which differs from others in {', '.join(differing)}")
    return Verdict(True, f"{processor} was not tried before, and comes to the digests of others")


def record(outcomes: list[Outcome], torch: str, seen: dict[str, Any], digests: Digests, *, portable: bool) -> None:
    """Adds what a processor came to; an earlier observation of the same processor is replaced."""
    for outcome in outcomes:
        if (outcome.torch, outcome.portable) == (torch, portable):
            outcome.processors = [each for each in outcome.processors if each["processor"] != seen["processor"]]
    outcomes[:] = [outcome for outcome in outcomes if outcome.processors]
    for outcome in outcomes:
        if (outcome.torch, outcome.portable) == (torch, portable) and not outcome.differing(digests):
            outcome.digests |= digests  # it may have trained what others did not
            outcome.processors.append(seen)
            return
    outcomes.append(Outcome(torch, portable, digests, [seen]))


def write_outcomes(outcomes: Sequence[Outcome], folder: Path = FOLDER) -> None:
    """Writes golden.json."""
    values = [vars(outcome) for outcome in outcomes]
    (folder / "golden.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def train_in_process(*, portable: bool, only: Sequence[str] = ()) -> Digests:
    """The digests that this machine comes to, in a process that has not imported torch."""
    command = [sys.executable, "-m", "tests.portability.trainings", "portable" if portable else "default", *only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    digests: Digests = json.loads(done.stdout)
    return digests


def these_features() -> str:
    """A digest of what this processor says that it has: its instructions and cache."""
    return hashlib.sha256(f"{' '.join(processor_features())} {cache_size()}".encode()).hexdigest()[:12]


def observation(processor: str) -> dict[str, Any]:
    """An observation of a processor, today."""
    libraries = {"numpy": version("numpy"), "libc": " ".join(platform.libc_ver())}
    libraries["features"] = these_features()
    return {"processor": processor, "date": f"{date.today()}", "python": platform.python_version(), **libraries}


START, END = "<!-- generated by python -m tests.portability -->", "<!-- end -->"


def write_readme(outcomes: Sequence[Outcome], folder: Path = FOLDER) -> None:
    """Writes the generated part of README.md, between its two markers."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    path.write_text(f"{before}{START}\n{summary(outcomes)}{END}{rest.partition(END)[2]}", encoding="utf-8")


def summary(outcomes: Sequence[Outcome]) -> str:
    """What was observed, as Markdown; portable outcomes come first, those with the newest PyTorch before others."""
    portable = [each for each in outcomes if each.portable]
    lines = [_published(portable), ""] if portable else []
    lines += ["| processor | PyTorch | portable | trainings | digests | date |", "|---|---|---|---|---|---|"]
    first, letters = (portable or list(outcomes))[0], dict[str, str]()
    notes = []
    for outcome in [*portable, *(each for each in outcomes if not each.portable)]:
        letter = letters.setdefault(json.dumps(outcome.digests, sort_keys=True), chr(ord("A") + len(letters)))
        how = "yes" if outcome.portable else "no"
        for each in outcome.processors:
            count = each.get("trainings", len(outcome.digests))
            lines.append(f"| {each['processor']} | {outcome.torch} | {how} | {count} | {letter} | {each['date']} |")
        if differing := first.differing(outcome.digests):
            names = "all" if len(differing) == len(outcome.digests) else ", ".join(differing)
            notes.append(f"{letter} differs from A in {len(differing)} of {len(outcome.digests)} trainings: {names}.")
    settings = ", ".join(f"`{name}={value}`" for name, value in SETTINGS.items())
    meaning = f"The same letter means the same digests. Portable means {settings} and one thread."
    return "\n".join([*lines, "", meaning, *dict.fromkeys(notes), ""])


def _published(portable: Sequence[Outcome]) -> str:
    """The weights of the training that anyone can repeat, for each PyTorch."""
    weights: dict[str, list[str]] = {}
    for outcome in portable:
        if HEADLINE in outcome.digests:
            weights.setdefault(outcome.digests[HEADLINE]["weights"], []).append(outcome.torch)
    published = (f"`{sha256}` with PyTorch {', '.join(versions)}" for sha256, versions in weights.items())
    return f"`era-cnn experiment=model_4_digits portable=true` gives (`weights_sha256` in `result.json`) {'; '.join(published)}."
