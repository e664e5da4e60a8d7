"""How often something happened within a while, counted by all processes of the service together.

The counters are scratch: nothing of them is flushed to a disk, and a file that cannot be read is made anew.
"""

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rag_flywheel.errors import StorageError
from rag_flywheel.store.postgres import PostgresDatabase
from rag_flywheel.store.service.state import make_private

_BUSY_S = 0.05  # who counts does not wait for long: another one holds the file for microseconds
_PURGE_EVERY = 2_000  # additions
_TABLE = (
    "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, n INTEGER NOT NULL, ends REAL NOT NULL) "
    "WITHOUT ROWID"
)
_SERVER_TABLE = (  # not in the server's log, so that counting costs it no writing; empty after a crash
    'CREATE UNLOGGED TABLE IF NOT EXISTS counts (key TEXT COLLATE "C" PRIMARY KEY, n BIGINT NOT NULL, '
    "ends DOUBLE PRECISION NOT NULL)"
)
_SERVER_NOW = "extract(epoch FROM clock_timestamp())::float8"


def _add(now: str) -> str:
    return (
        f"INSERT INTO counts VALUES (:key, :n, {now} + :lasts) ON CONFLICT (key) DO UPDATE SET "
        f"n = CASE WHEN counts.ends <= {now} THEN excluded.n ELSE counts.n + excluded.n END, "
        f"ends = CASE WHEN counts.ends <= {now} THEN excluded.ends ELSE counts.ends END "
        f"RETURNING n, ends - {now}"
    )


_ADD, _SERVER_ADD = _add(":now"), _add(_SERVER_NOW)


class Counts(ABC):
    """Counters by key, each from its first addition until it ends; thread-safe.

    Raises StorageError, from every use, where the file fails or the server cannot be reached.
    """

    @abstractmethod
    def add(self, key: str, n: int, lasts_s: float) -> tuple[int, float]:
        """Add n to a counter, which starts anew when it has ended.

        Returns what it is now, and in how many seconds it ends.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what it has open."""


class FileCounts(Counts):
    """Counters in a SQLite file that the processes of one host share; one connection for all threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._added = 0
        try:
            self._conn = _connect(path)
        except sqlite3.DatabaseError:
            for beside in ("", "-wal", "-shm"):
                path.with_name(path.name + beside).unlink(missing_ok=True)
            try:
                self._conn = _connect(path)
            except sqlite3.Error as error:
                raise StorageError(f"{path} cannot be made: {error}") from error

    def add(self, key: str, n: int, lasts_s: float) -> tuple[int, float]:
        """As `Counts.add`, by the clock of this machine."""
        now = time.time()
        with self._used():
            self._added += 1
            if self._added % _PURGE_EVERY == 0:
                self._conn.execute("DELETE FROM counts WHERE ends <= ?", (now,))
            given = {"key": key, "n": n, "now": now, "lasts": lasts_s}
            count, left_s = self._conn.execute(_ADD, given).fetchone()
        return int(count), float(left_s)

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StorageError(
                    f"the counters of the service cannot be used: {error}"
                ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._conn.close()


class ServerCounts(Counts):
    """Counters on the server of the service's records, which its hosts share, by the server's clock."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._added = 0
        with database.transaction() as conn:
            conn.execute(_SERVER_TABLE)

    def add(self, key: str, n: int, lasts_s: float) -> tuple[int, float]:
        """As `Counts.add`; one statement, so that callers wait for no lock but that of their counter."""
        self._added += 1
        with self._database.reading() as conn:
            if self._added % _PURGE_EVERY == 0:
                conn.execute(f"DELETE FROM counts WHERE ends <= {_SERVER_NOW}")
            given = {"key": key, "n": n, "lasts": lasts_s}
            count, left_s = conn.execute(_SERVER_ADD, given).fetchone()
        return int(count), float(left_s)

    def close(self) -> None:
        """Nothing: the database is closed by who opened it."""


def _connect(path: Path) -> sqlite3.Connection:
    with suppress(OSError):  # SQLite says what is wrong
        make_private(path)
    conn = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute(_TABLE)
        with closing(conn.execute("SELECT count(*) FROM counts WHERE ends > 0")) as rows:
            rows.fetchone()  # or the file is no sound one
    except BaseException:
        with suppress(sqlite3.Error):
            conn.close()
        raise
    return conn
