"""A copy of the texts in an index on a server, in a file of the host that answers from it.

Hits are shown from it, and filters read metadata there, without an exchange with the server and while that is
gone. What is missing, damaged or left behind is read from the server again. It must not know what is shown.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag_flywheel.errors import ClosedError, CorruptFileError, StorageError
from rag_flywheel.store.connection import Connection, each_row, in_parts
from rag_flywheel.store.passages import PRESENT
from rag_flywheel.store.sqlite import SqliteDatabase
from rag_flywheel.store.timeline import Moment, is_of, read_moment

log = logging.getLogger("rag_flywheel")
FILE_NAME = "texts.db"
_FORMAT = 1
_COLUMNS = "pid, id, title, text, metadata, text_hash, lineage, born, edited"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), timeline TEXT NOT NULL, "
    "seq INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS passages (pid INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT NOT NULL, "
    "text TEXT NOT NULL, metadata TEXT NOT NULL, text_hash BLOB NOT NULL, lineage INTEGER NOT NULL, "
    "born INTEGER NOT NULL, edited INTEGER, ended INTEGER, origin TEXT NOT NULL DEFAULT 'index')",
    f"CREATE INDEX IF NOT EXISTS passages_present ON passages (pid) WHERE {PRESENT}",
    "CREATE INDEX IF NOT EXISTS passages_born ON passages (born)",
    "CREATE INDEX IF NOT EXISTS passages_ended ON passages (ended) WHERE ended IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS passages_edited ON passages (edited) WHERE edited IS NOT NULL",
)
_NOTHING = Moment("", -1)
_CLEAR_S = 1.0  # for how long to wait until nobody reads what a removed text was


class TextCopy:
    """The copy in the file at `path`, which the processes of a host share; thread-safe.

    Of a text that was removed the number stays, by which readers notice that it is gone, and no word.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = SqliteDatabase(path)
        self._failed = ""

    def follow(self, conn: Connection) -> bool:
        """Bring the copy to the state of the store that this read transaction sees; False: it cannot be
        written, which is logged."""
        try:
            try:
                self._follow(conn)
            except CorruptFileError:
                self._delete()
                self._follow(conn)
        except ClosedError:
            raise
        except StorageError as error:
            self._log_failure(error)
            return False
        self._failed = ""
        return True

    def _log_failure(self, error: StorageError) -> None:
        if str(error) != self._failed:
            log.warning("texts are read from the server, since no copy is kept here: %s", error)
        self._failed = str(error)

    def _follow(self, conn: Connection) -> None:
        now, n_ended = read_moment(conn), 0
        with self._database.transaction(durable=False) as copy:
            known = _made(copy)
            if known.timeline == now.timeline and known.seq >= now.seq:
                return  # another process was faster
            if not is_of(conn, known):
                copy.execute("DELETE FROM passages")
                known = _NOTHING
            else:
                n_ended = _end(conn, copy, known.seq)
            _add(conn, copy, known.seq)
            copy.execute(
                "INSERT INTO clock (one, timeline, seq) VALUES (1, ?, ?) ON CONFLICT (one) "
                "DO UPDATE SET timeline = excluded.timeline, seq = excluded.seq",
                now,
            )
        if n_ended:
            self._database.empty_log(wait_s=_CLEAR_S)

    def _delete(self) -> None:
        """Delete the file, which is damaged, and those beside it."""
        self._database.close()
        for beside in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + beside).unlink()
        self._database = SqliteDatabase(self._path)

    @contextmanager
    def reading(self, moment: Moment) -> Iterator[Connection | None]:
        """A read transaction on the copy; None: it is at an event before this one. Raises StorageError."""
        with self._database.snapshot() as conn:
            found = read_moment(conn)
            usable = found.timeline == moment.timeline and found.seq >= moment.seq
            yield conn if usable else None

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _made(copy: Connection) -> Moment:
    """The state that the copy is at, whose tables are made where they are missing."""
    (made,) = copy.execute("PRAGMA user_version").fetchone()
    if made not in (0, _FORMAT):
        raise CorruptFileError(f"it has format {made}; expected {_FORMAT}")
    if not made:
        for sql in _TABLES:
            copy.execute(sql)
        copy.execute(f"PRAGMA user_version = {_FORMAT}")
    row = copy.execute("SELECT timeline, seq FROM clock").fetchone()
    return _NOTHING if row is None else Moment(*row)


def _end(conn: Connection, copy: Connection, since: int) -> int:
    """End the texts that were ended after an event, and delete their words; returns how many."""
    ended = conn.execute("SELECT ended, pid FROM passages WHERE ended > ?", (since,)).fetchall()
    copy.executemany(
        "UPDATE passages SET ended = ?, id = '', title = '', text = '', metadata = '{}', text_hash = x'' "
        "WHERE pid = ?",
        ended,
    )
    return len(ended)


def _add(conn: Connection, copy: Connection, since: int) -> None:
    """Add the texts that came, or got other metadata, after an event."""
    marks = ", ".join("?" * len(_COLUMNS.split(",")))
    put = f"INSERT OR REPLACE INTO passages ({_COLUMNS}) VALUES ({marks})"
    for column in ("born", "edited") if since >= 0 else ("born",):
        sql = f"SELECT {_COLUMNS} FROM passages WHERE {PRESENT} AND {column} > ?"
        for part in in_parts(each_row(conn, sql, (since,))):
            copy.executemany(put, part)
