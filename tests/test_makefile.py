"""The Makefile and what CI calls: no target is missing or written twice, so that no check is skipped in silence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

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
