"""The service's own records: their tables made, brought up to date, and opened by each of its processes.

They lie in a SQLite file of one host, or in a schema of a PostgreSQL server that many hosts share. What an
index holds is never among them.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import InputError, NewerFormatError
from rag_flywheel.store import wall_clock
from rag_flywheel.store.connection import Connection, scalar
from rag_flywheel.store.database import Database
from rag_flywheel.store.postgres import Address, PostgresDatabase, is_url
from rag_flywheel.store.schema import MIGRATIONS as OF_AN_INDEX
from rag_flywheel.store.sqlite import SqliteDatabase

_D = TypeVar("_D", bound=Database)
SCHEMA = "flywheel_service"
"""The schema on a server, where the URL names none."""
_MIGRATIONS = (
    """
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE keys (
        id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, scopes TEXT NOT NULL,
        tenant TEXT, indexes TEXT, public INTEGER NOT NULL, created REAL NOT NULL, revoked REAL
    );
    CREATE TABLE requests (
        caller TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL,
        tried_at REAL NOT NULL, status INTEGER, headers TEXT, body BLOB, PRIMARY KEY (caller, key)
    );
    CREATE INDEX requests_at ON requests (at);
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, index_name TEXT NOT NULL,
        kind TEXT NOT NULL, state TEXT NOT NULL, step TEXT NOT NULL, done INTEGER NOT NULL,
        total INTEGER NOT NULL, created REAL NOT NULL, started REAL, ended REAL, pid INTEGER,
        cancelled INTEGER NOT NULL DEFAULT 0, result TEXT, error TEXT
    );
    """,
    """
    ALTER TABLE jobs ADD COLUMN host TEXT;
    ALTER TABLE jobs ADD COLUMN beat REAL;
    ALTER TABLE requests ADD COLUMN seen TEXT;
    ALTER TABLE requests ADD COLUMN taker TEXT;
    """,
)
"""Appended to, never changed. A file notes how many it has as its user_version, a schema in a table."""
_APPLIED = "CREATE TABLE IF NOT EXISTS applied (n INTEGER NOT NULL)"


def address_of(state: str) -> Address:
    """The schema of the records that a URL names. Raises InputError."""
    return Address.of(state, schema=SCHEMA)


def open_state(state: Path | str) -> Database:
    """Open the records, and make them at first.

    state: the path of a SQLite file, or the URL of a PostgreSQL database.
    Raises InputError, NewerFormatError, StorageError.
    """
    if is_url(state):
        address = address_of(str(state))
        server = PostgresDatabase(address, Path(f"the schema {address.schema}"))
        return _brought_up(server, _bring_up_server)
    path = Path(state)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)  # what tokens are signed with is in it
    return _brought_up(SqliteDatabase(path), _bring_up_file)


def named(database: Database) -> str:
    """How another process names the same records to `open_state`."""
    return database.address.url if isinstance(database, PostgresDatabase) else str(database.path)


def now(database: Database) -> float:
    """Seconds since 1970 UTC, by the clock that all processes of the service share."""
    with database.reading() as conn:
        return wall_clock.now_of(conn)


@contextmanager
def writing(database: Database, *, durable: bool) -> Iterator[Connection]:
    """A connection for statements that are right whatever others do between them.

    In a file they are one transaction, as durable as is said. On a server each is committed by itself, and
    durable, so that hosts wait for no lock.
    """
    with database.reading() if database.REMOTE else database.transaction(durable=durable) as conn:
        yield conn


def require_readable(database: Database) -> None:
    """Raises StorageError when the records cannot be read now."""
    with database.reading() as conn:
        conn.execute("SELECT name FROM secrets LIMIT 1").fetchone()


def _brought_up(database: _D, bring_up: Callable[[_D], None]) -> _D:
    try:
        bring_up(database)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_file(database: SqliteDatabase) -> None:
    with database.transaction(durable=True) as conn:
        (had,) = conn.execute("PRAGMA user_version").fetchone()
        _migrate(conn, had, str(database.path))
        conn.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _bring_up_server(database: PostgresDatabase) -> None:
    database.make_schema()
    with database.transaction(durable=True) as conn:
        if scalar(conn, "SELECT to_regclass(?) IS NOT NULL", (OF_AN_INDEX,)):
            raise InputError(
                f"{database.address} is the schema of an index; name another one for the records of the "
                "service, as in ?schema=service"
            )
        conn.execute(_APPLIED)
        had = scalar(conn, "SELECT max(n) FROM applied") or 0
        _migrate(conn, had, str(database.address))
        if had < len(_MIGRATIONS):
            conn.execute("INSERT INTO applied (n) VALUES (?)", (len(_MIGRATIONS),))


def _migrate(conn: Connection, had: int, where: str) -> None:
    """Apply the migrations after the first `had`. Raises NewerFormatError."""
    if had > len(_MIGRATIONS):
        raise NewerFormatError(
            f"{where} was written by a newer release; expected at most {len(_MIGRATIONS)} migrations, "
            f"found {had}; use that release"
        )
    for sql in _MIGRATIONS[had:]:
        for statement in sql.split(";"):
            if statement.strip():
                conn.execute(statement)


def make_private(path: Path) -> None:
    """Make an empty file that this user alone can read, unless it is there. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def secret(database: Database, name: str) -> bytes:
    """32 random bytes of this service, the same for every process from the first use on."""
    with database.reading() as conn:
        row = conn.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return bytes(row[0])
    with database.transaction(durable=True) as conn:
        conn.execute(
            "INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (name, secrets.token_bytes(32)),
        )
        (value,) = conn.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return bytes(value)
