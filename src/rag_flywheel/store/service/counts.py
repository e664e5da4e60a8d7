"""How often something happened within a while, in a file that the processes of the service share.

The file is scratch: nothing in it is flushed to the disk, and one that cannot be read is made anew.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rag_flywheel.errors import StorageError
from rag_flywheel.store.service.file import make_private

_BUSY_S = 0.05  # who counts does not wait for long: another one holds the file for microseconds
_PURGE_EVERY = 2_000  # additions
_TABLE = (
    "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, n INTEGER NOT NULL, ends REAL NOT NULL) "
    "WITHOUT ROWID"
)
_ADD = (
    "INSERT INTO counts VALUES (:key, :n, :now + :lasts) ON CONFLICT (key) DO UPDATE SET "
    "n = CASE WHEN ends <= :now THEN excluded.n ELSE n + excluded.n END, "
    "ends = CASE WHEN ends <= :now THEN excluded.ends ELSE ends END RETURNING n, ends"
)


class Counts:
    """Counters by key, each from its first addition until it ends; one connection for all threads.

    Raises StorageError, from every use, where the file fails.
    """

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
        """Add n to a counter, which starts anew when it has ended.

        Returns what it is now, and when it ends, in seconds since 1970.
        """
        now = time.time()
        with self._used():
            self._added += 1
            if self._added % _PURGE_EVERY == 0:
                self._conn.execute("DELETE FROM counts WHERE ends <= ?", (now,))
            given = {"key": key, "n": n, "now": now, "lasts": lasts_s}
            count, ends = self._conn.execute(_ADD, given).fetchone()
        return int(count), float(ends)

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
