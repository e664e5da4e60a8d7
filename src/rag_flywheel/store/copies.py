"""Copies a database that is in use, and puts a copy in the place of one that is in use.

Both are one transaction of SQLite: whatever others do meanwhile, each is one state of the database.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store.connection import scalar
from rag_flywheel.store.database import Database
from rag_flywheel.store.sqlite import make_file


def write_copy(conn: sqlite3.Connection, copy: Path) -> None:
    """Write the database, as this read transaction sees it, to a new file.

    Raises CorruptFileError when SQLite finds the copy damaged.
    """
    make_file(copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        conn.backup(target)
        wrong = [str(row[0]) for row in target.execute("PRAGMA integrity_check(3)")]
    make_one_file(copy)
    if wrong != ["ok"]:
        raise CorruptFileError(f"the database is damaged: {wrong[0]}; see `rag-flywheel verify`")


def make_one_file(copy: Path) -> None:
    """Put all of a database that nobody uses into its file, and leave none beside it."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=DELETE")


def put_in_place(copy: Path, database: Database) -> None:
    """Replace all that a database holds, durably, by what a copy holds, which nobody else uses; its readers
    go on meanwhile."""
    with (
        closing(sqlite3.connect(copy, isolation_level=None)) as source,
        database.reading() as conn,
    ):
        conn.execute("PRAGMA synchronous=FULL")
        page = scalar(conn, "PRAGMA page_size")
        if scalar(source, "PRAGMA page_size") != page:  # those of a database in use stay
            source.execute(f"PRAGMA page_size={page}")
            source.execute("VACUUM")
        source.backup(conn)
