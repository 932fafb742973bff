from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from era_cnn.errors import RunFolderError, StorageError
from era_cnn.folders.checkpoints import CheckpointFolder
from era_cnn.folders.claims import locked
from era_cnn.folders.ledger import Entry, Job, Ledger
from era_cnn.folders.plain import check_entries, check_way, open_to_append, read_plain, walk
from era_cnn.folders.run import FILES, FOLDERS, RunFolder
from era_cnn.folders.storage import create, write_atomically
from era_cnn.folders.sweep import OWN_NAMES, SweepFolder
from tests.conftest import config_of

SCHEMA_1 = Path(__file__).parent / "schema_1"

SECRET = b"not for others"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(SECRET)
    return path


def _pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


KINDS = {
    "a link": lambda path, outside: path.symlink_to(outside / "secret"),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "created"),
    "a link to a device": lambda path, outside: path.symlink_to("/dev/zero"),
    "a pipe": _pipe,
    "a folder": lambda path, outside: path.mkdir(),
}
"""What may have the name of a file, by name."""


def unchanged(outside: Path) -> bool:
    return [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("secret", SECRET)]


@pytest.mark.parametrize("kind", [*KINDS, "sparse"])
def test_only_plain_files_of_bounded_size_are_read(kind: str, tmp_path: Path, outside: Path) -> None:
    {**KINDS, "sparse": _sparse}[kind](tmp_path / "file", outside)
    with pytest.raises(OSError, match=r"a link|a pipe|a folder|Is a directory|more than the"):
        read_plain(tmp_path / "file")


def test_a_plain_file_is_read_up_to_its_limit(outside: Path) -> None:
    assert read_plain(outside / "secret", len(SECRET)) == SECRET
    with pytest.raises(OSError, match="14 bytes, more than the 13 that are read"):
        read_plain(outside / "secret", len(SECRET) - 1)


@pytest.mark.parametrize("kind", [*KINDS, "a second name"])
def test_nothing_is_appended_to_what_is_elsewhere(kind: str, tmp_path: Path, outside: Path) -> None:
    second_name = {"a second name": lambda path, outside: os.link(outside / "secret", path)}
    {**KINDS, **second_name}[kind](tmp_path / "file", outside)
    with pytest.raises(OSError, match=r"a link|a pipe|directory|a second name"):
        open_to_append(tmp_path / "file")
    assert unchanged(outside)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a folder"])
@pytest.mark.parametrize("write", [write_atomically, create])
def test_what_has_the_name_of_a_new_file_is_replaced(write, kind: str, tmp_path: Path, outside: Path) -> None:
    for name in ("file", "file.partial"):
        KINDS[kind](tmp_path / name, outside)
    write(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert not (tmp_path / "file").is_symlink()
    assert unchanged(outside)


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageError, match="file must be written, got: "):
        write_atomically(tmp_path / "file", b"")


@pytest.mark.parametrize("name", [*FILES, *(f"{name}.partial" for name in FILES), ".lock"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_files_are_something_else_is_not_touched(
    kind: str, name: str, tmp_path: Path, outside: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    KINDS[kind](folder.path / name, outside)
    for use in (folder.check, folder.locked, lambda: folder.set_state("queued"), lambda: folder.plan(config_of(), {})):
        with pytest.raises(RunFolderError, match=rf"{name} must be a plain file, got a (link|pipe|folder)\. Remove it"):
            use()
    assert [path.name for path in folder.path.iterdir()] == [name]
    assert unchanged(outside)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_a_run_is_not_elsewhere_nor_holds_links(name: str, tmp_path: Path, outside: Path) -> None:
    (tmp_path / name).symlink_to(outside)
    with pytest.raises(RunFolderError, match=f"{name} must be a folder, got a link"):
        RunFolder(tmp_path).check()
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").symlink_to(outside / "secret")
    with pytest.raises(RunFolderError, match="file must be a plain file, got a link"):
        RunFolder(tmp_path).check()


def test_other_things_in_a_folder_are_left_alone(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "pictures").symlink_to(outside)
    RunFolder(tmp_path).check()


def test_a_run_may_be_reached_by_a_link_but_a_job_within_its_sweep_may_not(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "latest").symlink_to(outside)
    RunFolder(tmp_path / "latest").check()
    (tmp_path / "multirun.yaml").write_text("", encoding="utf-8")
    with pytest.raises(RunFolderError, match="latest must be a folder, got a link"):
        RunFolder(tmp_path / "latest" / "deeper").check()
    assert SweepFolder(tmp_path).outcome(Job(0, (), "latest", "", 1, 1)).state == "damaged"


@pytest.mark.parametrize(
    "words", [["note", "text"], ["replay"], ["report"], ["resume"], ["export"], ["eval"], ["predict", "image.png"]]
)
def test_no_command_follows_a_link_to_a_job(words: list[str], tmp_path: Path, outside: Path, command) -> None:
    (outside / ".hydra").mkdir()
    for name in ("config.yaml", "status.json"):
        shutil.copy(SCHEMA_1 / "completed" / name, outside)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").write_text("", encoding="utf-8")
    (tmp_path / "sweep" / "job").symlink_to(outside)
    verb, *rest = words
    code, _, err = command(verb, "sweep/job", *rest)
    assert (code, err.count("\n")) == (4, 1)
    assert "sweep/job must be a folder, got a link." in err
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before


def test_the_way_to_a_folder_is_checked_at_each_step(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").mkdir()
    check_way(tmp_path / "a" / "b" / "c", tmp_path)  # what does not exist is no link
    (tmp_path / "a" / "b").symlink_to(outside)
    with pytest.raises(RunFolderError, match="a/b must be a folder, got a link"):
        check_way(tmp_path / "a" / "b" / "c", tmp_path)


@pytest.mark.parametrize("name", ["multirun.yaml", "ledger.jsonl", "study.db", "sweep.csv", "halted", ".submitit"])
def test_a_sweep_whose_files_are_links_is_not_touched(name: str, tmp_path: Path, outside: Path) -> None:
    (tmp_path / name).symlink_to(outside / "secret")
    sweep = SweepFolder(tmp_path)
    for use in (sweep.jobs, sweep.locked, sweep.read_request):
        with pytest.raises(RunFolderError, match=f"{name} must be a (plain file|folder), got a link"):
            use()
    assert unchanged(outside)


def test_a_deep_folder_is_walked_to_a_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):  # deeper than Python recurses; no path to the last one is short enough for the system
        os.mkdir("a")
        os.chdir("a")
    assert [len(path.relative_to(tmp_path).parts) for path, _, _ in walk(tmp_path, 5)] == [0, 1, 2, 3, 4, 5]
    assert len(list(walk(tmp_path))) == 21
    for _ in range(1200):  # shutil.rmtree recurses as well
        os.chdir("..")
        os.rmdir("a")


def test_a_lock_is_not_made_elsewhere(tmp_path: Path, outside: Path) -> None:
    (tmp_path / ".lock").symlink_to(outside / "secret")
    with pytest.raises(RunFolderError, match=r"\.lock must be a plain file, got a link"), locked(tmp_path):
        pass
    assert unchanged(outside)


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "../elsewhere"}, {"folder": "/elsewhere"}, {"folder": "a/../../b"}, {"folder": ""}, {"folder": "a/./b"},
        {"folder": "a" * 256}, {"folder": "/".join("abc" * 1000)}, {"folder": "ü" * 128}, {"folder": "\ud800"},
        {"number": -1}, {"number": True}, {"number": "0"}, {"number": 10_000}, {"overrides": "seed=1"}, {"overrides": [1]}, {"epochs": 0},
        {"threads": 1.5}, {"time": None}, {"state": []},
    ],
)  # fmt: skip
def test_a_ledger_with_a_line_that_no_driver_writes_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    import json

    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.create([Job(0, ("seed=1",), "0", "", 1, 1)])
    assert ledger.latest()
    values = {**json.loads(ledger.path.read_text(encoding="utf-8")), **change}
    ledger.path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    assert ledger.latest() is None


def test_a_ledger_whose_jobs_share_a_folder_is_damaged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.create([Job(0, (), "0", "", 1, 1), Job(1, (), "0", "", 1, 1)])
    assert ledger.latest() is None


@pytest.mark.parametrize("folder", ["0", "0/x", "0/checkpoints/y"])
def test_a_ledger_with_a_job_within_another_is_damaged(folder: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.create([Job(0, (), "0", "", 1, 1), Job(1, (), "00", "", 1, 1)])
    assert ledger.latest()
    ledger.create([Job(0, (), folder, "", 1, 1), Job(1, (), "0", "", 1, 1), Job(2, (), "00", "", 1, 1)])
    assert ledger.latest() is None


@pytest.mark.parametrize("name", OWN_NAMES)
def test_no_job_has_the_place_of_a_file_of_the_sweep(name: str, tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    (tmp_path / "multirun.yaml").touch()
    sweep.ledger.create([Job(0, (), "0", "", 1, 1)])
    assert len(sweep.jobs()) == 1
    sweep.ledger.create([Job(0, (), f"{name}/x", "", 1, 1)])
    assert sweep.jobs() == []


def test_a_ledger_is_not_added_to_elsewhere(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "ledger.jsonl").symlink_to(outside / "secret")
    with pytest.raises(StorageError, match=r"ledger\.jsonl must be written, got: a link"):
        Ledger(tmp_path / "ledger.jsonl").add(Entry.now(Job(0, (), "0", "", 1, 1), "planned"))
    assert unchanged(outside)


def test_a_checkpoint_that_is_a_link_is_not_read_nor_removed_elsewhere(tmp_path: Path, outside: Path) -> None:
    name = f"epoch-00001_step-0000001_{'0' * 64}.pt"
    (tmp_path / name).symlink_to(outside / "secret")
    folder = CheckpointFolder(tmp_path)
    assert folder.newest() is None
    folder.save(b"content", epoch=1, steps_done=2)
    assert unchanged(outside)


def test_an_unreadable_folder_has_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RunFolderError, match="must be a folder that can be read, got: Permission denied"):
        check_entries(tmp_path, [])
