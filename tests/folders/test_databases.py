from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from era_cnn.folders import databases
from era_cnn.folders.databases import check_journal, open_database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE t (a INTEGER)")
        made.execute("CREATE UNIQUE INDEX i ON t (a)")
        made.execute("INSERT INTO t VALUES (1)")
    return path


def journal(database: Path, names: Path | None = None) -> Path:
    """A journal as a killed process leaves it; that of a change to several databases names a file that they share."""
    magic, page = bytes.fromhex("d9d505f920a163d7"), 4096
    content = magic + struct.pack(">5I", 0, 1, database.stat().st_size // page, 512, page)
    content = content.ljust(512, b"\0")
    if names is not None:
        name = os.fsencode(names)
        content += struct.pack(">I", 2**30 // page + 1) + name + struct.pack(">2I", len(name), sum(name)) + magic
    path = database.with_name(f"{database.name}-journal")
    path.write_bytes(content)
    return path


def test_a_database_can_be_read_and_is_made_if_it_is_missing(database: Path) -> None:
    journal(database)
    with contextlib.closing(open_database(database)) as opened:
        assert opened.execute("SELECT a FROM t").fetchall() == [(1,)]
    with contextlib.closing(open_database(database.with_name("new.db"))) as opened, opened:
        opened.execute("CREATE TABLE t (a INTEGER)")


def test_the_file_that_a_journal_names_is_not_removed(database: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work", encoding="utf-8")
    left = journal(database, thesis)
    for open_or_check in (open_database, check_journal):
        with pytest.raises(ValueError, match="study.db-journal names another file"):
            open_or_check(database)
    assert thesis.exists()
    left.rename(tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(database)):
        (tmp_path / "copy").rename(left)
    with contextlib.closing(sqlite3.connect(database)) as unchecked:  # what SQLite itself does
        unchecked.execute("SELECT a FROM t").fetchall()
    assert not thesis.exists()


@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW x AS SELECT 1",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END",
        "CREATE VIRTUAL TABLE x USING fts4(a)",
    ],
)
def test_a_database_has_tables_and_indices_alone(change: str, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as made, made:
        made.execute(change)
    with pytest.raises(ValueError, match="something other than tables and indices"):
        open_database(database)


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(databases.MAX_BYTES + 1)


@pytest.mark.parametrize("beside", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("make", [_link, _large, os.mkfifo, Path.mkdir])
def test_only_plain_files_are_read(make: Callable[[Path], object], beside: str, database: Path) -> None:
    path = database.with_name(database.name + beside)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(OSError, match=str(path)):
        open_database(database)


@pytest.mark.process
def test_a_further_connection_leaves_the_locks_of_the_others(database: Path) -> None:
    """A process loses all its locks on a file when it closes the file once, however often it has opened it."""
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with contextlib.closing(open_database(database)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        open_database(database).close()
        other = subprocess.run(
            [sys.executable, "-c", program, str(database)], capture_output=True, text=True, check=False
        )
    assert "database is locked" in other.stderr
