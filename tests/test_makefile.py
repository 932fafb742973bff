"""The Makefile and what CI calls: no target is missing or written twice, so that no check is skipped in silence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z][a-z-]*):(?!=)(.*)$", MAKEFILE, re.MULTILINE)


def test_no_target_is_written_twice() -> None:
    assert [name for name, number in Counter(name for name, _ in TARGETS).items() if number > 1] == []


def test_every_phony_target_exists() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(name for name, _ in TARGETS)


def test_ci_and_check_call_targets_that_exist() -> None:
    calls = re.findall(r"^ *make (.+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    called = [word for call in calls for word in call.split() if not word.startswith("-")]
    ((check,),) = [[rest] for name, rest in TARGETS if name == "check"]
    needed = {*called, *check.partition("##")[0].split()}
    assert {"test", "test-slow", "test-faults", "test-browser", "lint"} <= needed
    assert needed <= {name for name, _ in TARGETS}


def test_ci_installs_the_locked_packages() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("make "))
    assert any(line.startswith("export LOCKED=1") for line in lines[:first])


def test_what_make_test_leaves_out_is_run_by_another_target() -> None:
    left_out, run = re.findall(r'pytest -m "(.+?)" \$\(ELSEWHERE\) ', MAKEFILE)
    assert left_out == f"not ({run})"


def test_every_folder_of_tests_is_run_by_some_target() -> None:
    left_out = re.findall(r"--ignore (\S+)", MAKEFILE)
    assert left_out
    for path in left_out:
        assert re.search(rf"pytest {re.escape(path)}", MAKEFILE), path


@pytest.mark.process
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("words", "version", "has_venv", "said"),
    [
        ([], "3.9.18", False, "PYTHON must be 3.10 to 3.13, got Python 3.9.18. Use make PYTHON=python3.12 install."),
        (["LOCKED=1"], "3.10.13", False, "PYTHON must be 3.11 to 3.13 with LOCKED=1, got Python 3.10.13. Use make PYTHON=python3.12 install LOCKED=1, or leave LOCKED=1 out."),
        (["LOCKED=1"], "3.10.13", True, "got Python 3.10.13. Remove .venv, and use make PYTHON=python3.12 install LOCKED=1, or leave"),
        ([], "3.10.13", False, ""),
        (["LOCKED=1"], "3.13.0", True, ""),
    ],
)  # fmt: skip
def test_a_python_that_can_not_install_is_refused_in_one_line(
    words: list[str], version: str, has_venv: bool, said: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / (".venv/bin/python" if has_venv else "python")
    python.parent.mkdir(parents=True, exist_ok=True)
    major, minor, _ = version.split(".")
    python.write_text(
        f"""#!/bin/sh
case "$1$2" in
    --version) echo Python {version} ;;
    -c*) exec python3 -c "import sys; sys.version_info = ({major}, {minor}, 0)
$2" ;;
    *) echo "$@" >> {tmp_path}/called ;;
esac
"""
    )
    python.chmod(0o755)
    command = ["make", "--directory", str(tmp_path), "--no-print-directory", "install", f"PYTHON={python}", *words]
    usual = {key: value for key, value in os.environ.items() if key not in ("LOCKED", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, env=usual, capture_output=True, text=True, check=False)  # CI has LOCKED=1
    refusals = [line for line in done.stdout.splitlines() if line.startswith("PYTHON must")]
    assert (len(refusals), (tmp_path / "called").exists()) == ((1, False) if said else (0, True))
    assert said in "".join(refusals)
