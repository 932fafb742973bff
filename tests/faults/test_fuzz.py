"""A few of the hostile command lines and config files; `python -m tests.faults.fuzz` tries as many as wanted."""

from __future__ import annotations

import pytest

from tests.faults import fuzz
from tests.faults.fuzz import Example, campaign, try_out


def test_no_hostile_example_gets_through() -> None:
    figures = campaign(num_examples=300, first_seed=7)
    assert figures["failures"] == []
    assert figures["examples"] >= 280
    assert figures["accepted"] >= 5, "else nothing but refusals is tried"
    assert figures["refused"] >= 100


def test_what_the_campaign_looks_for_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(words: list[str]) -> int:
        raise ZeroDivisionError

    def leave_a_file(words: list[str]) -> int:
        open("left", "w", encoding="utf-8").close()
        return 0

    def hang(words: list[str]) -> int:
        while True:
            pass

    def tell(words: list[str]) -> int:
        print(f"name must not be {fuzz.SECRET}.", file=fuzz.sys.stderr)
        return 2

    monkeypatch.setattr(fuzz, "HANG_SECONDS", 0.2)
    found = []
    for broken in (crash, leave_a_file, hang, tell, lambda words: 2, lambda words: 1):
        monkeypatch.setattr(fuzz.cli, "main", broken)
        found.append(try_out(Example([])).why)
    assert found == ["a traceback", "left [PosixPath('left')]", "a hang", "the secret", "no message", "code 1"]
    monkeypatch.undo()
    assert try_out(Example(["data=digits"])).state == "accepted"
    assert try_out(Example(["sede=1"])).state == "refused"
