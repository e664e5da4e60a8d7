"""The file of the service: made, brought up to date, and opened by each of its processes.

What an index holds is never in it.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import NewerFormatError
from rag_flywheel.store.database import Database
from rag_flywheel.store.sqlite import SqliteDatabase

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
)
"""Appended to, never changed: the file's user_version says how many of them it has."""


def open_file(path: Path) -> Database:
    """Open the file, and make it at first. Raises NewerFormatError, StorageError."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)  # what tokens are signed with is in it
    database = SqliteDatabase(path)
    try:
        with database.transaction(durable=True) as conn:
            (had,) = conn.execute("PRAGMA user_version").fetchone()
            if had > len(_MIGRATIONS):
                raise NewerFormatError(
                    f"{path} was written by a newer release; expected at most {len(_MIGRATIONS)} "
                    f"migrations, found {had}; use that release"
                )
            for sql in _MIGRATIONS[had:]:
                for statement in sql.split(";"):
                    if statement.strip():
                        conn.execute(statement)
            conn.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
    except BaseException:
        database.close()
        raise
    return database


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
        conn.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, secrets.token_bytes(32)))
        (value,) = conn.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return bytes(value)
