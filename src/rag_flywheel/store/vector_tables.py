"""PostgreSQL with pgvector as a database of vectors: two tables for each version.

    PREFIX_COLLECTION        pid, dense vector(dim), words int[], scores real[]: a row for each passage
    PREFIX_COLLECTION_words  word, pid, score: its BM25 score for each of its words

Search is exact: of vectors every one is compared, and of words the rows of those of the query are added up.
"""

import os
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from rag_flywheel.errors import ConfigError, EngineError, counted
from rag_flywheel.store.postgres import is_gone
from rag_flywheel.vector_database import Chosen, Field, Row, unanswered

_ADDRESS = re.compile(r"(postgres(?:ql)?://[^#\s]*)#([a-z_][a-z0-9_]{0,19})", re.ASCII)
_PASSWORD = re.compile(r"//[^@/]*:[^@/]+@|[?&]password=")
_MOST = 1_000_000  # passages that a search returns
_CONNECT_S, ANSWER_S = 10, 60
HANGS_AFTER_S, _SOON_S = 5, 1.0  # the first more than that
_NOTICED = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Options of libpq by which a host that is gone is noticed."""
_WORDS = "_words"
_MAY_NOT = "42501"  # the code of an error for a user without the right


class VectorTables:
    """A database of PostgreSQL, with the tables whose names begin with a prefix."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self.prefix = url, prefix
        self._idle: list[Any] = []  # connections
        self._of = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def at(cls, address: str) -> "VectorTables":
        """The database and the prefix of "postgresql://USER@HOST/DATABASE#PREFIX". Raises ConfigError;
        connects to nothing."""
        found = _ADDRESS.fullmatch(address)
        if found is None or _PASSWORD.search(found[1]):
            raise ConfigError(
                "config engine names no database of PostgreSQL; expected "
                "pgvector:postgresql://USER@HOST/DATABASE#PREFIX, the prefix of up to 20 small letters, "
                "digits and _ (a password goes into ~/.pgpass or the environment variable PGPASSWORD)"
            )
        return cls(found[1], found[2])

    @property
    def address(self) -> str:
        """As in `VectorDatabase`."""
        return f"PostgreSQL at {self._url.partition('?')[0]}"

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection in autocommit that nobody else uses; one that failed is closed.

        Raises EngineError.
        """
        try:
            import psycopg
        except ImportError as error:
            raise EngineError(
                "config engine names PostgreSQL, and its client is not installed: "
                "pip install 'rag-flywheel[pgvector]'"
            ) from error
        conn = None
        try:
            conn = self._taken() or psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_S,
                **_NOTICED,
                options=f"-c statement_timeout={1_000 * ANSWER_S}",
            )
            yield conn
        except psycopg.Error as error:
            if conn is not None:
                conn.close()
            if error.sqlstate == _MAY_NOT:
                raise EngineError(
                    f"{self.address} does not let this user ({' '.join(str(error).split())}); let an "
                    "administrator run `CREATE EXTENSION vector` in that database, and `GRANT CREATE ON "
                    "SCHEMA public TO` the user"
                ) from error
            raise unanswered(self.address, error) from error
        finally:
            if conn is not None and not conn.closed:
                with self._lock:
                    self._idle.append(conn)

    @contextmanager
    def answering(self, within_s: float = ANSWER_S + HANGS_AFTER_S) -> Iterator[Any]:
        """A connection, as from `connection`, that is cut off when the server hangs."""
        with self.connection() as conn:
            timer = threading.Timer(within_s, _cut_off, (conn,))
            timer.daemon = True
            timer.start()
            try:
                yield conn
            finally:
                timer.cancel()

    def _taken(self) -> Any:
        """A connection of this process that is idle, and was not ended; None: there is none."""
        with self._lock:
            if self._of != os.getpid():  # those of the process that this one was forked from
                self._idle, self._of = [], os.getpid()
            while self._idle:
                conn = self._idle.pop()
                if not is_gone(conn):
                    return conn
                conn.close()
            return None

    def close(self) -> None:
        """As in `VectorDatabase`."""
        while (conn := self._taken()) is not None:
            conn.close()

    def answers(self) -> bool:
        """As in `VectorDatabase`."""
        try:
            with self.answering(_SOON_S) as conn:
                conn.execute("SELECT 1")
        except EngineError:
            return False
        return True

    def name(self, collection: str) -> str:
        """As in `VectorDatabase`."""
        return f"{self.prefix}_{collection}"

    def has(self, collection: str, n: int) -> bool:
        """As in `VectorDatabase`."""
        name = self.name(collection)
        with self.answering() as conn:
            sql = "SELECT to_regclass(%s) IS NOT NULL AND to_regclass(%s) IS NOT NULL"
            (there,) = conn.execute(sql, (name, f"{name}{_WORDS}")).fetchone()
            if not there:
                return False
            sql = f"SELECT count(*), coalesce(sum(cardinality(words)), 0) FROM {name}"
            found, n_words = conn.execute(sql).fetchone()
            (n_found,) = conn.execute(f"SELECT count(*) FROM {name}{_WORDS}").fetchone()
        return bool(found == n and n_words == n_found)

    def write(self, collection: str, dim: int, n: int, rows: Iterable[Sequence[Row]]) -> None:
        """As in `VectorDatabase`, in one transaction."""
        name, words, found = self.name(collection), f"{self.name(collection)}{_WORDS}", 0
        with self.connection() as conn, conn.transaction():
            conn.execute("SET LOCAL statement_timeout = 0")
            conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
            conn.execute(f"DROP TABLE IF EXISTS {name}, {words} CASCADE")
            conn.execute(
                f"CREATE TABLE {name} (pid bigint PRIMARY KEY, dense vector({dim}) NOT NULL, "
                "words int[] NOT NULL, scores real[] NOT NULL)"
            )
            conn.execute(f"CREATE TABLE {words} (word int, pid bigint, score real)")
            for some in rows:
                found += len(some)
                with conn.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                    for row in some:
                        numbers = row.words.tolist(), row.scores.tolist()
                        copy.write_row((row.pid, str(row.vector.tolist()), *numbers))
                with conn.cursor().copy(f"COPY {words} FROM STDIN") as copy:
                    for row in some:
                        for word, score in zip(
                            row.words.tolist(), row.scores.tolist(), strict=True
                        ):
                            copy.write_row((word, row.pid, score))
            if found != n:
                raise unanswered(self.address, f"it was given {counted(found, 'passage')} of {n}")
            conn.execute(f"ALTER TABLE {words} ADD PRIMARY KEY (word, pid) INCLUDE (score)")
            conn.execute(f"ANALYZE {name}, {words}")

    def open(self, collection: str, dim: int, n: int) -> "TableCollection":
        """As in `VectorDatabase`."""
        return TableCollection(self, self.name(collection))

    def point(self, collection: str) -> None:
        """As in `VectorDatabase`: by a view."""
        with self.connection() as conn, conn.transaction():
            conn.execute(f"DROP VIEW IF EXISTS {self.prefix}")
            conn.execute(f"CREATE VIEW {self.prefix} AS SELECT * FROM {self.name(collection)}")

    def collections(self) -> list[str]:
        """As in `VectorDatabase`."""
        start = f"{self.prefix}_"
        sql = "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"
        with self.connection() as conn:
            names = [name for (name,) in conn.execute(sql).fetchall()]
        own = [n for n in names if n.startswith(start) and not n.endswith(_WORDS)]
        return [name.removeprefix(start) for name in own]

    def drop(self, collection: str) -> None:
        """As in `VectorDatabase`."""
        name = self.name(collection)
        with self.connection() as conn:
            conn.execute(f"DROP TABLE IF EXISTS {name}, {name}{_WORDS} CASCADE")


class TableCollection:
    """A `Collection` in two tables."""

    most = _MOST

    def __init__(self, database: VectorTables, name: str) -> None:
        self._database, self._name = database, name

    def search(
        self, field: Field, queries: Sequence[Any], n: int, chosen: Chosen | None
    ) -> list[list[int]]:
        """As in `Collection`."""
        condition, pids = "", list[list[int]]()
        if chosen is not None:
            pids = [list(chosen.pids)]
            condition = "WHERE pid = ANY (%s)"
            if not chosen.these:  # by a hash of them, which <> ALL is not in every plan
                condition = (
                    "WHERE NOT EXISTS "
                    "(SELECT FROM unnest(%s::bigint[]) AS left_out (pid) WHERE left_out.pid = own.pid)"
                )
        with self._database.answering() as conn:
            if field == "words":
                sql = (
                    f"SELECT pid FROM {self._name}{_WORDS} AS own JOIN unnest(%s::int[], %s::real[]) "
                    f"AS asked (word, times) USING (word) {condition} "
                    "GROUP BY pid ORDER BY sum(score * times) DESC, pid LIMIT %s"
                )
                every = [
                    conn.execute(sql, (list(query), list(query.values()), *pids, n)).fetchall()
                    for query in queries
                ]
            else:
                sql = (
                    f"SELECT pid FROM {self._name} AS own {condition} "
                    "ORDER BY dense <#> %s::vector, pid LIMIT %s"
                )
                every = [
                    conn.execute(sql, (*pids, str(query.tolist()), n)).fetchall()
                    for query in queries
                ]
        return [[pid for (pid,) in found] for found in every]

    def rows(self, pids: Sequence[int]) -> list[Row]:
        """As in `Collection`."""
        sql = f"SELECT pid, dense::real[], words, scores FROM {self._name} WHERE pid = ANY (%s)"
        with self._database.answering() as conn:
            found = conn.execute(sql, (list(pids),), binary=True).fetchall()
        return [
            Row(
                pid,
                np.array(dense, np.float32),
                np.array(words, np.int32),
                np.array(scores, np.float32),
            )
            for pid, dense, words, scores in found
        ]


def _cut_off(conn: Any) -> None:
    """End a connection that another thread waits for, which then raises."""
    with suppress(Exception), socket.socket(fileno=os.dup(conn.fileno())) as own:
        own.shutdown(socket.SHUT_RDWR)
