"""PostgreSQL as the store of an index: connections to a schema on a server, and transactions on them.

It knows how to connect, lock, and translate errors; it must not know what the tables mean.
"""

import re
import select
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from rag_flywheel.errors import (
    BusyError,
    ClosedError,
    CorruptFileError,
    DiskFullError,
    FlywheelError,
    InputError,
    LockedError,
    ReadOnlyError,
    StorageError,
    UnreachableError,
    quoted,
)
from rag_flywheel.store.connection import Connection, Rows, Values, scalar
from rag_flywheel.store.database import BUSY_TIMEOUT_S, FILE_NAME, Database, Handle
from rag_flywheel.store.postgres_sql import translated
from rag_flywheel.store.schema import ALIVE
from rag_flywheel.store.timeline import begin_timeline, new_token

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql", "postgres")
_SCHEMA = "flywheel"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_WAITS = (
    ("connect_timeout", "10"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
)
"""Options of libpq, in seconds and milliseconds, by which a server that is gone is noticed; those in the URL
go first."""
_BEGIN = "BEGIN; SET LOCAL synchronous_commit = off"
_FLUSH = "SELECT pg_logical_emit_message(true, 'rag-flywheel', '')"
"""A transaction of its own that writes a record to the log and waits until the log is stored up to it."""
_REFUSED = re.compile(
    r"password|authentication|pg_hba\.conf|(role|database) \S+ does not exist|permission denied for database"
)
"""What a server says, as far as it speaks English, that is there and lets this user in nowhere."""
_numbers = count()
_MOST_WAITING = 16  # rows
_NAME_BYTES = 63  # of the name of a program, as the server cuts it
_UNKNOWN = 4  # the state of a connection that ended
_LOOK_S = 0.1  # between two looks whether a lock is free
_PAUSE, _LEAST_PAUSE_S, _MOST_PAUSE_S = 5.0, 0.02, 5.0
"""A server that was not reached is not called for so many times as long as that took, within these bounds."""
_WRITE, _REFRESH, _CHANGE = 0x0F17_0001, 0x0F17_0002, 0x0F17_0003
"""The first halves of the keys of advisory locks; the second is of the schema. Locks are of one database."""
_LOCKS = {"refresh": _REFRESH, "change": _CHANGE}
_SETTINGS = (
    "SET client_encoding = 'UTF8'; SET jit = off; SET statement_timeout = 0; SET lock_timeout = 0; "
    "SET idle_in_transaction_session_timeout = 0; "
    "SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on"
)
"""What holds whatever the server or the user has for other programs: no statement or transaction is ended
since it takes long. A session that does nothing may be ended, and the next call connects again."""
_HAS_LIMIT, _ENDS_IDLE = (
    17_00_00,
    14_00_00,
)  # versions of servers, since which there is such a setting


@dataclass(frozen=True)
class Address:
    """Where an index is stored: a database of a server, and a schema in it."""

    url: str
    schema: str

    @classmethod
    def of(cls, url: str, *, schema: str = _SCHEMA) -> "Address":
        """The address that a URL of PostgreSQL gives; `?schema=` names the schema.

        schema: where the URL names none.

        Raises InputError, also for a password, since the folder of the index keeps the URL.
        """
        parts = urlsplit(url)
        options = _options(parts.query)
        schema = dict(options).get("schema", schema)
        if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
            raise InputError(
                f"the schema is {quoted(schema)}; expected up to 63 of the letters a to z, digits and _, "
                "the first no digit, and not one that begins with pg_"
            )
        user, at, host = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        if password or "password" in dict(options):
            raise InputError(
                "the URL of the database holds a password, which would be kept in the folder of the index; "
                "expected it in PGPASSWORD or in ~/.pgpass, where every program finds it"
            )
        rest = [(key, value) for key, value in options if key != "schema"]
        query = _query([*rest, ("schema", schema)])
        return cls(urlunsplit(("postgresql", f"{name}{at}{host}", parts.path, query, "")), schema)

    def __str__(self) -> str:
        return self.url

    @property
    def conninfo(self) -> str:
        """The URL without what libpq does not know."""
        parts = urlsplit(self.url)
        options = [(key, value) for key, value in _options(parts.query) if key != "schema"]
        given = {key for key, _ in options}
        more = [(key, value) for key, value in _WAITS if key not in given]
        return urlunsplit(parts._replace(query=_query([*options, *more])))


def _options(query: str) -> list[tuple[str, str]]:
    """The options of a URL as libpq reads them, to which a plus is no blank."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return [(unquote(key), unquote(value)) for key, _, value in pairs]


def _query(options: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{quote(key)}={quote(value, safe='/,:')}" for key, value in options)


def is_url(path: object) -> bool:
    """Whether this is the URL of a PostgreSQL database, and no path."""
    return isinstance(path, str) and path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


class PostgresConnection:
    """A connection that takes the statements of the store.

    In a write transaction, a few rows that are appended wait for what is sent next, mostly COMMIT.
    """

    __slots__ = ("_waiting", "raw", "writing")

    def __init__(self, raw: "psycopg.Connection[Any]") -> None:
        self.raw = raw
        self.writing = False
        self._waiting = list[tuple[str, Any]]()

    def close(self) -> None:
        """End the connection, whether the server is there or not."""
        with suppress(Exception):
            self.raw.close()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; of a connection that ended, none is."""
        return bool(0 < self.raw.info.transaction_status < _UNKNOWN)

    def execute(self, sql: str, parameters: Values = (), /) -> Rows:
        """Run a statement; all of its rows are read at once."""
        if self._waiting:
            self.send()
        cursor: Rows = self.raw.cursor(binary=True).execute(translated(sql), parameters)
        return cursor

    def each(self, sql: str, parameters: Values, size: int, /) -> Iterator[Any]:
        """The rows of a statement, so many at a time: the server keeps the others."""
        self.send()
        cursor = self.raw.cursor(f"each_{next(_numbers)}", withhold=not self.in_transaction)
        try:
            cursor.itersize = size
            yield from cursor.execute(translated(sql), parameters, binary=True)
        finally:
            with suppress(Exception):  # of a transaction that has ended
                cursor.close()

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows:
        """Run a statement once for each of these values, sent together; in a write transaction perhaps later,
        and its errors are raised then."""
        every = list(parameters)
        if self.writing and len(self._waiting) + len(every) <= _MOST_WAITING:
            self._waiting += ((translated(sql), values) for values in every)
            return _NO_ROWS
        self.send()
        if len(every) == 1:  # in one exchange, where many take two
            return self.execute(sql, every[0])
        cursor = self.raw.cursor()
        cursor.executemany(translated(sql), every)
        rows: Rows = cursor
        return rows

    def send(self, *last: str) -> None:
        """Run what waits, and statements without values, in one exchange."""
        waiting, self._waiting = self._waiting, []
        if not waiting and not last:
            return
        written = (
            _driver().ClientCursor(self.raw).mogrify
        )  # a pipeline of psycopg takes twice the time
        self.raw.execute("; ".join([*(written(*each) for each in waiting), *last]))

    def forget_waiting(self) -> None:
        """Run nothing of what waits."""
        self._waiting.clear()


class _NoRows:
    """The result of what is run later."""

    rowcount = -1

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __next__(self) -> Any:
        raise StopIteration

    def fetchone(self) -> Any:
        """None."""
        return None

    def fetchall(self) -> list[Any]:
        """Nothing."""
        return []


_NO_ROWS = _NoRows()


@dataclass
class HeldLock:
    """A lock of the server that a thread holds.

    pid: of the process of the server whose connection holds it; began: a number that its holder notes, by
    which it sees what others did if they got the lock meanwhile.
    """

    pid: int
    began: int = 0


class _Translated:
    """Raises errors of psycopg in the block as ours."""

    __slots__ = ("_database",)

    def __init__(self, database: "PostgresDatabase") -> None:
        self._database = database

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if error is not None and isinstance(error, _driver().Error):
            raise self._database.as_flywheel_error(cast("psycopg.Error", error)) from error


class _Pause:
    """Refuses at once what would wait for a server that was just found to be gone; thread-safe.

    One thread at a time tries again, after a pause in proportion to how long it took to fail.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said = ""
        self._until = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Try to connect in the block. Raises OperationalError during a pause."""
        with self._lock:
            began = time.monotonic()
            if self._said and began < self._until:
                raise _driver().OperationalError(self._said)
            self._until = began + _MOST_PAUSE_S  # for others, if it was gone before
        try:
            yield
        except _driver().OperationalError as error:
            with self._lock:
                now = time.monotonic()
                pause = min(max((now - began) * _PAUSE, _LEAST_PAUSE_S), _MOST_PAUSE_S)
                self._said, self._until = str(error), now + pause
            raise
        self._said = ""


class PostgresDatabase(Database):
    """The schema of an index on a server: a connection per thread, closed while the process forks.

    folder: of the index, which holds its settings and versions.
    """

    REMOTE = True

    def __init__(self, address: Address, folder: Path, *, read_only: bool = False) -> None:
        _driver()
        super().__init__(folder / FILE_NAME, read_only=read_only)
        self.address = address
        self._key = zlib.crc32(address.schema.encode()) - 2**31
        self._pause = _Pause()

    @contextmanager
    def reading(self) -> Iterator[PostgresConnection]:
        """This thread's connection in autocommit, with errors translated, for single statements."""
        handle: Handle[PostgresConnection] = self._handle()
        with handle.lock, _Translated(self):
            self.require_open()
            if handle.conn is None or (not handle.conn.in_transaction and is_gone(handle.conn.raw)):
                handle.close()
                with self._pause.attempt():
                    handle.conn = self.connect()
                handle.file = self._identity(handle.conn)
            yield handle.conn

    def connect(self) -> PostgresConnection:
        """A new connection in autocommit, which the caller closes; its statements find the tables."""
        raw: psycopg.Connection[Any] = _driver().connect(
            self.address.conninfo,
            autocommit=True,
            application_name=f"rag-flywheel {self.address.schema}"[:_NAME_BYTES],
            context=_types(),
        )
        try:
            limit = "; SET transaction_timeout = 0" if raw.info.server_version >= _HAS_LIMIT else ""
            raw.execute(f'{_SETTINGS}{limit}; SET search_path = "{self.address.schema}"')
            if self.read_only:
                raw.execute("SET default_transaction_read_only = on")
        except BaseException:
            raw.close()
            raise
        return PostgresConnection(raw)

    def _identity(self, conn: PostgresConnection) -> object:
        """What tells this schema from another of its name, and from what it was before a crash.

        A crash may take what others saw already, but nobody was told to be stored. It leaves the table of
        the token empty; whoever finds it so begins another timeline.
        """
        sql = "SELECT to_regnamespace(%s)::oid::bigint, to_regclass(%s) IS NOT NULL"
        number, there = conn.raw.execute(sql, (f'"{self.address.schema}"', ALIVE)).fetchone() or (
            None,
            False,
        )
        token = scalar(conn, f"SELECT token FROM {ALIVE}") if there else None
        if there and token is None and not self.read_only:
            token = self._after_a_crash(conn)
        return number, token

    def _after_a_crash(self, conn: PostgresConnection) -> object:
        """Begin another timeline, unless another has done so meanwhile; returns the token."""
        self._begin_writing(conn, BUSY_TIMEOUT_S)
        token = scalar(conn, f"SELECT token FROM {ALIVE}")
        if token is None:
            token = new_token()
            conn.execute(f"INSERT INTO {ALIVE} (token) VALUES (?)", (token,))
            begin_timeline(conn, goes_on=True)
        conn.send("COMMIT", _FLUSH)
        return token

    def place(self) -> str:
        """What tells this schema from a copy of it, in another database or on another server."""
        with self.reading() as conn:
            row = conn.raw.execute(
                "SELECT (SELECT system_identifier FROM pg_control_system()), oid, %s::text FROM pg_database "
                "WHERE datname = current_database()",
                (self.address.schema,),
            ).fetchone()
        return repr(row)

    def make_schema(self) -> None:
        """Make the schema of the index, unless it is there. Raises ReadOnlyError, StorageError."""
        with self.reading() as conn:
            sql = "SELECT to_regnamespace(%s) IS NOT NULL"
            if conn.raw.execute(sql, (f'"{self.address.schema}"',)).fetchone() == (True,):
                return
        with self.transaction() as conn:
            conn.raw.execute(f'CREATE SCHEMA IF NOT EXISTS "{self.address.schema}"')
        self.close_connections()  # the next ones know it by its number

    def drop_schema(self) -> None:
        """Delete the schema with all that is in it, if it is there. Raises StorageError."""
        with self.transaction() as conn:
            conn.raw.execute(f'DROP SCHEMA IF EXISTS "{self.address.schema}" CASCADE')

    @contextmanager
    def transaction(
        self, *, durable: bool = True, wait_s: float = BUSY_TIMEOUT_S
    ) -> Iterator[PostgresConnection]:
        """A write transaction: all of it is committed, or nothing. There is one at a time in a schema: it
        holds a lock until it is committed and can be seen, so that event numbers are committed in order.

        durable: wait until it is stored as the server's synchronous_commit says. Others see it before, and
            do not wait: many transactions are written to the disk together.
        wait_s: for how long to wait while another program writes. Raises BusyError after it.
        """
        self.require_writable()
        with self.reading() as conn:
            self._begin_writing(conn, wait_s)
            try:
                conn.writing = True
                yield conn
                # the lock is free, and others see all of it, before the log is stored
                conn.send(*(("COMMIT", _FLUSH) if durable else ("COMMIT",)))
            except BaseException:
                conn.forget_waiting()
                if conn.in_transaction:
                    with suppress(_driver().Error):
                        conn.raw.execute("ROLLBACK")
                raise
            finally:
                conn.writing = False

    def _begin_writing(self, conn: PostgresConnection, wait_s: float) -> None:
        """Begin a write transaction, in one exchange with the server when nobody else writes."""
        limit = max(1, int(wait_s * 1000))  # 0 would mean for ever
        lock = f"advisory_xact_lock({_WRITE}, {self._key})"
        try:
            begun = conn.raw.execute(f"{_BEGIN}; SELECT pg_try_{lock}")
            while begun.nextset():
                pass
            if begun.fetchone() != (True,):
                conn.raw.execute(
                    f"SET LOCAL lock_timeout = {limit}; SELECT pg_{lock}; SET LOCAL lock_timeout = 0"
                )
        except BaseException:
            with suppress(_driver().Error):
                conn.raw.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[PostgresConnection]:
        """A read transaction: every statement in it sees the same state."""
        with self.reading() as conn:
            conn.raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                yield conn
            finally:
                if conn.in_transaction:
                    with suppress(_driver().Error):
                        conn.raw.execute("ROLLBACK")

    @contextmanager
    def lock(self, name: str, why: str, *, wait_s: float = 0.0) -> Iterator["HeldLock"]:
        """Hold a lock of the index in the block, "refresh" or "change"; the server frees it when the
        connection ends, and so when its holder dies: `held_lock` tells. Raises LockedError, which says why,
        after wait_s."""
        with _Translated(self):
            conn = self.connect()
        try:
            with _Translated(self):
                if conn.raw.info.server_version >= _ENDS_IDLE:  # by which the lock would be lost
                    conn.raw.execute("SET idle_session_timeout = 0")
                until = time.monotonic() + wait_s
                sql = "SELECT pg_try_advisory_lock(%s::int, %s::int)"
                while conn.raw.execute(sql, (_LOCKS[name], self._key)).fetchone() != (True,):
                    if time.monotonic() >= until:
                        raise LockedError(why)
                    time.sleep(_LOOK_S)
            held = self._locks_held()
            before = held.get(name)  # which this thread lost
            held[name] = mine = HeldLock(conn.raw.info.backend_pid)
            try:
                yield mine
            finally:
                held.pop(name, None)
                if before is not None:
                    held[name] = before
                with suppress(_driver().Error):  # at once: the end of a connection takes its time
                    conn.raw.execute("SELECT pg_advisory_unlock_all()")
        finally:
            conn.raw.close()

    def held_lock(self, conn: Connection, name: str) -> "HeldLock | None":
        """The lock that this thread took by `lock`, if its connection still holds it: that may have ended
        while the process slept."""
        held = self._locks_held().get(name)
        if held is None:
            return None
        sql = (
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
            "AND classid = ?::bigint::oid AND objid = ?::bigint::oid AND pid = ? AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database()))"
        )
        there = scalar(conn, sql, (_LOCKS[name], self._key % 2**32, held.pid))
        return held if there else None

    def _locks_held(self) -> dict[str, "HeldLock"]:
        """The locks that this thread took, by their names."""
        found: dict[str, HeldLock] = self._local.__dict__.setdefault("held", {})
        return found

    def problems(self) -> list[str]:
        """Nothing: the server checks what it stores by itself."""
        self.require_open()
        return []

    def quick_problems(self) -> tuple[list[str], bool]:
        """As `problems`, after one exchange with the server."""
        with self.reading() as conn:
            conn.execute("SELECT 1")
        return [], True

    def compact(self, *, wait_s: float = 0.0) -> bool:
        """Let the server reuse the space of deleted rows; it keeps them in its log and copies as its
        administrators set it."""
        with self.reading() as conn:
            sql = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
            names = [row[0] for row in conn.raw.execute(sql, (self.address.schema,))]
            for name in names:
                conn.raw.execute(f'VACUUM "{self.address.schema}"."{name}"')
        return True

    def empty_log(self, *, wait_s: float = 0.0) -> bool:
        """Nothing: the server's log is its administrators'."""
        self.require_open()
        return True

    def as_flywheel_error(self, error: "psycopg.Error") -> FlywheelError:
        """An error of PostgreSQL as one of ours."""
        where, code = self.address, error.sqlstate or ""
        said = " ".join(str(error).split())
        if self._closed:
            return ClosedError(f"{self.path.parent} was closed; open it again to use it")
        if code == "55P03":
            return BusyError(
                f"{where} is being written to by another program, and did not become free ({said}); repeat "
                "the call, and see what holds it: `SELECT * FROM pg_stat_activity`"
            )
        if code == "53100":
            return DiskFullError(
                f"the server of {where} has no space ({said}); free some and repeat the call. Nothing of "
                "it was kept"
            )
        if code == "42501" and "for database" in said:
            return ReadOnlyError(
                f"the schema of {where} is not there, and this user may not make it ({said}); let an "
                f"administrator run `CREATE SCHEMA {self.address.schema} AUTHORIZATION` with the user's name"
            )
        if code in ("25006", "42501"):
            return ReadOnlyError(
                f"{where} cannot be written to ({said}); connect to the primary server, as a user who owns "
                "the schema, or open it with read_only=True (--read-only), which records nothing"
            )
        if code in ("42P01", "42703", "3F000"):
            return CorruptFileError(
                f"{where} does not have the tables of this package ({said}); restore them from a backup "
                "of the database"
            )
        if code in ("22021", "22P05") or "NUL" in said:
            return InputError(
                f"PostgreSQL cannot store a value ({said}); expected text without NUL"
            )
        driver = _driver()
        if code != "57014" and isinstance(error, driver.OperationalError | driver.InterfaceError):
            if _REFUSED.search(said):
                return UnreachableError(
                    f"the server of {where} refuses the connection ({said}); see the user and the database "
                    "in the URL, and the password in PGPASSWORD or ~/.pgpass"
                )
            return UnreachableError(
                f"the server of {where} cannot be reached ({said}); see whether it runs, and repeat the "
                "call. What was acknowledged is stored"
            )
        return StorageError(f"{where}: {said}")


def is_gone(raw: "psycopg.Connection[Any]") -> bool:
    """Whether an idle connection was ended: then there is something to read, without an exchange."""
    if raw.closed or raw.broken:
        return True
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def limited_statements(conn: Connection, seconds: float) -> Iterator[Callable[[], bool]]:
    """End the block when one of its statements takes longer; whether it was ended. In a transaction, which
    goes on after it."""
    assert isinstance(conn, PostgresConnection)
    conn.send()
    ended = False
    conn.raw.execute(f"SAVEPOINT limited; SET LOCAL statement_timeout = {int(seconds * 1000)}")
    try:
        yield lambda: ended
    except _driver().errors.QueryCanceled:
        ended = True
    finally:
        if conn.in_transaction:
            conn.raw.execute("ROLLBACK TO SAVEPOINT limited; RELEASE SAVEPOINT limited")


@cache
def _driver() -> Any:
    """psycopg, which an extra brings. Raises StorageError."""
    try:
        import psycopg
    except ImportError as error:
        raise StorageError(
            "an index on PostgreSQL needs psycopg; install it with pip install 'rag-flywheel[postgres]'"
        ) from error
    return psycopg


@cache
def _types() -> Any:
    """How values are written and read: as SQLite does it, truth is 1 or 0, and sums are whole numbers."""
    from psycopg.adapt import AdaptersMap
    from psycopg.types.numeric import Int2BinaryDumper, Int2Dumper, NumericBinaryLoader

    class Truth(Int2Dumper):
        def dump(self, obj: Any) -> Any:
            return super().dump(int(obj))

    class BinaryTruth(Int2BinaryDumper):
        def dump(self, obj: Any) -> Any:
            return super().dump(int(obj))

    class Plain(NumericBinaryLoader):
        def load(self, data: Any) -> Any:
            found = super().load(data)
            return int(found) if found == int(found) else float(found)

    made = AdaptersMap(_driver().adapters)
    made.register_dumper(bool, Truth)
    made.register_dumper(bool, BinaryTruth)
    made.register_loader("numeric", Plain)
    return _Context(made)


class _Context:
    """The types of a connection, as psycopg asks for them."""

    connection = None

    def __init__(self, adapters: Any) -> None:
        self.adapters = adapters
