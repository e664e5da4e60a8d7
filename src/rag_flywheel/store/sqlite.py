"""SQLite as the store of an index: connections to the file of its folder, and transactions on them.

It knows how to open, lock, and translate errors; it must not know what the tables mean.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rag_flywheel.disk import is_full, link_error, new_file_mode
from rag_flywheel.errors import (
    BusyError,
    ClosedError,
    CorruptFileError,
    DiskFullError,
    FlywheelError,
    ReadOnlyError,
    StorageError,
)
from rag_flywheel.store.database import BUSY_TIMEOUT_S, ChangedError, Database, Handle, databases
from rag_flywheel.store.time_limit import limited

_LOG_BUSY_S = 0.2  # writers wait while the log is emptied: better many short tries than a long one
_PAGE = 8_192
"""Bytes: five vectors of 384 numbers; two fill a page of 4,096, and a fifth of it is lost."""
_PAGES_OF_LOG = 512  # after so many, 4 MiB, they are put into the database
_MOST_LOG = 64 * 2**20  # bytes of the log that stay when all of it is in the database


_File = tuple[int, int]
"""What tells a file from another of the same name: device and inode."""
_Unchanging = tuple[int, int, int] | None
"""Size and times of the file, where nobody has it open for writing; None: there is a log beside it."""


class _Handle(Handle[sqlite3.Connection]):
    """One thread's connection. found: the state of the file that is only read; depth: of blocks that read it;
    synchronous: as it was set last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: _Unchanging = None
        self.depth = 0
        self.synchronous = ""


class _Translated:
    """Raises errors of SQLite in the block as ours; a generator would take three times as long."""

    __slots__ = ("_database",)

    def __init__(self, database: "SqliteDatabase") -> None:
        self._database = database

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise self._database.as_flywheel_error(error) from error


class SqliteDatabase(Database):
    """Connections to one database file: one per thread, closed while the process forks.

    read_only: write nothing, neither the file nor those beside it; every transaction is a ReadOnlyError.
    Raises, from every use: ReadOnlyError, DiskFullError, CorruptFileError, StorageError, and
    ClosedError after `close`.
    """

    HANDLE = _Handle

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(path, read_only=read_only)
        self._seen = False  # whether the file was there: then it is never made again

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection in autocommit, with errors translated, for single statements."""
        handle: _Handle = self._handle()
        if self.read_only:
            with handle.lock, self._read_only(handle) as conn:
                yield conn
            return
        with handle.lock, _Translated(self):
            self.require_open()
            if handle.conn is None or (
                not handle.conn.in_transaction and handle.file != self._found()
            ):
                handle.close()
                handle.file = self._found() if self._seen else None  # before it is opened
                handle.conn = _connect(self.path, create=not self._seen)
                handle.synchronous = ""
                handle.file, self._seen = handle.file or self._found(), True
            yield handle.conn

    @contextmanager
    def _read_only(self, handle: _Handle) -> Iterator[sqlite3.Connection]:
        """The same without a byte written. Raises ChangedError.

        SQLite reads a file beside which there is no log as if it never changed. Whether a program began
        to write meanwhile is seen by the file's state, after the block as well as before.
        """
        with _Translated(self):
            self.require_open()
            if not handle.depth and (
                handle.conn is None
                or (handle.file, handle.found) != (self._found(), _unchanging(self.path))
            ):
                handle.close()
                handle.file, handle.found = self._found(), _unchanging(self.path)
                handle.conn = _connect_read_only(self.path, handle.found is not None)
            assert handle.conn is not None
            handle.depth += 1
            try:
                yield handle.conn
            finally:
                handle.depth -= 1
                if handle.found is not None and handle.found != _unchanging(self.path):
                    if not handle.depth:
                        handle.close()
                    raise ChangedError(
                        f"{self.path} was written to while it was read; repeat the call"
                    )

    def _found(self) -> _File:
        """The file that has the name now. Raises StorageError when there is none."""
        try:
            found = os.lstat(self.path)  # half the time of Path.lstat
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.path} is missing; put it back, or restore a backup with `rag-flywheel restore`"
            ) from error
        return found.st_dev, found.st_ino

    @contextmanager
    def transaction(
        self, *, durable: bool = True, wait_s: float = BUSY_TIMEOUT_S
    ) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it is committed, or nothing.

        durable: on the disk before the block is left (synchronous=FULL); else it survives the
        death of the process but perhaps not of the machine (NORMAL).
        wait_s: for how long to wait while another program writes. Raises BusyError after it.
        """
        self.require_writable()
        with self.reading() as conn:
            self._set_synchronous(conn, "FULL" if durable else "NORMAL")
            _begin_writing(conn, wait_s)
            try:
                yield conn
                conn.execute("COMMIT")
            except BaseException:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                raise

    def _set_synchronous(self, conn: sqlite3.Connection, mode: str) -> None:
        """Set when a commit is on the disk, unless this thread's connection has it set so already."""
        handle: _Handle = self._local.handle
        if handle.synchronous != mode:
            conn.execute(f"PRAGMA synchronous={mode}")
            handle.synchronous = mode

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: every statement in it sees the same state."""
        with self.reading() as conn:
            conn.execute("BEGIN")
            try:
                yield conn
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")

    def problems(self) -> list[str]:
        """What SQLite's own integrity check says is wrong with the file; empty when sound."""
        with self.reading() as conn:
            rows = [str(row[0]) for row in conn.execute("PRAGMA integrity_check")]
        return [f"{self.path.name}: {row}" for row in rows if row != "ok"]

    def quick_problems(self) -> tuple[list[str], bool]:
        """(what a quick look says is wrong with the file, whether it saw all of it)."""
        with self.snapshot() as conn:
            n, size = (
                conn.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size")
            )
            log, found = Path(f"{self.path}-wal"), self.path.stat().st_size
            if found < n * size and not (log.exists() and log.stat().st_size):
                return [f"{self.path.name} has {found} bytes; its header says {n * size}"], True
            rows = list[Any]()
            with limited(conn) as left:
                rows = conn.execute("PRAGMA quick_check(3)").fetchall()
        said = [f"SQLite says of {self.path.name}: {row[0]}" for row in rows if row[0] != "ok"]
        return said, not left.over

    def compact(self, *, wait_s: float = 0.0) -> bool:
        """Write the file anew without what was deleted, and empty the log beside it.

        False when other connections go on reading an older state for wait_s: the log, which then
        may hold deleted rows, could not be emptied.
        """
        with self.reading() as conn:
            conn.execute("VACUUM")
        return self.empty_log(wait_s=wait_s)

    def empty_log(self, *, wait_s: float = 0.0) -> bool:
        """Empty the log beside the file, which holds rows as they were before they were changed or deleted.

        False when other connections go on reading an older state for wait_s.
        """
        until = time.monotonic() + wait_s
        with self.reading() as conn, _waiting(conn, _LOG_BUSY_S):
            while conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > until:
                    return False
                time.sleep(_LOG_BUSY_S)
        return True

    def has_open(self, path: Path) -> bool:
        """Whether a connection to the file at `path` is open."""
        with self._handles_lock:
            some = any(handle.conn is not None for handle in list(self._handles))
        with suppress(OSError):
            return some and self.path.samefile(path)
        return False

    def as_flywheel_error(self, error: sqlite3.Error | UnicodeDecodeError) -> FlywheelError:
        """An error of SQLite, or of its message where that quotes a damaged file, as one of ours."""
        if isinstance(error, UnicodeDecodeError):
            return self._unsound(error)
        name = getattr(error, "sqlite_errorname", "") or ""
        where = self.path
        if self._closed and isinstance(error, sqlite3.ProgrammingError):
            return ClosedError(f"{where.parent} was closed; open it again to use it")
        broken = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))
        if name.startswith("SQLITE_FULL") or (broken and is_full(where)):
            return DiskFullError(
                f"no space to write {where} ({error}); free some and repeat the call. "
                "Nothing of it was kept"
            )
        unwritable = not os.access(where if where.exists() else where.parent, os.W_OK)
        if name.startswith(("SQLITE_READONLY", "SQLITE_PERM")) or (
            name.startswith("SQLITE_CANTOPEN") and unwritable
        ):
            return ReadOnlyError(
                f"{where.parent} cannot be written to ({error}); give this user write permission, or open "
                "it with read_only=True (--read-only), which records nothing"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return BusyError(
                f"{where} is being written to by another program, and did not become free ({error}); "
                "repeat the call, and see what holds it: `fuser` names the processes that have it open"
            )
        # only a damaged or foreign file causes these errors
        if name.startswith(_DAMAGE_CODES) or any(part in str(error) for part in _DAMAGE_MESSAGES):
            return self._unsound(error)
        return StorageError(f"{where}: {error}")

    def _unsound(self, error: Exception) -> CorruptFileError:
        return CorruptFileError(
            f"{self.path} is not a sound SQLite file ({error}); restore it from a backup: it "
            "holds passages and votes, which cannot be rebuilt"
        )


_DAMAGE_CODES = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
_DAMAGE_MESSAGES = (
    "no such ",  # table, column, index
    "Could not decode to UTF-8",
    "malformed JSON",
    "unsafe use of ",
    "has no column named",
    "integer overflow",
)


def _require_files(path: Path) -> None:
    """Raises CorruptFileError when the database, or a file that SQLite writes beside it, is no file, and
    StorageError when the database is a link.

    Opening a pipe would wait for ever, and a link could lead anywhere.
    """
    for beside in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(path.name + beside)
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode) and not beside:
            raise link_error(file)
        if not stat.S_ISREG(mode):
            raise CorruptFileError(
                f"{file} is a link, a folder or a device; expected a file: restore the database "
                "from a backup"
            )


def _begin_writing(conn: sqlite3.Connection, wait_s: float) -> None:
    """Begin a write transaction, waiting for locks only so long."""
    if wait_s == BUSY_TIMEOUT_S:
        conn.execute("BEGIN IMMEDIATE")
        return
    with _waiting(conn, wait_s):
        conn.execute("BEGIN IMMEDIATE")


@contextmanager
def _waiting(conn: sqlite3.Connection, wait_s: float) -> Iterator[None]:
    """Wait for locks only so long in the block."""
    conn.execute(f"PRAGMA busy_timeout={int(wait_s * 1000)}")
    try:
        yield
    finally:
        conn.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def _require_own(conn: sqlite3.Connection, path: Path) -> None:
    """Raises StorageError when a link was put in the place of the database while it was opened.

    SQLite says which file it found behind links, and opens that one without following any.
    """
    opened = Path(conn.execute("PRAGMA database_list").fetchone()[2])
    if opened.name != path.name or opened.parent != path.parent.resolve():
        raise link_error(path)


def make_file(path: Path) -> None:
    """Make the empty file of a database, unless it is there; SQLite gives those beside it the same mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(OSError):  # SQLite says what is wrong
        os.close(os.open(path, flags, new_file_mode(path.parent)))


def _unchanging(path: Path) -> _Unchanging:
    """The state of a file that no program has open for writing; None where one may: there is a log."""
    for beside in ("-wal", "-shm"):
        try:
            if os.lstat(f"{path}{beside}").st_size or beside == "-shm":
                return None
        except FileNotFoundError:
            pass
    found = os.lstat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _connect_read_only(path: Path, unchanging: bool) -> sqlite3.Connection:
    """A connection that writes nothing: SQLite makes its log and the index of that where they are missing,
    unless the file is said to be immutable; and it reads an index that it must not write to."""
    _require_files(path)
    if not unchanging and not path.with_name(f"{path.name}-shm").exists():
        raise ReadOnlyError(
            f"{path}-wal holds changes, but {path.name}-shm, without which they cannot be read, is missing: "
            "open the index once with write permission, or copy both, or copy the index by "
            "`rag-flywheel backup`"
        )
    options = "immutable=1" if unchanging else "readonly_shm=1"
    if not unchanging and any(
        not other.read_only and other.has_open(path) for other in _databases()
    ):
        options = ""  # connections of one process share what they have of the index
    return _opened(path, f"mode=ro&{options}", _set_up_read_only)


def _set_up_read_only(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA trusted_schema=OFF")
    conn.execute("PRAGMA cell_size_check=ON")
    conn.execute("PRAGMA query_only=ON")


def _databases() -> list[SqliteDatabase]:
    return [each for each in databases() if isinstance(each, SqliteDatabase)]


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    _require_files(path)
    for other in _databases():
        if other.read_only and other.has_open(path):
            other.close_connections()  # or this one could not write either; they open again when used
    if create:
        make_file(path)
    return _opened(path, "mode=rwc" if create else "mode=rw", _set_up)


def _opened(
    path: Path, options: str, set_up: Callable[[sqlite3.Connection], None]
) -> sqlite3.Connection:
    """A connection by a URI with these options, set up; on any error it is closed."""
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    try:
        _require_own(conn, path)
        set_up(conn)
    except BaseException:  # also one that is not SQLite's, such as a message that is no UTF-8
        conn.close()
        raise
    return conn


def _set_up(conn: sqlite3.Connection) -> None:
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            conn.execute("PRAGMA trusted_schema=OFF")
            conn.execute("PRAGMA cell_size_check=ON")
            conn.execute(f"PRAGMA page_size={_PAGE}")  # of a database that is new
            conn.execute("PRAGMA journal_mode=WAL")
            conn.execute(f"PRAGMA journal_size_limit={_MOST_LOG}")
            conn.execute(f"PRAGMA wal_autocheckpoint={_PAGES_OF_LOG}")
            conn.execute("PRAGMA synchronous=NORMAL")
            conn.execute("PRAGMA secure_delete=ON")  # deleted rows are overwritten
            return
        except sqlite3.Error as error:
            # the switch to WAL does not wait for others that open the file for the first time
            locked = getattr(error, "sqlite_errorname", "") in {"SQLITE_BUSY", "SQLITE_LOCKED"}
            if not locked or time.monotonic() > until:
                raise
            time.sleep(0.01)
