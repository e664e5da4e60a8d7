"""Connections to the SQLite file of an index folder, and transactions on them.

It knows how to open, lock, and translate errors; it must not know what the tables mean.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag_flywheel.errors import (
    ClosedError,
    CorruptFileError,
    DiskFullError,
    FlywheelError,
    ReadOnlyError,
    StorageError,
)

FILE_NAME = "flywheel.db"
BUSY_TIMEOUT_S = 60.0
_CHUNK = 500  # bound variables in one statement; SQLite's limit is higher everywhere


class _Handle:
    """One connection, closed with the thread that used it."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.conn = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    def __del__(self) -> None:
        if hasattr(self, "conn") and self.pid == os.getpid():
            self.conn.close()


class Database:
    """Connections to one database file: one per thread, opened anew after a fork.

    Raises, from every use: ReadOnlyError, DiskFullError, CorruptFileError, StorageError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()
        self._inherited: list[_Handle] = []  # kept: closing them here would disturb the parent
        self._closed = False

    @property
    def conn(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit."""
        if self._closed:
            raise ClosedError(f"{self.path.parent} was closed; open it again to use it")
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is not None and handle.pid != os.getpid():
            self._inherited.append(handle)
            handle = None
        if handle is None:
            with self._translated():
                handle = _Handle(self.path)
                handle.conn.execute("PRAGMA journal_mode=WAL")
                handle.conn.execute("PRAGMA synchronous=NORMAL")
            self._local.handle = handle
            self._handles.add(handle)
        return handle.conn

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it is kept, or nothing.

        durable: on the disk before the block is left (synchronous=FULL); else it survives the
        death of the process but perhaps not of the machine (NORMAL).
        """
        conn = self.conn
        with self._translated():
            conn.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            conn.execute("BEGIN IMMEDIATE")
            try:
                yield conn
                conn.execute("COMMIT")
            except BaseException:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: every statement in it sees the same state."""
        conn = self.conn
        with self._translated():
            conn.execute("BEGIN")
            try:
                yield conn
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection with errors translated, for single statements."""
        conn = self.conn
        with self._translated():
            yield conn

    def problems(self) -> list[str]:
        """What SQLite's own integrity check says is wrong with the file; empty when sound."""
        with self.reading() as conn:
            rows = [str(row[0]) for row in conn.execute("PRAGMA integrity_check")]
        return [f"{self.path.name}: {row}" for row in rows if row != "ok"]

    def close(self) -> None:
        """Close every connection of this process."""
        self._closed = True
        for handle in list(self._handles):
            if handle.pid == os.getpid():
                handle.conn.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._as_flywheel_error(error) from error

    def _as_flywheel_error(self, error: sqlite3.Error) -> FlywheelError:
        name = getattr(error, "sqlite_errorname", "") or ""
        where = self.path
        if self._closed and isinstance(error, sqlite3.ProgrammingError):
            return ClosedError(f"{where.parent} was closed; open it again to use it")
        if name.startswith("SQLITE_FULL") or name == "SQLITE_IOERR_WRITE":
            return DiskFullError(
                f"no space to write {where} ({error}); free some and repeat the call. "
                "Nothing of it was kept"
            )
        unwritable = not os.access(where if where.exists() else where.parent, os.W_OK)
        if name.startswith(("SQLITE_READONLY", "SQLITE_PERM")) or (
            name.startswith("SQLITE_CANTOPEN") and unwritable
        ):
            return ReadOnlyError(
                f"{where.parent} cannot be written to ({error}); every use of an index writes to "
                "its folder: give this user write permission, or copy the folder"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return CorruptFileError(
                f"{where} is not a sound SQLite file ({error}); restore it from a backup: it "
                "holds passages and votes, which cannot be rebuilt"
            )
        return StorageError(f"{where}: {error}")


def in_chunks(
    conn: sqlite3.Connection,
    sql: str,
    values: Sequence[object],
    more: tuple[object, ...] = (),
) -> Iterator[tuple[Any, ...]]:
    """The rows of `sql`, which holds one `IN (%s)`, over any number of values."""
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        marks = ", ".join("?" * len(part))
        yield from conn.execute(sql % marks, (*part, *more))
