from __future__ import annotations

from pathlib import Path

import pytest

from era_cnn.errors import StorageError
from era_cnn.folders.ledger import Entry, Job, Ledger

JOBS = [Job(number, (f"seed={number}", "name='ü'"), f"{number}_x", "0" * 64, 2, 1) for number in range(3)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.create(JOBS)
    return ledger


def states(ledger: Ledger) -> list[str] | None:
    latest = ledger.latest()
    return None if latest is None else [entry.state for entry in latest]


def test_it_holds_each_change_of_state_of_each_job(ledger: Ledger) -> None:
    ledger.add(Entry.now(JOBS[1], "running"))
    ledger.add(Entry.now(JOBS[1], "failed", "of what it failed"), Entry.now(JOBS[2], "running"))
    assert states(ledger) == ["planned", "failed", "running"]
    assert [entry.job for entry in ledger.latest() or []] == JOBS
    assert [entry.job.number for entry in ledger.entries()] == [0, 1, 2, 1, 1, 2]
    assert ledger.entries()[4].message == "of what it failed"


def test_a_kill_at_any_byte_of_a_line_leaves_it_readable(ledger: Ledger) -> None:
    before = ledger.path.read_bytes()
    ledger.add(Entry.now(JOBS[0], "running"))
    after = ledger.path.read_bytes()
    for length in range(len(before), len(after)):
        ledger.path.write_bytes(after[:length])
        assert states(ledger) == ["planned"] * 3
        ledger.add(Entry.now(JOBS[2], "completed"))
        assert states(ledger) == ["planned", "planned", "completed"]
        assert ledger.path.read_bytes().startswith(before)


def test_of_a_lost_or_damaged_one_nothing_is_believed(ledger: Ledger) -> None:
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:20] + b"?" + content[20:].replace(b'"', b"", 1))
    assert states(ledger) is None
    ledger.path.write_bytes(content.replace(b"overrides", b"overides"))
    assert states(ledger) is None
    ledger.path.write_bytes(b"\xff" + content)
    assert states(ledger) is None
    ledger.path.write_bytes(b"")
    assert states(ledger) is None
    ledger.path.unlink()
    assert states(ledger) is None


def test_one_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"ledger\.jsonl must be written, got: Is a directory\. Free some space"):
        Ledger(tmp_path / "ledger.jsonl").add(Entry.now(JOBS[0], "running"))
