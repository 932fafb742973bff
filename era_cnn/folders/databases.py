"""Opens a SQLite database that may come from someone else."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

from era_cnn.folders.plain import check_plain, read_plain

MAX_BYTES = 2**28
"""The most bytes in a database, or in a file beside it: more than ten thousand trials of a hundred epochs need."""

_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""How a journal ends that names the journal of several databases, which SQLite deletes, wherever it lies."""

_PLAIN = re.compile(r"CREATE (TABLE|(UNIQUE )?INDEX) ", re.IGNORECASE)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to a database, which is created if it is missing.

    It must have nothing but tables and indices: a view may be endless, a trigger adds what nobody asked for, and a
    virtual table reads other files.

    Raises:
        OSError: If it, or a file beside it, is not a plain file, or is too large.
        ValueError: If it has something else, or its journal names a file.
        sqlite3.Error: If it is no database.
    """
    check_journal(path)
    for beside in ("", "-wal", "-shm"):
        file = path.with_name(path.name + beside)
        if os.path.lexists(file):
            check_plain(file, MAX_BYTES)  # not opened: to close it would end the locks of other connections
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA trusted_schema = OFF")
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    if not all(_PLAIN.match(str(sql)) for (sql,) in found):
        raise ValueError("something other than tables and indices")
    return connection


def check_journal(path: Path) -> None:
    """Checks what SQLite would do before it reads a database that was left in the middle of a change.

    Raises:
        OSError: If its journal is not a plain file, or is too large.
        ValueError: If it names a file.
    """
    journal = path.with_name(f"{path.name}-journal")
    if os.path.lexists(journal) and read_plain(journal, MAX_BYTES).endswith(_MAGIC):
        raise ValueError(f"{journal.name} names another file")
