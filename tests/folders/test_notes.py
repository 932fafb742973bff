from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from era_cnn.errors import ConfigError, RunFolderError
from era_cnn.folders import notes as module
from era_cnn.folders.claims import locked
from era_cnn.folders.notes import Notes, add_note, read_notes
from era_cnn.folders.run import NOTES, NOTES_LOCK, RunFolder
from era_cnn.folders.sweep import SweepFolder
from tests.folders.test_plain import KINDS, unchanged

DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    return tmp_path / "run"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"not for others")
    return path


def test_a_note_has_a_date_and_tags_have_a_line(run: Path) -> None:
    assert read_notes(run) == Notes()
    add_note(run, "Overfits from epoch 9 on.", ["baseline"])
    add_note(run, "", ["to-check", "baseline"])
    notes = add_note(run, "Fine  after\nall.")
    text = (run / NOTES).read_text(encoding="utf-8")
    assert re.fullmatch(
        rf"Tags: baseline, to-check\n\n- {DATE} Overfits from epoch 9 on\.\n- {DATE} Fine after all\.\n", text
    )
    assert notes == read_notes(run)
    assert notes.tags == ("baseline", "to-check")
    assert re.fullmatch(rf"{DATE} Fine after all\.", notes.latest)


def test_what_people_wrote_by_hand_stays_and_is_read(run: Path) -> None:
    by_hand = "# Monday\n\nSlow,   but good.\n\n  tags: a b,c\n* see Tags: of run 2"
    (run / NOTES).write_text(by_hand, encoding="utf-8")
    assert read_notes(run) == Notes(("# Monday", "Slow,   but good.", "see Tags: of run 2"), ("a", "b", "c"))
    add_note(run, "More.", ["d"])
    text = (run / NOTES).read_text(encoding="utf-8")
    assert text.startswith(by_hand.replace("  tags: a b,c", "Tags: a, b, c, d") + "\n- ")


@pytest.mark.parametrize("kind", ["job", "sweep"])
def test_a_sweep_has_notes_of_its_own(kind: str, run: Path) -> None:
    (run.parent / "ledger.jsonl").touch()
    add_note(run if kind == "job" else run.parent, "x")
    assert (read_notes(run).lines != (), read_notes(run.parent).lines != ()) == (kind == "job", kind == "sweep")
    SweepFolder(run.parent).check()


def test_a_note_neither_waits_for_a_training_nor_stops_one(run: Path) -> None:
    with RunFolder(run).locked():
        add_note(run, "It runs.")
    with locked(run, NOTES_LOCK), RunFolder(run).locked():
        pass


def test_notes_of_several_processes_are_all_kept(run: Path) -> None:
    """A note reads the file and writes it anew, so that another one in between would be lost."""
    threads = [threading.Thread(target=add_note, args=(run, f"note {number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line[-1] for line in read_notes(run).lines) == list("01234567")


def test_a_note_that_waits_in_vain_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    with (
        locked(run, NOTES_LOCK),
        pytest.raises(RunFolderError, match="must be free, got one in use by another process"),
    ):
        add_note(run, "x")


@pytest.mark.parametrize(
    ("text", "tags", "message"),
    [
        ("", [], r"TEXT must say something, got nothing\. Give a note, or a tag with --tag\."),
        (" \n\t", [], "TEXT must say something, got nothing"),
        ("x" * 2001, [], r"TEXT must have at most 2,000 characters, got 2001\. Write longer notes into notes\.md by"),
        ("x", ["a b"], r"--tag must be a word of up to 50 letters, digits and \. _ - \+ /, got 'a b'\. Repeat --tag"),
        ("x", ["a,b"], "got 'a,b'"),
        ("x", [""], "got ''"),
        ("x", ["-a"], "got '-a'"),
        ("x", ["a\n"], r"got 'a\\n'"),
        ("x", ["a" * 51], "got 'aaa"),
    ],
)
def test_a_note_that_can_not_be_written_is_refused(text: str, tags: list[str], message: str, run: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        add_note(run, text, tags)
    assert os.listdir(run) == [".hydra"]


def test_control_characters_are_escaped_before_they_are_written(run: Path) -> None:
    add_note(run, "a\x1b[2Jb \udcff \u202e", ["größe"])
    content = (run / NOTES).read_text(encoding="utf-8")
    assert content.endswith(r"a\x1b[2Jb \udcff \u202e" + "\n")
    assert all(line.isprintable() for line in content.split("\n"))


@pytest.mark.parametrize("kind", ["nothing", "a file", "another folder"])
def test_only_runs_and_sweeps_have_notes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "place"
    {"nothing": lambda: None, "a file": path.touch, "another folder": path.mkdir}[kind]()
    with pytest.raises(RunFolderError, match="place must be the folder of a run or a sweep, got: .*Check the path"):
        add_note(path, "x")
    assert not (path / NOTES).exists()


DAMAGE = {
    "not UTF-8": lambda path, outside: path.write_bytes(b"\xff\xfe"),
    "too large": lambda path, outside: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**40),
    **KINDS,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_notes_that_can_not_be_read_are_left_as_they_are(kind: str, run: Path, outside: Path) -> None:
    DAMAGE[kind](run / NOTES, outside)
    before = (run / NOTES).lstat()
    assert read_notes(run).lines == ()
    assert read_notes(run).latest.startswith("notes.md must be a text file, got: ")
    with pytest.raises(RunFolderError, match=r"notes.md must be a text file, got: .*\. Fix it, or remove it\."):
        add_note(run, "x")
    after = (run / NOTES).lstat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert unchanged(outside)


@pytest.mark.parametrize("name", [f"{NOTES}.partial", NOTES_LOCK])
@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_where_a_note_is_written_is_not_followed(kind: str, name: str, run: Path, outside: Path) -> None:
    KINDS[kind](run / name, outside)
    if name == NOTES_LOCK or kind == "a folder":
        with pytest.raises((RunFolderError, ValueError), match=f"{NOTES}|{NOTES_LOCK}"):
            add_note(run, "x")
    else:
        assert add_note(run, "x").lines
    assert unchanged(outside)


def test_the_command_says_where_it_noted_what(run: Path, command) -> None:
    code, out, err = command("note", "run", "--tag", "a", "It", "runs.", "--tag=b")
    assert (code, out, err) == (0, "Noted in run/notes.md. Tags: a, b\n", "")
    assert read_notes(run).latest.endswith(" It runs.")
    (run / "report.html").write_text("", encoding="utf-8")
    said = "Noted in run/notes.md. Tags: a, b\nTo show it in the report: era-cnn report run\n"
    assert command("note", "run", "More.") == (0, said, "")
    assert command("note", "run")[0] == 2
    assert command("note", "nowhere", "x")[0] == 4
    (run / NOTES).write_bytes(b"\xff")
    code, out, err = command("note", "run", "x")
    assert (code, out) == (4, "")
    assert err.endswith("run/notes.md must be a text file, got: bytes that are not UTF-8. Fix it, or remove it.\n")


def test_a_note_on_a_job_is_shown_by_the_report_of_its_sweep(run: Path, command) -> None:
    sweep = Path("my sweep")
    shutil.copytree(run, sweep / "0_job")
    (sweep / "multirun.yaml").write_text("", encoding="utf-8")
    (sweep / "report.html").write_text("", encoding="utf-8")
    assert command("note", "my sweep/0_job", "x")[1].endswith("\nTo show it in the report: era-cnn report 'my sweep'\n")
