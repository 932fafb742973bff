"""constraints.txt has a version of every package that era_cnn and its development need, and of no other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
HEADER, *LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
LOCKED = {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in LINES)}

SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
SEPARATE = "ray"
"""The extra that has an environment of its own, since it conflicts with the others."""

WANTED = [
    Requirement(line)
    for text in (SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values())
    if text != SETUP["options.extras_require"][SEPARATE]
    for line in text.split("\n")
    if line
]

INSTALLED = {canonicalize_name(each.name): Version(each.version) for each in distributions()}


def reached(requirements: list[Requirement]) -> set[str]:
    """The names of all packages that these need in this environment, directly or not."""
    found: set[str] = set()
    todo = [(each, "") for each in requirements]
    for requirement, extra in todo:  # it grows
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if found.issuperset({name, *(f"{name}[{each}]" for each in extras)}):
            continue
        found |= {name, *(f"{name}[{each}]" for each in extras)}
        todo += [(each, extra) for each in needs_of(name) for extra in extras]
    return {name for name in found if "[" not in name}


def needs_of(name: str) -> Iterator[Requirement]:
    try:
        yield from map(Requirement, distribution(name).requires or ())
    except PackageNotFoundError:
        return


def test_the_header_says_where_it_was_made() -> None:
    pattern = r"# make lock: Python 3\.\d+\.\d+, \w+ \w+, \d{4}-\d\d-\d\d\. Used by make install LOCKED=1\."
    assert re.fullmatch(pattern, HEADER)
    assert len(LOCKED) == len(LINES) > 50


@pytest.mark.parametrize("requirement", WANTED, ids=str)
def test_each_requirement_is_met(requirement: Requirement) -> None:
    assert LOCKED[canonicalize_name(requirement.name)] in requirement.specifier


def test_torch_and_torchvision_are_a_pair() -> None:
    torch, torchvision = LOCKED["torch"], LOCKED["torchvision"]
    assert (torch.major, torchvision.major) == (2, 0)
    assert (torchvision.minor, torchvision.micro) == (torch.minor + 15, torch.micro)


@pytest.mark.skipif(not LOCKED.items() <= INSTALLED.items(), reason="other versions may need other packages")
def test_it_has_whatever_is_needed_and_nothing_else() -> None:
    assert set(LOCKED) - {"setuptools", "wheel"} == reached(WANTED) - {"setuptools", "wheel"}


@pytest.mark.skipif(not os.environ.get("LOCKED"), reason="this environment is not made from constraints.txt")
def test_this_environment_has_the_locked_versions() -> None:
    assert {name: INSTALLED.get(name) for name in LOCKED} == LOCKED
