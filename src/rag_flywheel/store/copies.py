"""Copies a database that is in use, and puts a copy in the place of one that is in use.

Whatever others do meanwhile, each is one state of the database. A copy is a file of SQLite, whichever engine
it is of; rows are copied between the two.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.errors import CorruptFileError, InputError
from rag_flywheel.store.connection import Connection, each_row, in_parts, scalar
from rag_flywheel.store.journal import DAMAGED, OBJECTS, SETTINGS, drop_meta, read_meta, write_meta
from rag_flywheel.store.passages import read_clock
from rag_flywheel.store.place import FOLDER
from rag_flywheel.store.schema import MIGRATIONS, expected_tables
from rag_flywheel.store.sqlite import SqliteDatabase, make_file
from rag_flywheel.store.users import USER_KEY

if TYPE_CHECKING:
    from rag_flywheel.store.postgres import PostgresDatabase

_NUMBERED = (
    ("retrievals", "rid"),
    *(
        (table, "id")
        for table in ("refreshes", "moves", "looks", "forgets", "attempts", "dp_releases")
    ),
)
"""Tables whose rows the engine numbers by itself, and the column; passages have their own rule."""
_OF_ONE_PLACE = FOLDER, OBJECTS, SETTINGS, DAMAGED
"""Keys of `meta` that say where an index lies, and go into no copy."""


def write_copy(conn: Connection, copy: Path) -> None:
    """Write the database, as this read transaction sees it, to a new file.

    Raises CorruptFileError when SQLite finds the copy damaged.
    """
    make_file(copy)
    if not isinstance(conn, sqlite3.Connection):
        _write_rows(conn, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        if isinstance(conn, sqlite3.Connection):
            conn.backup(target)
        wrong = [str(row[0]) for row in target.execute("PRAGMA integrity_check(3)")]
    make_one_file(copy)
    if wrong != ["ok"]:
        raise CorruptFileError(f"the database is damaged: {wrong[0]}; see `rag-flywheel verify`")


def make_one_file(copy: Path) -> None:
    """Put all of a database that nobody uses into its file, and leave none beside it."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=DELETE")


def put_in_place(copy: Path, database: SqliteDatabase) -> None:
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


def put_on_server(copy: Path, database: "PostgresDatabase") -> None:
    """Store all that a copy holds on a server whose tables are there and empty. Raises InputError."""
    with (
        closing(sqlite3.connect(copy, isolation_level=None)) as source,
        database.transaction() as conn,
    ):
        if read_clock(conn) or scalar(conn, "SELECT EXISTS (SELECT 1 FROM retrievals)"):
            raise InputError(
                f"{database.address} holds an index; expected a schema without one, named by ?schema=. Where "
                "that is what a copy left that was ended, and nobody has used it, delete it there: "
                f'DROP SCHEMA "{database.address.schema}" CASCADE'
            )
        _copy_rows(source, conn)
        _count_on(source, conn)


def replace_on_server(copy: Path, database: "PostgresDatabase") -> None:
    """Replace all that a schema holds, durably, by what a copy holds; its readers go on meanwhile.

    Where its versions lie stays the same."""
    from rag_flywheel.store.migrations import migrations

    with (
        closing(sqlite3.connect(copy, isolation_level=None)) as source,
        database.transaction() as conn,
    ):
        kept = {key: read_meta(conn, key) for key in _OF_ONE_PLACE}
        tables = list(expected_tables(migrations))
        with _deletable(conn, tables):
            for table in tables:
                conn.execute(f"DELETE FROM {table}")
            _copy_rows(source, conn)
        _count_on(source, conn)
        for key, value in kept.items():
            if value is not None:
                write_meta(conn, key, value)


def empty_on_server(database: "PostgresDatabase") -> None:
    """Delete all rows that `put_on_server` stored in a schema that nobody has used since."""
    from rag_flywheel.store.migrations import migrations

    with database.transaction() as conn:
        tables = list(expected_tables(migrations))
        with _deletable(conn, tables):
            for table in tables:
                if table not in ("meta", "clock"):
                    conn.execute(f"DELETE FROM {table}")
            conn.execute("DELETE FROM meta WHERE key != ?", (USER_KEY,))
            conn.execute("UPDATE clock SET seq = 0")


@contextmanager
def _deletable(conn: Connection, tables: Sequence[str]) -> Iterator[None]:
    """Let rows be deleted in the block from tables that refuse it."""
    for table in tables:
        conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield
    for table in tables:
        conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def _count_on(source: sqlite3.Connection, conn: Connection) -> None:
    """Let numbers that the server gives out go on from those of the copy that its rows came from.

    They only ever rise: the server sets them at once, and keeps that when the transaction, with all rows, is
    undone."""
    last = scalar(source, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence") or 0
    for table, column in (*_NUMBERED, ("passages", "pid")):
        most = scalar(conn, f"SELECT coalesce(max({column}), 0) FROM {table}")
        most = max(most, last) if table == "passages" else most
        name = scalar(conn, "SELECT pg_get_serial_sequence(?, ?)", (table, column))
        given = scalar(conn, f"SELECT last_value FROM {name} WHERE is_called") or 0
        if most > given:
            conn.execute("SELECT setval(?::regclass, ?)", (name, most))


def _write_rows(source: Connection, copy: Path) -> None:
    """Write all rows of a server to an empty file."""
    from rag_flywheel.store.migrations import migrate  # sqlite-utils takes 50 ms to load

    database = SqliteDatabase(copy)
    try:
        migrate(database, lambda _, id_: id_)  # there are none yet
        with database.transaction() as conn:
            _copy_rows(source, conn)
            # or two copies of one state would differ in when they were made
            conn.execute(f"UPDATE {MIGRATIONS} SET applied_at = ''")
            last = scalar(source, "SELECT last_value FROM passages_pid_seq WHERE is_called")
            conn.execute("DELETE FROM sqlite_sequence WHERE name = 'passages'")
            conn.execute("INSERT INTO sqlite_sequence VALUES ('passages', ?)", (last or 0,))
    finally:
        database.close()


def _copy_rows(source: Connection, target: Connection) -> None:
    """Copy every row of the tables of an index, in the place of those that new tables begin with."""
    from rag_flywheel.store.migrations import migrations

    for table, columns in expected_tables(migrations).items():
        if table == "fetches":
            continue
        names = ", ".join(columns)
        if table in ("meta", "clock"):
            target.execute(f"DELETE FROM {table}")
        order = (
            " ORDER BY rowid" if table == "vectors" else ""
        )  # they lie in the order of the texts
        rows = each_row(source, f"SELECT {names} FROM {table}{order}")
        sql = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"
        for part in in_parts(rows):
            target.executemany(sql, part)
    for key in _OF_ONE_PLACE:
        drop_meta(target, key)
